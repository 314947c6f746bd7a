"""Channels between nodes in memory: what is whole is handed over, what is not ends them on both sides."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bellwire.brokers.envelope import Question, seal, stream_of_node
from bellwire.brokers.memory import MemoryBroker
from bellwire.server.channels import MAX_CHANNELS, PART_BYTES, Channel, ChannelClosed, Channels, Part, Pump
from bellwire.server.peers import LEASE_SECONDS
from bellwire.testing.clock import advance
from tests.server.test_cluster import Party

LIMIT = 5 * PART_BYTES


class Lossy(MemoryBroker):
    """A broker that loses what is published when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.to_lose = 0

    async def publish(self, stream: str, body: bytes) -> None:
        if self.to_lose:
            self.to_lose -= 1
        else:
            await super().publish(stream, body)


class Ear:
    """Keeps what it is told."""

    def __init__(self, channel: Channel | None = None) -> None:
        self.channel = channel
        self.messages: list[bytes] = []
        self.overs = 0

    def arrived(self, message: bytes) -> None:
        self.messages.append(message)

    def over(self) -> None:
        self.overs += 1


class Speaker(Party):
    """A node with channels."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.accepted: list[Ear] = []
        self.channels = Channels(self.cluster, self.dispatcher, self.counters, self._accept, LIMIT)

    def _accept(self, channel: Channel) -> Ear:
        self.accepted.append(Ear(channel))
        return self.accepted[-1]


@asynccontextmanager
async def speakers(kind: type[Speaker] = Speaker) -> AsyncIterator[tuple[Lossy, Speaker, Speaker]]:
    broker = Lossy()
    await broker.start()
    one, other = kind(broker), kind(broker)
    for speaker in (one, other):
        await speaker.cluster.start()
    try:
        yield broker, one, other
    finally:
        for speaker in (one, other):
            await speaker.dispatcher.close()
            await speaker.cluster.close(1)
        await broker.close()


async def talk(one: Speaker, other: Speaker) -> tuple[Channel, Ear, Channel, Ear]:
    """A channel on which something was said: both sides and what they hear."""
    ear = Ear()
    channel = one.channels.open(other.id, ear)
    await channel.send(b"hello")
    far = other.accepted[-1]
    assert far.channel is not None
    return channel, ear, far.channel, far


async def test_messages_of_any_size_come_whole_and_in_order_each_way() -> None:
    async with speakers() as (_, one, other):
        channel, ear, far_channel, far = await talk(one, other)
        sizes = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 4 * PART_BYTES, LIMIT]
        messages = [bytes([n]) * size for n, size in enumerate(sizes)]
        for message in messages:
            await channel.send(message)
            await far_channel.send(message)
        assert far.messages == [b"hello", *messages]
        assert ear.messages == messages
        assert (ear.overs, far.overs) == (0, 0)


async def test_channels_do_not_mix() -> None:
    async with speakers() as (_, one, other):
        pairs = [await talk(one, other) for _ in range(3)] + [await talk(other, one) for _ in range(3)]
        for n, (channel, _, far_channel, _) in enumerate(pairs):
            await channel.send(b"to %d" % n)
            await far_channel.send(b"from %d" % n)
        for n, (_, ear, _, far) in enumerate(pairs):
            assert far.messages == [b"hello", b"to %d" % n]
            assert ear.messages == [b"from %d" % n]


async def test_the_end_is_told_once_to_the_other_side_only() -> None:
    async with speakers() as (_, one, other):
        channel, ear, far_channel, far = await talk(one, other)
        channel.close()
        channel.close()
        assert (ear.overs, far.overs) == (0, 1)
        assert (channel.open, far_channel.open) == (False, False)
        for side in (channel, far_channel):
            with pytest.raises(ChannelClosed):
                await side.send(b"more")
        assert far.messages == [b"hello"]


@pytest.mark.parametrize("lost", [b"a", b"a" * PART_BYTES * 2], ids=["whole", "part"])
async def test_a_part_that_is_lost_ends_both_sides_at_the_next_one(lost: bytes) -> None:
    async with speakers() as (broker, one, other):
        channel, ear, far_channel, far = await talk(one, other)
        broker.to_lose = 1
        await channel.send(lost)
        if channel.open:
            await channel.send(b"b")
        assert far.messages == [b"hello"]
        assert (ear.overs, far.overs) == (1, 1)
        assert (channel.open, far_channel.open) == (False, False)


async def test_a_message_beyond_the_limit_ends_both_sides() -> None:
    async with speakers() as (_, one, other):
        channel, ear, _, far = await talk(one, other)
        with pytest.raises(ChannelClosed):
            await channel.send(b"a" * (LIMIT + 3 * PART_BYTES))
        assert (ear.overs, far.overs) == (1, 1)
        assert far.messages == [b"hello"]


async def test_a_broker_that_takes_nothing_ends_the_side_that_speaks() -> None:
    async with speakers() as (broker, one, other):
        channel, ear, _, far = await talk(one, other)
        broker.faults.go_away()
        with pytest.raises(ChannelClosed):
            await channel.send(b"more")
        broker.faults.come_back()
        assert (ear.overs, far.overs) == (1, 0)


async def test_a_node_that_leaves_or_dies_ends_its_channels() -> None:
    async with speakers() as (_, one, other):
        _, ear, *_ = await talk(one, other)
        *_, far = await talk(other, one)
        await other.cluster.close(1)
        assert (ear.overs, far.overs) == (1, 1)
    async with speakers() as (_, one, other):
        _, ear, *_ = await talk(one, other)
        await other.die()
        await advance(3 * LEASE_SECONDS)
        assert ear.overs == 1


async def test_there_is_an_end_to_how_many_are_accepted() -> None:
    async with speakers() as (_, one, other):
        talks = [await talk(one, other) for _ in range(MAX_CHANNELS)]
        ear = Ear()
        refused = one.channels.open(other.id, ear)
        await refused.send(b"hello")
        assert ear.overs == 1
        assert len(other.accepted) == MAX_CHANNELS
        assert other.counters.get("dropped_total", kind="channel", reason="too_many", policy="refused") == 1
        talks[0][0].close()
        await talk(one, other)


async def test_what_is_no_part_is_counted_and_what_belongs_to_no_channel_is_ignored() -> None:
    async with speakers() as (broker, one, other):
        for body in (b"", b"\xc1", msgspec.msgpack.encode([1, "yes", 0])):
            await broker.publish(stream_of_node(other.id), seal(Question(one.id, 0, "channel", body)))
        assert other.counters.get("dropped_total", kind="channel_part", reason="malformed", policy="ignored") == 3
        for part in (Part(7, True, 1), Part(7, False, 0), Part(7, True, 0, over=True)):
            body = msgspec.msgpack.encode(part)
            await broker.publish(stream_of_node(other.id), seal(Question(one.id, 0, "channel", body)))
        assert other.accepted == []


async def test_a_pump_sends_what_there_is_in_order() -> None:
    async with speakers() as (_, one, other):
        channel, _, far_channel, far = await talk(one, other)
        waiting = [b"1", b"2" * PART_BYTES * 2, b"3"]
        pump = Pump(channel, one.dispatcher, lambda: waiting.pop(0) if waiting else None)
        pump.wake()
        await asyncio.sleep(0)
        assert [message[:1] for message in far.messages] == [b"h", b"1", b"2", b"3"]
        waiting.append(b"4")
        pump.wake()
        await asyncio.sleep(0)
        assert far.messages[-1] == b"4"
        far_channel.close()
        waiting.append(b"5")
        pump.wake()
        assert waiting == [b"5"]
