"""The way out: what is emitted goes to the broker, whoever emits it, a server or a program beside it.

An event goes to one stream after the other, in the order in which its rooms were named, and each copy carries the
places of those before it. A stream that nobody can have a position in is not appended to: the event is published. What
is for a socket that does not recover is published to its node.
"""

import asyncio
import random
import secrets
from binascii import b2a_base64
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from typing import Any, Final

from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import Direct, seal, stream_of_node
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.effects import APPEND_SECONDS
from bellwire.delivery.entry import Copy, Draft
from bellwire.delivery.handling import Append
from bellwire.delivery.log import Appended
from bellwire.delivery.naming import direct_of
from bellwire.delivery.published import Published, encode_published

FIRST_PAUSE: Final = 0.05
"""Seconds between an attempt that had no answer and the next; each pause is twice the one before, up to"""
LAST_PAUSE: Final = 1.0

_bits: Final = random.getrandbits
_MASK: Final = 2**64 - 1
_MID: Final = 11  # characters of base64 that say 64 bits


class Publisher:
    """Brings messages to a broker. Each has an id of its own: no two publishers, in any process, give the same one.

    It goes out with each message, so it is short: a number of 64 bits, counted up from one that is drawn at the start.
    """

    __slots__ = ("_mids", "broker", "newest")

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._mids = count(secrets.randbits(64))
        self.newest: tuple[bytes, Published] | None = None
        """What was published last, in both forms: a broker in this process gives it back at once."""

    def emit(
        self,
        streams: Sequence[str],
        body: bytes,
        excluded: tuple[str, ...] = (),
        volatile: bool = False,
        mid: str | None = None,
        may_again: "Callable[[], Awaitable[bool]] | None" = None,
    ) -> Coroutine[Any, Any, object]:
        """Bring ``body`` to the members of ``streams``; to be awaited, and when that returns, the broker has it.

        What the caller named with a ``mid`` is appended in any case: only a log knows that it was there before. To one
        stream the first attempt is made at once; ``may_again`` is asked before each other one, which there is
        only if it says so.

        Raises:
            BrokerUnavailable: nothing was sent.
            OutcomeUnknown: it may have been; ``done`` has the streams that have it for certain.
            MessageTooLarge: it is larger than the broker takes.

        """
        if len(streams) != 1 or volatile or mid is not None:
            return self._emit_copies(streams, body, excluded, volatile=volatile, mid=mid)
        if self._has_log(streams[0]):  # most are of this kind, or of the next
            return self._append(streams[0], self._new_mid(), body, excluded, (), may_again)
        return self._publish(streams[0], Published(body, False, excluded))

    async def _emit_copies(
        self, streams: Sequence[str], body: bytes, excluded: tuple[str, ...], *, volatile: bool, mid: str | None
    ) -> None:
        logged = mid is not None
        mid = mid or self._new_mid()
        copies: tuple[Copy, ...] = ()
        for place, stream in enumerate(streams):
            earlier = tuple(streams[:place])
            try:
                if volatile:
                    await self._publish(stream, Published(body, True, excluded, earlier))
                else:
                    copies += (await self._send(stream, mid, body, excluded, copies, earlier, logged=logged),)
            except OutcomeUnknown:
                raise OutcomeUnknown(mid, earlier) from None
            except BrokerUnavailable:
                if not place:
                    raise
                raise OutcomeUnknown(mid, earlier) from None

    async def confirm(self, streams: Sequence[str]) -> None:
        """Return when the broker has what was published to ``streams`` before, which it does not answer itself.

        That is for whoever may end right after this: a broker takes what is asked of it about one stream in order.

        Raises:
            OutcomeUnknown: it did not answer.

        """
        try:
            for stream in streams:
                direct = direct_of(stream)
                await self.broker.top(stream if direct is None else stream_of_node(direct.node))
        except BrokerUnavailable as error:
            raise OutcomeUnknown("", message=f"whether the broker has it cannot be known: {error}") from error

    def _new_mid(self) -> str:
        number = next(self._mids) & _MASK
        return b2a_base64(number.to_bytes(8), newline=False)[:_MID].decode()

    async def _send(
        self,
        stream: str,
        mid: str,
        body: bytes,
        excluded: tuple[str, ...],
        copies: tuple[Copy, ...],
        earlier: tuple[str, ...],
        *,
        logged: bool = False,
    ) -> Copy:
        """Append one copy and return where it stands; publish it if nobody has a position there, unless ``logged``.

        A copy that was published stands at number 0, before all that recover: only members that cannot had it.

        Raises:
            BrokerUnavailable: nothing was done.
            OutcomeUnknown: it was tried for as long as the broker can tell a double, and there was no answer.

        """
        published = Published(body, False, excluded, earlier)
        if not logged and not self._has_log(stream):
            return await self._publish_copy(stream, published)
        appended = await self._append(stream, mid, body, excluded, copies)
        return await self._settle(stream, appended, published)

    async def attempt(self, step: Append) -> Copy:
        """Do the same for a relay's emission, once (`bellwire.server.producers.Appender`)."""
        published = Published(step.body, False, step.excluded, step.earlier)
        if direct_of(step.stream) is None and not self.broker.has_log(step.stream):
            return await self._publish_copy(step.stream, published)
        draft = Draft(step.mid, _bits(32), step.body, step.excluded, step.copies)
        appended = await self.broker.append(step.stream, draft, deadline=step.deadline)
        return await self._settle(step.stream, appended, published)

    def _has_log(self, stream: str) -> bool:
        return direct_of(stream) is None and self.broker.has_log(stream)

    async def _publish_copy(self, stream: str, published: Published) -> Copy:
        await self._publish(stream, published)
        return Copy(stream, "", 0)

    async def _settle(self, stream: str, appended: Appended, published: Published) -> Copy:
        """Nobody listens to a socket's own log if it does not recover: that only tells what was there before."""
        if direct_of(stream) is None:
            return Copy(stream, appended.gen, appended.point.seq)
        if not appended.duplicate:
            await self._publish(stream, published)
        return Copy(stream, "", 0)

    async def _append(
        self,
        stream: str,
        mid: str,
        body: bytes,
        excluded: tuple[str, ...],
        copies: tuple[Copy, ...],
        may_again: "Callable[[], Awaitable[bool]] | None" = None,
    ) -> Appended:
        deadline = self.broker.clock() + APPEND_SECONDS
        unknown, pause = False, FIRST_PAUSE
        while True:
            try:
                draft = Draft(mid, _bits(32), body, excluded, copies)
                return await self.broker.append(stream, draft, deadline=deadline)
            except OutcomeUnknown:
                unknown = True
            except BrokerUnavailable:
                if not unknown:
                    raise
            given_up = may_again is not None and not await may_again()
            if given_up or self.broker.clock() + pause > deadline:
                raise OutcomeUnknown(mid)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _publish(self, stream: str, published: Published) -> Coroutine[Any, Any, None]:
        encoded = encode_published(published)
        direct = direct_of(stream)
        if direct is not None:
            return self.broker.publish(stream_of_node(direct.node), seal(Direct(stream, encoded)))
        self.newest = encoded, published
        return self.broker.publish(stream, encoded)
