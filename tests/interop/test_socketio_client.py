"""Unmodified socket.io-client, the newest 4.x and the oldest 3.x, in Node: every scenario of js/scenarios.js."""

import signal

import pytest

from tests.interop.processes import Node, ServerProcess, running_server

pytestmark = pytest.mark.node

EVERYWHERE = [
    "connect",
    "rooms",
    "namespaces",
    "unknown namespace",
    "auth",
    "refusal",
    "identity expires",
    "identity is renewed",
    "identity has expired",
    "binary",
    "large payloads",
    "order",
    "server calls client",
    "broadcast call",
    "volatile",
    "every question is answered",
    "client disconnects",
    "server disconnects",
    "connection breaks",
    "200 connections",
]
VERSIONS = ["4.8", "3.0"]
TRANSPORTS = ["polling", "websocket", "upgrade"]

each_version = pytest.mark.parametrize("version", VERSIONS)
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@each_version
@each_transport
@pytest.mark.parametrize("scenario", EVERYWHERE)
def test_scenario(scenario: str, transport: str, version: str, node: Node, server: ServerProcess) -> None:
    node.run(scenario, server.url, version, transport)


@each_version
@pytest.mark.parametrize("attempt", range(5))
def test_messages_during_the_upgrade(version: str, attempt: int, node: Node, server: ServerProcess) -> None:
    """None is lost, none doubled, none out of order, in either direction."""
    node.run("messages during the upgrade", server.url, version, "upgrade")


@each_transport
def test_retries(transport: str, node: Node, server: ServerProcess) -> None:
    """Options ``retries`` and ``ackTimeout``, which clients have since 4.6."""
    node.run("retries", server.url, "4.8", transport)


@each_version
@each_transport
def test_burst(transport: str, version: str, node: Node, server: ServerProcess) -> None:
    """Five thousand events emitted in one go."""
    node.run("burst", server.url, version, transport)


@each_version
@each_transport
def test_reconnection_after_the_server_was_killed(transport: str, version: str, node: Node) -> None:
    with running_server() as own:
        node.begin("reconnection", own.url, version, transport)
        node.step("connected")
        own.end(signal.SIGKILL)
        node.step("disconnected")
        own.start()
        node.finish()


@each_version
@each_transport
def test_reconnection_after_an_orderly_restart(transport: str, version: str, node: Node) -> None:
    with running_server() as own:
        node.begin("orderly restart", own.url, version, transport)
        node.step("connected")
        assert "Traceback" not in own.end(signal.SIGTERM)
        node.step("disconnected")
        own.start()
        node.finish()
