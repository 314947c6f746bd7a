"""What a broker brings to each of three nodes: one copy of a message where it has receivers, and none elsewhere."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from bellwire import Client
from tests.chaos.application import COUNTERS, JOIN, SAID, SAY
from tests.chaos.brokers import BrokerProcess
from tests.chaos.cluster import Node, nodes_on
from tests.chaos.program import PATIENCE
from tests.interop.test_python_socketio import new_client

pytestmark = pytest.mark.bellwire(clock="real")

COUNT = 100
TEXT = "x" * 2_000


async def brought(client: Client) -> int:
    """How many entries the broker has brought to a client's node."""
    counted = await client.call(COUNTERS, timeout=PATIENCE)
    return counted.get('broker_messages_total{kind="entry"}', 0)


def bytes_from_broker(node: Node) -> int:
    return sum(connection.down.passed for connection in node.link.connections.values())


@pytest.mark.parametrize("recovering", [True, False], ids=["own", "stock"])
async def test_a_message_is_brought_once_to_a_node_with_members_and_not_to_others(
    broker: BrokerProcess, recovering: bool
) -> None:
    """The members are on B, two of them; it is emitted on A; C has other clients."""
    heard: list[str] = []
    all_heard = asyncio.Event()

    def hear(text: str) -> None:
        heard.append(text)
        if len(heard) == 2 * COUNT:
            all_heard.set()

    async with nodes_on(broker, count=3) as (_, nodes), AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(Client(node.server.url)) for node in nodes]
        for _ in range(2):
            if recovering:
                member = await stack.enter_async_context(Client(nodes[1].server.url))
                member.on(SAID)(hear)
                await member.call(JOIN, "room", timeout=PATIENCE)
            else:
                stock = await stack.enter_async_context(new_client(reconnection=False))
                stock.on(SAID.name, hear)
                await stock.connect(nodes[1].server.url, transports=["websocket"])
                await stock.call(JOIN.name, "room", timeout=PATIENCE)
        before = [await brought(client) for client in (a, b, c)]
        bytes_before = [bytes_from_broker(node) for node in nodes]
        for _ in range(COUNT):
            await a.call(SAY, ["room"], TEXT, timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await all_heard.wait()
        after = [await brought(client) for client in (a, b, c)]
        assert [new - old for old, new in zip(before, after, strict=True)] == [0, COUNT, 0]
        passed = [bytes_from_broker(node) - old for node, old in zip(nodes, bytes_before, strict=True)]
        assert COUNT * len(TEXT) <= passed[1] < 1.5 * COUNT * len(TEXT)
        assert passed[2] < 0.1 * COUNT * len(TEXT)
