"""What clients make the server send: the emits of their events' handlers, against rates of their own.

A message that one client sends may cost as many messages as a room has members. Two limits look at that, both off
unless they are set: each room takes so many emits in a time, and a client's connection pays for the recipients out of
the tokens of ``Config.message_rate``, on top of the one for the event. It may owe some then, and is refused until these
have filled up.

Both count what handlers emit while they handle a client's event, in tasks that they started too; not what the
application emits by itself. Rooms and recipients are counted on this node.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import RateLimited
from bellwire.core.rate import parse_rate
from bellwire.delivery.naming import EVERYONE, Key, User
from bellwire.guard.rates import Buckets, told
from bellwire.protocol.socket_id import read_socket_id

if TYPE_CHECKING:
    from bellwire.server.hub import Hub
    from bellwire.server.meter import Meter

_meter: Final[ContextVar["Meter | None"]] = ContextVar("bellwire_meter", default=None)


class Outflow:
    """Admits the emits of one node."""

    __slots__ = ("_clock", "_counters", "_rooms", "_share")

    def __init__(self, config: Config, counters: Counters, clock: Callable[[], float]) -> None:
        rate = parse_rate(config.room_rate)
        self._clock = clock
        self._counters = counters
        self._rooms: Buckets[str] | None = None if rate is None else Buckets(rate)
        self._share = config.recipients_per_token

    @property
    def limits(self) -> bool:
        """Whether it has anything to do."""
        return self._rooms is not None or self._share > 0

    @contextmanager
    def charging(self, meter: "Meter") -> Iterator[None]:
        """Handle an event of the client whose connection has this ``meter``."""
        token = _meter.set(meter)
        try:
            yield
        finally:
            _meter.reset(token)

    def admit(self, keys: tuple[Key, ...], streams: tuple[str, ...], hub: "Hub | None", *, volatile: bool) -> bool:
        """Let an emit to ``keys``, whose streams are named, pass; False if it is volatile and to be dropped.

        ``hub`` is where they are on this node, if anybody is.

        Raises:
            RateLimited: it is not volatile, and there have been too many to one of the rooms.

        """
        meter = _meter.get()
        if meter is None:
            return True
        wait = self._take([stream for key, stream in zip(keys, streams, strict=True) if _is_room(key)])
        if wait:
            self._counters.add("rate_limited_total", limit="room_rate")
            if volatile:
                self._counters.dropped("volatile", reason="rate_limited", policy="room_rate")
                return False
            raise RateLimited("too much is sent to this room: send it again later", told(wait))
        if self._share and hub is not None:
            meter.charge(sum(map(hub.count, keys)) / self._share)
        return True

    def _take(self, rooms: list[str]) -> float:
        """Take a token of each room, or of none; return the seconds until all have one."""
        if self._rooms is None:
            return 0.0
        now = self._clock()
        buckets = [self._rooms.of(room, now) for room in rooms]
        wait = max((bucket.wait(now) for bucket in buckets), default=0.0)
        if not wait:
            for bucket in buckets:
                bucket.charge(now, 1)
        return wait


def _is_room(key: Key) -> bool:
    """Whether it can hold many: not one user's sockets, and not one socket."""
    return not isinstance(key, User) and (key == EVERYONE or read_socket_id(str(key)) is None)
