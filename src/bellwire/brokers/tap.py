"""One stream read from the outside, without a hole, for as long as somebody looks: what nobody is a member for.

What a broker tells live may be lost, so a `~bellwire.delivery.ring.Ring` judges it, asks the log where something is
missing, and looks at its top now and then.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from bellwire.brokers.base import Broker
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page, Reason
from bellwire.delivery.entry import Entry
from bellwire.delivery.position import Position
from bellwire.delivery.ring import Ring, Verdict

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at the top of a stream where nothing comes."""

PAUSE: Final = 0.5
"""Seconds until a broker that is away is asked again."""

Item: TypeAlias = Entry | bytes | Reason
"""An entry; what was published beside the log; or why entries may be missing, or come again, before the next one."""


class Tap:
    """Tells ``hear`` what goes through ``stream``, and ``away`` again and again that the broker is waited for.

    Both are called in the loop, and may raise to end `run`.
    """

    def __init__(
        self,
        broker: Broker,
        stream: str,
        hear: Callable[[Item], None],
        away: Callable[[BrokerUnavailable], None] = lambda error: None,
    ) -> None:
        self._broker = broker
        self._stream = stream
        self._hear = hear
        self._away = away
        self._ring = Ring()
        self._waiting: deque[Item] = deque()
        self.following = asyncio.Event()
        """Set when nothing that comes from now on is left out."""
        self._woken = asyncio.Event()

    async def run(self, history: int | None = 0) -> None:
        """Tell the last ``history`` entries, all there are if it is None, and then what comes, for ever.

        Raises:
            BrokerUnavailable: at the start; later it waits for the broker.

        """
        await self._broker.subscribe(self._stream, self)
        try:
            top = await self._broker.top(self._stream)
            if history != 0:
                top = await self._tell_history(top, history)
            self._waiting.extend(entry for _, entry in self._ring.open(top))
            self.following.set()
            while True:
                await self._repair()
                self._tell()
                await self._next()
        finally:
            with contextlib.suppress(BrokerUnavailable):
                await self._broker.unsubscribe(self._stream, self)

    async def _tell_history(self, top: Position, history: int | None) -> Position:
        """Tell what is there, and return the position behind it."""
        entries: deque[Entry] = deque(maxlen=history)
        at, more = top._replace(seq=0, tag=0), True
        while more:
            answer = await self._broker.read(self._stream, at, confirmed=True)
            if isinstance(answer, Page):
                entries.extend(entry for entry in answer.entries if not entry.is_marker)
                more = answer.more
                at = Position(answer.top.gen, *answer.entries[-1].point) if answer.entries else at
            else:
                at = answer.restart
        self._waiting.extend(entries)
        return at

    async def _repair(self) -> None:
        """Ask the log until nothing is missing."""
        while (question := self._ring.question) is not None:
            try:
                answer = await self._broker.read(self._stream, question, confirmed=True)
            except BrokerUnavailable as error:
                self._away(error)
                await asyncio.sleep(PAUSE)
                continue
            repair = self._ring.repair(answer)
            if repair.broken is not None:
                self._waiting.append(repair.broken.reason)
            self._waiting.extend(entry for _, entry in repair.entries)

    def _tell(self) -> None:
        while self._waiting:
            item = self._waiting.popleft()
            if not (isinstance(item, Entry) and item.is_marker):
                self._hear(item)

    async def _next(self) -> None:
        """Wait for something to be told, or to be asked for."""
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await self._woken.wait()
        except TimeoutError:
            try:
                self._ring.compare(await self._broker.top(self._stream))
            except BrokerUnavailable as error:
                self._away(error)
        self._woken.clear()

    # --- from the broker

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        """An entry was appended."""
        if self._ring.accept(gen, entry) is Verdict.ACCEPTED:
            self._waiting.append(entry)
        self._woken.set()

    def volatile(self, stream: str, body: bytes) -> None:
        """Something was published beside the log."""
        self._waiting.append(body)
        self._woken.set()
