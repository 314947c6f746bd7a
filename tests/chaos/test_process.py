"""The proxy as a process: what commands do, and that trouble comes by itself with a seed."""

import socket
from collections.abc import Iterator

import pytest

from tests.chaos.process import proxy_process

TIMEOUT = 20


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT)
        yield server


def test_commands_are_done_to_all_connections_and_answered_with_counts(server: socket.socket) -> None:
    with proxy_process(server.getsockname()[1]) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT) as client, server.accept()[0] as accepted:
            accepted.settimeout(TIMEOUT)
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
            assert proxy.command("count") == {"accepted": 1, "open": 1, "faults": {}}
            assert proxy.command("stall")["faults"] == {"stall": 1}
            client.sendall(b"later")
            proxy.command("resume")
            assert accepted.recv(5) == b"later"
            proxy.command("half_open")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert proxy.command("count")["open"] == 1
            proxy.command("reset")
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)
        proxy.command("hold")
        with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT):
            while (counts := proxy.command("count"))["accepted"] == 1:
                pass
            assert counts["open"] == 1
            assert counts["faults"]["hold"] == 1
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_with_a_seed_trouble_comes_by_itself_until_it_is_calm(server: socket.socket) -> None:
    arguments = ("--seed", "1", "--every", "0.02", "--kinds", "reset")
    with proxy_process(server.getsockname()[1], *arguments) as proxy:
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT)
            with client, server.accept()[0], pytest.raises(ConnectionResetError):
                client.recv(1)
        assert proxy.command("calm")["faults"] == {"reset": 3}
