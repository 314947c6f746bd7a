"""The heartbeat of all sessions on one timer (Engine.IO protocol v4, "Heartbeat").

Every ``ping_interval`` a session is sent a ping; if not a byte came from its client ``pong_timeout`` later, that is a
miss; ``max_missed_pongs`` misses in a row end the session. What the handshake advertises is another pair of numbers:
the client hangs up when it hears no ping for their sum, so that sum allows for a ping that is late.
"""

import asyncio

from bellwire.core.config import Config
from bellwire.transports.base_session import BaseSession

BEATS = 25
"""Sessions are spread over this many beats of an interval, so that their pings do not leave all at once."""


class Heartbeat:
    """Pings and checks every watched session: one timer for all, and per session a place in a dictionary."""

    __slots__ = (
        "_beat",
        "_buckets",
        "_check_after",
        "_handle",
        "_loop",
        "_max_missed",
        "_next",
        "_now",
        "_places",
    )

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._max_missed = config.max_missed_pongs
        self._beat = config.ping_interval / BEATS
        # Rounded down: a client may be cut off a beat early, never be kept longer than was promised.
        self._check_after = min(max(int(config.pong_timeout / self._beat), 1), BEATS - 1)
        self._buckets: list[set[BaseSession]] = [set() for _ in range(BEATS)]
        self._places: dict[BaseSession, int] = {}
        self._now = 0
        self._next = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, session: BaseSession) -> None:
        """``session`` gets its first ping an interval from now."""
        self._places[session] = self._now
        self._buckets[self._now].add(session)
        if self._handle is None:
            self._next = self._loop.time() + self._beat
            self._handle = self._loop.call_at(self._next, self._turn)

    def forget(self, session: BaseSession) -> None:
        """``session`` ended."""
        place = self._places.pop(session, None)
        if place is not None:
            self._buckets[place].discard(session)

    def close(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        if not self._places:
            self._handle = None
            return
        self._now = (self._now + 1) % BEATS
        # The beats that a pause of the whole process lost are left out: clients need their time to answer a ping.
        now = self._loop.time()
        self._next = (self._next if now < self._next + self._beat else now) + self._beat
        self._handle = self._loop.call_at(self._next, self._turn)
        for session in tuple(self._buckets[(self._now - self._check_after) % BEATS]):
            self._check(session)
        for session in self._buckets[self._now]:
            if session.alive:
                session.missed = 0  # it was late, and is there: the next miss would not follow on the last
            session.ping()

    def _check(self, session: BaseSession) -> None:
        # A session is first checked before its first ping, and "alive" from its birth.
        if session.alive or session.upgrading or session.paused:
            session.missed = 0
            return
        if session.asked:  # it may have been alive until somebody asked, a moment ago
            return
        session.missed += 1
        if session.missed >= self._max_missed:
            session.close("ping timeout")
