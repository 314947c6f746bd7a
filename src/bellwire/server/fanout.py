"""One event to many sockets: rendered once for each dialect, joined per audience and tick, one write per connection.

What is broadcast during a tick is kept as it came. When the tick ends, neighbouring events to the same audience are
joined once for each dialect that is in it, and each member is handed the common bytes.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.server.dialects import STOCK, Dialect, Item
from bellwire.server.latest import Fresh
from bellwire.transports.tick import Tick

if TYPE_CHECKING:
    from bellwire.server.socket import Socket

Audience: TypeAlias = "tuple[Collection[Socket], ...]"
"""Groups of sockets without a common member."""


_NOTHING: Final[Message] = Outgoing()


class _Runs(dict[Dialect, tuple[Message, Dialect]]):
    """The items of one cast, joined for each dialect that asks, and the dialect in which its sockets go on."""

    __slots__ = ("_items",)

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items

    def __missing__(self, dialect: Dialect) -> tuple[Message, Dialect]:
        made = self[dialect] = dialect.deliver(self._items)
        return made


class Fanout:
    """The broadcasts of this tick, in order."""

    __slots__ = ("_pending", "_tick")

    def __init__(self, tick: Tick) -> None:
        self._tick = tick
        self._pending: list[tuple[Audience, list[Item], str]] = []
        tick.settle = self.settle

    def cast(self, audience: Audience, item: Item, *, volatile: str = "") -> None:
        """Send ``item`` to everyone in ``audience`` as it is now. Whoever changes a group settles first.

        Events to the same tuple are joined: keep one for an audience that lasts. ``volatile`` is the stream of an event
        that is volatile: those who do not keep up get it later, or a newer one in its place.
        """
        pending = self._pending
        if pending:
            last_audience, items, stream = pending[-1]
            if last_audience is audience and stream == volatile:
                items.append(item)
                return
        pending.append((audience, [item], volatile))
        self._tick.wake()

    def settle(self) -> None:
        """Hand what is pending to the carriers, in order. They write at the end of the tick."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        for audience, items, volatile in pending:
            runs = _Runs(items)
            if volatile:
                news = [Fresh(volatile, item) for item in items]
                for sockets in audience:
                    _hand_volatile(sockets, runs, news)
            else:
                for sockets in audience:
                    _hand(sockets, runs)


def _hand_volatile(sockets: "Collection[Socket]", runs: _Runs, news: Sequence[Fresh]) -> None:
    for socket in sockets:
        sink = socket.sink
        if not sink.writable:
            socket.keep(news)
            continue
        if socket.latest is not None:
            socket.send_latest()
        run, socket.dialect = runs[socket.dialect]
        sink.send(run)


def _hand(sockets: "Collection[Socket]", runs: _Runs) -> None:
    """Hand each of ``sockets`` its run; as a rule they all speak alike, and go on as before."""
    spoken: Dialect | None = None
    following: Dialect = STOCK
    run = _NOTHING
    for socket in sockets:
        dialect = socket.dialect
        if dialect is not spoken:
            spoken = dialect
            run, following = runs[dialect]
        if following is not dialect:
            socket.dialect = following
        socket.sink.send(run)
