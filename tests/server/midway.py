"""What tests need that want to be in the middle of something: a broker far away, and a look at what is left behind."""

from bellwire.testing.clock import advance
from tests.guarantee.client import NAMESPACE, Client
from tests.guarantee.world import Node, World, stream

A = stream("a")

WAY = 0.01
"""Seconds that each way to the broker takes where a test wants to be in the middle of something."""


def slow(node: Node) -> None:
    """Let each way to the broker take its time from now on."""
    node.broker.latency = lambda: WAY


async def steps(count: int) -> None:
    """Let so many ways to the broker be gone, and half of another."""
    await advance((count + 0.5) * WAY)


async def nothing_is_left(node: Node) -> None:
    """All are gone: nothing is kept of a room, nor of a namespace."""
    await advance(10)
    assert not node.namespace.hub(NAMESPACE).streams
    assert not node.namespace.runtime.streams.rooms


def newcomer(world: World) -> Client:
    """A client that was never connected."""
    client = Client(world, "newcomer", user="u")
    world.clients.append(client)
    return client
