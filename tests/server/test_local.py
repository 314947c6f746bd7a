"""What is done to many sockets of this node lets the loop turn meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from bellwire import Server, Socket
from bellwire.server.local import AT_ONCE, Local
from bellwire.server.namespace import Namespace
from bellwire.testing import connect

COUNT = 3 * AT_ONCE + 1


def everyone(namespace: Namespace) -> Local:
    return Local(namespace, "/", (), ())


async def turns_during(work: Awaitable[None]) -> int:
    """How often the loop turned until ``work`` was done."""
    doing, turns = asyncio.ensure_future(work), 0
    while not doing.done():
        await asyncio.sleep(0)
        turns += 1
    await doing
    return turns


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda local: local.join("room"), id="join"),
        pytest.param(lambda local: local.leave("room"), id="leave"),
        pytest.param(lambda local: local.disconnect(close=False), id="disconnect"),
        pytest.param(lambda local: local.disconnect(close=True), id="close"),
    ],
)
async def test_the_loop_turns_while_many_sockets_are_served(work: Callable[[Local], Awaitable[None]]) -> None:
    server = Server()
    root = server.namespace("/")
    async with server.lifespan(), AsyncExitStack() as stack:
        for _ in range(COUNT):
            await stack.enter_async_context(connect(server))
        assert await turns_during(work(everyone(root))) >= COUNT // AT_ONCE


async def test_who_goes_meanwhile_is_left_alone_and_who_comes_is_not_meant() -> None:
    server = Server()
    root = server.namespace("/")
    seen: list[Socket] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        seen.append(socket)

    async with server.lifespan(), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server)) for _ in range(AT_ONCE + 1)]
        joining = asyncio.ensure_future(everyone(root).join("room"))
        await asyncio.sleep(0)
        late = await stack.enter_async_context(connect(server))
        clients[-1].drop()
        await joining
        assert "room" not in seen[-1].rooms
        assert seen[-1].id == late.id
        members = {socket.id for socket in await root.to("room").sockets()}
        assert members == {client.id for client in clients[:-1]}
