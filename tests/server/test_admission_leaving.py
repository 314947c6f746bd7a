"""Clients that leave, hang or are sent away on their way into a namespace."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from bellwire import Config, ConnectRefused, Identity, Namespace, Request, Server, Socket
from bellwire.server.admission import Next
from bellwire.testing import connect
from bellwire.testing.clock import advance
from tests.server.doorway import PLACES, assert_empty, unwelcomed
from tests.server.house import SAY, raw


def _slow(server: Server, root: Namespace, where: str, log: list[str]) -> None:
    """Each admission takes a second at one of its stations."""

    async def pause(here: str) -> None:
        log.append(here)
        if here == where:
            await asyncio.sleep(1)

    async def auth(request: Request, payload: Mapping[str, Any]) -> Identity:
        await pause("auth")
        return Identity("ann")

    server.authenticator = auth

    @root.use
    async def check(socket: Socket, go_on: Next) -> None:
        await pause("middleware")
        await go_on()

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await socket.join("before")
        await pause("on_connect")
        await socket.join("after")
        await root.to("after").emit(SAY, "in")

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        log.append(reason)


def _hanging(server: Server, namespace: Namespace, where: str, log: list[str]) -> None:
    """Nobody gets past one of the stations."""

    async def hang() -> None:
        log.append(where)
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cut off")

    if where == "auth":

        async def auth(request: Request, payload: Mapping[str, Any]) -> None:
            await hang()

        server.authenticator = auth
    elif where == "middleware":

        @namespace.use
        async def check(socket: Socket, go_on: Next) -> None:
            await hang()

    else:

        @namespace.on_connect
        async def enter(socket: Socket) -> None:
            await hang()

    @namespace.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        log.append(reason)


async def leave_early(server: Server, how: str) -> None:
    client = unwelcomed(server)
    await advance(0.5)
    if how == "drop":
        client.drop()
    else:
        raw(client, "41")
    await advance(1)
    client.drop()
    assert_empty(server)


@pytest.mark.parametrize("how", ["drop", "disconnect"])
@pytest.mark.parametrize(
    ("where", "stations"),
    [("auth", ["auth"]), ("middleware", ["auth", "middleware"]), ("on_connect", ["auth", "middleware", "on_connect"])],
)
async def test_on_disconnect_runs_for_a_client_that_left_early_if_on_connect_did(
    where: str, stations: list[str], how: str
) -> None:
    server = Server()
    root = server.namespace("/")
    log: list[str] = []
    _slow(server, root, where, log)
    async with server.lifespan():
        await leave_early(server, how)
        end = {"drop": ["transport close"], "disconnect": ["client namespace disconnect"]}[how]
        assert log == stations + (end if where == "on_connect" else [])
        assert server.counters.get("connects_refused_total", reason="refused") == 0


@PLACES
@pytest.mark.parametrize("how", ["drop", "disconnect"])
async def test_what_hangs_ends_with_its_client(where: str, how: str) -> None:
    server = Server()
    root = server.namespace("/")
    log: list[str] = []
    _hanging(server, root, where, log)
    async with server.lifespan():
        tasks = len(asyncio.all_tasks())
        client = unwelcomed(server)
        await advance(0.5)
        assert log == [where]
        if how == "drop":
            client.drop()
        else:
            raw(client, "41")
        await advance(0.01)
        end = {"drop": ["transport close"], "disconnect": ["client namespace disconnect"]}[how]
        assert log == [where, "cut off", *(end if where == "on_connect" else [])]
        client.drop()
        await advance(0.01)
        assert len(asyncio.all_tasks()) <= tasks + 1  # a parked one
        assert server.counters.get("handler_errors_total") == 0
        assert_empty(server)


@PLACES
async def test_what_hangs_in_one_namespace_is_refused_there_and_costs_the_others_nothing(where: str) -> None:
    server = Server(config=Config(connect_timeout=5))
    server.namespace("/")
    other = server.namespace("/other")
    async with connect(server) as client:
        log: list[str] = []
        _hanging(server, other, where, log)
        packets: list[str] = []
        client.take = lambda part: packets.append(str(part))  # type: ignore[method-assign]
        raw(client, "40/other,")
        await advance(4.9)
        assert (log, packets) == ([where], [])
        await advance(0.4)
        assert packets == ['44/other,{"message":"it took too long to let you in","data":{"code":"connect_timeout"}}']
        assert log == [where, "cut off", *(["connect timeout"] if where == "on_connect" else [])]
        assert server.counters.get("connects_refused_total", reason="connect_timeout") == 1
        assert server.counters.get("handler_errors_total") == 0
        assert client.reason is None
        assert not other._hubs


async def test_a_handler_that_does_not_let_itself_be_cut_off_lets_nobody_in_any_more() -> None:
    server = Server(config=Config(connect_timeout=5))
    root = server.namespace("/")
    log: list[str] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(100)
        log.append("entered")

    @root.on_disconnect
    async def leave(socket: Socket, reason: str) -> None:
        log.append(reason)

    async with server.lifespan():
        client = unwelcomed(server)
        await advance(5.5)
        assert (client.id, client.reason) == ("", "transport close")
        await advance(100)
        assert log == ["entered", "connect timeout"]
        assert_empty(server)


async def test_a_handler_that_sends_its_own_client_away_is_not_cut_off() -> None:
    server = Server()
    root = server.namespace("/")
    log: list[str] = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        await asyncio.sleep(1)
        await socket.disconnect(close=True)
        await asyncio.sleep(1)
        log.append("done")

    async with server.lifespan():
        client = unwelcomed(server)
        await advance(3)
        assert (client.reason, log) == ("io server disconnect", ["done"])


async def test_a_client_that_joins_and_leaves_over_and_over_has_a_bounded_number_of_admissions() -> None:
    server = Server(config=Config(inbound_queue_events=8))
    root = server.namespace("/")
    started = []

    @root.on_connect
    async def enter(socket: Socket) -> None:
        started.append(socket)
        await asyncio.sleep(0.5)

    async with server.lifespan():
        client = unwelcomed(server)
        for _ in range(100):
            raw(client, "41")
            raw(client, "40")
        assert len(started) <= 9
        assert client.carrier.session.paused
        await advance(10)
        assert len(started) == 101
        assert client.id
        client.drop()


async def test_two_admissions_of_one_namespace_do_not_hurt_each_other() -> None:
    """The first is refused while the second still waits: the live namespace must not be forgotten under it."""
    server = Server()
    org = server.namespace("/org/{org}")

    @org.use
    async def check(socket: Socket, go_on: Next) -> None:
        await asyncio.sleep(socket.auth["wait"])
        if socket.auth["wait"] == 1:
            raise ConnectRefused("no")
        await go_on()

    async with server.lifespan():
        first, second = unwelcomed(server), unwelcomed(server)
        for client, wait in ((first, 1), (second, 2)):
            client.namespace = "/org/7"
            raw(client, f'40/org/7,{{"wait":{wait}}}')
        await advance(3)
        assert first.refused is not None
        await org.at(org="7").emit(SAY, "still there")
        assert await second.receive(SAY) == "still there"
        first.drop()
        second.drop()


@PLACES
async def test_a_client_that_is_not_admitted_in_time_is_closed(where: str) -> None:
    server = Server()
    root = server.namespace("/")
    log: list[str] = []
    _hanging(server, root, where, log)
    async with server.lifespan():
        client = unwelcomed(server)
        await advance(14.5)
        assert (client.reason, log) == (None, [where])
        await advance(1)
        assert client.reason is not None
        assert log == [where, "cut off", *(["connect timeout"] if where == "on_connect" else [])]
        assert server.counters.get("sessions_closed_total", reason="connect_timeout") == 1
        assert_empty(server)
