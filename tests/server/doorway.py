"""What tests of the way into a namespace share."""

from typing import Any

import pytest

from bellwire import ConnectRefused, Request, Server
from bellwire.testing import TestClient, connect
from tests.server.house import raw


def assert_empty(server: Server) -> None:
    """Nobody is anywhere, and nothing is kept of anybody."""
    for namespace in server.namespaces.values():
        for hub in namespace._hubs.values():
            assert hub.empty


async def refusal(server: Server, namespace: str = "/", **options: Any) -> ConnectRefused:
    with pytest.raises(ConnectRefused) as caught:
        async with connect(server, namespace, **options):
            pass
    return caught.value


def unwelcomed(server: Server, namespace: str = "/") -> TestClient:
    """A client that has sent CONNECT and waits for the answer."""
    client = TestClient(server, namespace)
    client.carrier.session = server.engine.open(client.carrier, Request(path="/socket.io/"))
    raw(client, "40" if namespace == "/" else f"40{namespace},")
    return client


PLACES = pytest.mark.parametrize("where", ["auth", "middleware", "on_connect"])
