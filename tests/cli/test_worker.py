"""The worker's end of the socket to its supervisor, over a real pair of sockets."""

import asyncio
import socket
from pathlib import Path

import pytest

from bellwire.cli.worker import Order, SupervisorLink
from bellwire.core.errors import BrokerUnavailable

ORDER = Order(
    target="app:server",
    host="127.0.0.1",
    port=8000,
    data=Path("data"),
    log_level="info",
    toml=None,
    flags={"ping_interval": "20", "per_message_deflate": True, "broker": None},
    worker="worker-2",
)


def test_the_order_comes_as_it_was_given() -> None:
    supervisor, worker = socket.socketpair()
    with supervisor, worker:
        supervisor.sendall(ORDER.encode())
        link = SupervisorLink(worker)
    assert link.order == ORDER
    assert link.worker == "worker-2"


@pytest.mark.bellwire(clock="real")
async def test_the_nats_server_is_asked_for_and_listening_is_told() -> None:
    supervisor, worker = socket.socketpair()
    with supervisor, worker:
        await asyncio.to_thread(supervisor.sendall, ORDER.encode())
        link = await asyncio.to_thread(SupervisorLink, worker)
        asking = asyncio.create_task(link.start())
        supervisor.setblocking(False)
        loop = asyncio.get_running_loop()
        assert await loop.sock_recv(supervisor, 100) == b"broker\n"
        await loop.sock_sendall(supervisor, b"nats://to")
        await loop.sock_sendall(supervisor, b"ken@h:1\n")
        await asyncio.wait_for(asking, 5)
        assert link.url == "nats://token@h:1"
        link.serving("http://127.0.0.1:1")
        assert await loop.sock_recv(supervisor, 100) == b"serving http://127.0.0.1:1\n"
        await link.close()


@pytest.mark.bellwire(clock="real")
async def test_a_supervisor_that_has_gone_has_no_broker() -> None:
    supervisor, worker = socket.socketpair()
    with worker:
        await asyncio.to_thread(supervisor.sendall, ORDER.encode())
        link = await asyncio.to_thread(SupervisorLink, worker)
        asking = asyncio.create_task(link.start())
        assert await asyncio.to_thread(supervisor.recv, 100) == b"broker\n"
        supervisor.close()
        with pytest.raises(BrokerUnavailable, match="the supervisor of the workers has gone"):
            await asking
