"""What leaves together for the same sockets: joined once for each dialect that is among them, and shared by all."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from bellwire.protocol.outgoing import Message
from bellwire.server.dialects import Dialect, Item
from bellwire.server.latest import Fresh
from bellwire.transports.volley import fire

if TYPE_CHECKING:
    from bellwire.server.socket import Socket
    from bellwire.transports.base import Sink


class Runs(dict[Dialect, tuple[Message, Dialect]]):
    """Events, joined for each dialect that asks, and the dialect in which its sockets go on.

    ``stream`` is that of volatile ones: who does not keep up gets them later, or newer ones in their place. It is empty
    for others.
    """

    __slots__ = ("_events", "_news", "_stream")

    def __init__(self, events: Sequence[Item], stream: str = "") -> None:
        self._events = events
        self._stream = stream
        self._news: list[Fresh] | None = None

    def __missing__(self, dialect: Dialect) -> tuple[Message, Dialect]:
        made = self[dialect] = dialect.deliver(self._events)
        return made

    def hand(self, sockets: "Collection[Socket]", *, last: bool = False) -> None:
        """Hand each of ``sockets`` its run; ``last`` where nothing else is likely to be sent to them in this tick.

        It is written now then, where the kernel takes it.
        """
        if self._stream:
            self._hand_volatile(sockets)
            return
        for run, sinks in self._addressed(sockets):
            if last:
                fire(run, sinks)
            else:
                for sink in sinks:
                    sink.send(run)

    def _addressed(self, sockets: "Collection[Socket]") -> "Iterator[tuple[Message, list[Sink]]]":
        """Yield each run and whom it goes to, who go on in the next dialect. As a rule they all speak alike."""
        groups: defaultdict[Dialect, list[Socket]] = defaultdict(list)
        for socket in sockets:
            groups[socket.dialect].append(socket)
        for dialect, group in groups.items():
            run, following = self[dialect]
            if following is not dialect:
                for socket in group:
                    socket.dialect = following
            yield run, [socket.sink for socket in group]

    def _hand_volatile(self, sockets: "Collection[Socket]") -> None:
        news = self._news
        if news is None:
            news = self._news = [Fresh(self._stream, event) for event in self._events]
        for socket in sockets:
            sink = socket.sink
            if not sink.writable:
                socket.keep(news)
                continue
            if socket.latest is not None:
                socket.send_latest()
            run, socket.dialect = self[socket.dialect]
            sink.send(run)
