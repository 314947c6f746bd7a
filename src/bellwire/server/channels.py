"""Conversations between two nodes: messages of any size, each way in order and without a gap, or the end of it.

What nodes say to each other may get lost, and brokers take no message of any size. So a message travels in parts, each
part is numbered, and a number that is missing ends the channel on both sides. Nothing is ever sent again: what was
under way when a channel ended has been received or has not, and who asked has to find out by other means.

A channel, as each side has it::

    state   what happens                                              next     and
    open    the next part comes                                       open     a message that is whole is handed over
    open    another part comes, or one more than a message may have   closed   the other side is told
    open    the other side says that it is over, or its node is gone  closed
    open    the broker does not take a part                           closed
    closed  anything                                                  closed   it is ignored
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError, BrokerUnavailable, MessageTooLarge, OutcomeUnknown
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher, Outcome

PART_BYTES: Final = 128 * 1024
"""Bytes of a message in one part: brokers take 1 MB and more, unless told otherwise."""

MAX_CHANNELS: Final = 16_384
"""How many channels of other nodes are open here; more are refused."""

_KIND: Final = "channel"

logger = logging.getLogger("bellwire.server")


class ChannelClosed(Exception):  # noqa: N818 - what happened, not what went wrong
    """A channel is over."""


class Receiver(Protocol):
    """What takes the messages of a channel; it neither waits nor raises."""

    def arrived(self, message: bytes) -> None:
        """The other side sent this."""

    def over(self) -> None:
        """The channel is over, and not by our own `Channel.close`. Told once."""


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a message: the ``place``-th, from 0 on, of what one side of a channel has said."""

    number: int
    """The channel's, among those that the same node has opened."""
    opener: bool
    """Whether the side speaks that has opened it."""
    place: int
    data: bytes = b""
    more: bool = False
    """Whether the message goes on in the next part."""
    over: bool = False
    """Whether the channel is."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Part).decode


class Channel:
    """One side of a conversation with ``node``."""

    __slots__ = ("_channels", "_expected", "_number", "_opener", "_parts", "_sent", "node", "open", "receiver")

    def __init__(self, channels: "Channels", node: str, number: int, *, opener: bool) -> None:
        self.node = node
        self.open = True
        self._channels = channels
        self._number = number
        self._opener = opener
        self.receiver: Receiver
        """What takes the messages."""
        self._sent = 0
        self._expected = 0
        self._parts: list[bytes] = []

    async def send(self, message: bytes) -> None:
        """Say ``message``, and return when the broker has it. Whoever sends waits before he sends the next one.

        Raises:
            ChannelClosed: the channel is over; how much of the message came through is not known.

        """
        for start in range(0, max(len(message), 1), PART_BYTES):
            end = start + PART_BYTES
            await self._say(message[start:end], more=end < len(message))

    async def _say(self, data: bytes, *, more: bool = False) -> None:
        if not self.open:
            raise ChannelClosed
        part = Part(self._number, self._opener, self._sent, data, more)
        self._sent += 1
        try:
            await self._channels.say(part, self.node)
        except (BrokerUnavailable, OutcomeUnknown, MessageTooLarge) as error:
            self.lose()
            raise ChannelClosed from error

    def close(self) -> None:
        """End the conversation, and tell the other side; nothing happens if it has ended."""
        if self.open:
            self.forget()
            self._channels.say_over(Part(self._number, self._opener, self._sent, over=True), self.node)

    def forget(self) -> None:
        """End it without a word: both sides know that all is said."""
        self.open = False
        self._parts.clear()
        self._channels.forget(self.node, self._number, self._opener)

    def lose(self) -> None:
        """End it because the other side cannot be reached, or says that it is over."""
        if self.open:
            self.forget()
            self.receiver.over()

    def take(self, part: Part, limit: int) -> None:
        """A part came from the other side; a message may have ``limit`` bytes."""
        self._expected += 1
        self._parts.append(part.data)
        if part.over:
            self.lose()
        elif part.place != self._expected - 1 or sum(map(len, self._parts)) > limit:
            self.close()
            self.receiver.over()
        elif not part.more:
            message = b"".join(self._parts)
            self._parts.clear()
            self.receiver.arrived(message)


class Pump:
    """Sends on a channel what ``take`` returns, one after the other until it returns None, for who cannot wait."""

    __slots__ = ("_channel", "_dispatcher", "_running", "_take")

    def __init__(self, channel: Channel, dispatcher: Dispatcher, take: Callable[[], bytes | None]) -> None:
        self._channel = channel
        self._dispatcher = dispatcher
        self._take = take
        self._running = False

    def wake(self) -> None:
        """Look whether there is something to send; it may be called inside of ``take``."""
        if not self._running and self._channel.open:
            self._running = True
            self._dispatcher.run(self._run(), self._ended)

    async def _run(self) -> None:
        while self._channel.open and (message := self._take()) is not None:
            await self._channel.send(message)

    def _ended(self, outcome: Outcome) -> None:
        self._running = False
        _told(outcome)


class Channels:
    """All channels of this node.

    ``accept`` is given a channel that another node has opened, and returns what takes its messages. ``limit`` is the
    largest message in bytes.
    """

    def __init__(
        self,
        cluster: Cluster,
        dispatcher: Dispatcher,
        counters: Counters,
        accept: Callable[[Channel], Receiver],
        limit: int,
    ) -> None:
        self._cluster = cluster
        self._dispatcher = dispatcher
        self._counters = counters
        self._accept = accept
        self._limit = limit
        self._channels: dict[tuple[str, int, bool], Channel] = {}
        self._accepted = 0
        self._number = 0
        cluster.hear(_KIND, self._heard)
        cluster.watch(self)

    def open(self, node: str, receiver: Receiver) -> Channel:
        """Begin a conversation with ``node``; it notices at the first message."""
        self._number += 1
        channel = Channel(self, node, self._number, opener=True)
        channel.receiver = receiver
        self._channels[node, self._number, True] = channel
        return channel

    # --- from other nodes

    def _heard(self, node: str, body: bytes) -> None:
        try:
            part = _decode(body)
        except UNREADABLE:
            self._counters.dropped("channel_part", reason="malformed", policy="ignored")
            return
        channel = self._channels.get((node, part.number, not part.opener))
        if channel is None and part.opener and part.place == 0 and not part.over:
            channel = self._accepted_from(node, part.number)
        if channel is not None:
            channel.take(part, self._limit)

    def _accepted_from(self, node: str, number: int) -> Channel | None:
        if self._accepted >= MAX_CHANNELS:
            self._counters.dropped("channel", reason="too_many", policy="refused")
            self.say_over(Part(number, opener=False, place=0, over=True), node)
            return None
        self._accepted += 1
        channel = self._channels[node, number, False] = Channel(self, node, number, opener=False)
        channel.receiver = self._accept(channel)
        return channel

    def node_joined(self, node: str) -> None:
        """Nothing is open with ``node`` yet (`bellwire.server.cluster.Watcher`)."""
        self.node_left(node)

    def node_left(self, node: str) -> None:
        """``node`` is gone, and so is the other side of its channels."""
        for channel in [channel for channel in self._channels.values() if channel.node == node]:
            channel.lose()

    # --- for the channels

    async def say(self, part: Part, node: str) -> None:
        """Send a part. Raises as `Cluster.tell` does."""
        await self._cluster.tell(_KIND, _encode(part), node)

    def say_over(self, part: Part, node: str) -> None:
        """Send what nobody waits for."""
        self._dispatcher.run(self.say(part, node), _told)

    def forget(self, node: str, number: int, ours: bool) -> None:
        """A channel is over."""
        if self._channels.pop((node, number, ours), None) is not None and not ours:
            self._accepted -= 1


def _told(outcome: Outcome) -> None:
    """Who waits on the other side finds out by what he misses."""
    if not isinstance(outcome.error, BellwireError | ChannelClosed | asyncio.CancelledError | None):
        logger.error("a message to another node was not sent", exc_info=outcome.error)
