"""What a client receives in streams: handed over once and in order, or a reset before anything newer.

`bellwire.delivery.receiver` decides what is handed over when; this passes on to it what the server says, and to the
application what it decides. It outlives connections; where the journal outlives the program, so does it: a session is
resumed behind what the program before this one has handled.
"""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from bellwire.client.codec import Codec
from bellwire.client.journal import Journal
from bellwire.client.link import Arrived, Placed, Received, Welcome, Writer
from bellwire.client.parcel import Parcel
from bellwire.client.reports import Reset
from bellwire.client.turns import Outcome
from bellwire.core.errors import EventRefused, PacketError
from bellwire.delivery import receiver as machine
from bellwire.delivery.outbox import Left, Reached, Resumable
from bellwire.delivery.position import Point, Position
from bellwire.delivery.receiver import AskFor, DeadLetter, Deliver, Pass, Receiver
from bellwire.protocol import wire
from bellwire.protocol.wire import MAX_CURSORS, Advance, Close, Cursor, Open, Proved

logger = logging.getLogger("bellwire.client")

LOST: Final = "session_lost"
"""The reason of a reset if the server keeps no sessions, or not this one."""

_UNKNOWN: Final = ""  # no stream is called so: what comes of it is ignored

Handed: TypeAlias = Callable[[Outcome], None]
News: TypeAlias = Placed | Open | Close | Advance | Proved | wire.Reset


class Audience(ABC):
    """The application, as its streams know it."""

    @abstractmethod
    def event(self, parcel: Parcel, handed: Handed) -> None:
        """An event of a stream; call ``handed`` when it was handled, or with the error."""

    @abstractmethod
    def beside(self, event: Received, connection: int) -> None:
        """An event in no stream, which came on this connection."""

    @abstractmethod
    def reset(self, reset: Reset, handed: Handed) -> None:
        """Something may be missing; call ``handed`` when the application knows."""

    @abstractmethod
    def dead_letter(self, parcel: Parcel, error: BaseException) -> None:
        """An event could not be handled, however often that was tried."""


class Downstream:
    """The streams of one client. ``session`` is the secret to resume them with, None if there is none."""

    __slots__ = (
        "_aliases",
        "_audience",
        "_codec",
        "_errors",
        "_journal",
        "_kept",
        "_receiver",
        "_running",
        "_todo",
        "_told",
        "_touched",
        "_writer",
        "session",
    )

    def __init__(self, journal: Journal, codec: Codec, audience: Audience) -> None:
        self.session = journal.state.session
        self._journal = journal
        self._audience = audience
        self._receiver = Receiver()
        self._aliases: dict[int, str] = {}  # what this connection's messages call the streams
        self._codec = codec
        self._writer: Writer | None = None
        self._todo: deque[machine.Action] = deque()
        self._running = False
        self._errors: dict[str, BaseException] = {}  # of the handler, by stream
        self._told: dict[str, Position] = {}  # where the server was told, on this connection, that the client stands
        self._touched: set[str] = set()
        self._kept = dict(journal.state.cursors)
        for stream, at in self._kept.items():
            self._receiver.open(stream, at)

    @property
    def waiting(self) -> int:
        """How many events wait to be handed over."""
        return self._receiver.waiting

    @property
    def ignored(self) -> int:
        """How many messages were not to be handed over: their stream was not open, or they came too late."""
        return self._receiver.ignored

    def cursors(self) -> tuple[Cursor, ...]:
        """Return where the client stands, to resume there; it has no more streams than can be resumed."""
        places = self._receiver.received()
        for stream in list(places)[MAX_CURSORS:]:
            del places[stream]
            self._do(stream, self._receiver.close(stream, LOST))
        self._told = places
        return tuple([Cursor(stream, *at) for stream, at in places.items()])

    def joined(self, writer: Writer, codec: Codec, welcome: Welcome) -> None:
        """There is a connection; what is not resumed on it, the server closes."""
        self._writer, self._codec = writer, codec
        if welcome.session is None:
            for stream in self._receiver.received():
                self._do(stream, self._receiver.close(stream, LOST))
            self.forget()
        elif welcome.session != self.session:
            self._journal.later(Resumable(welcome.session))
        self.session = welcome.session
        self._touched.update(self._receiver.told(self._told))
        self._keep()

    def lost(self) -> None:
        """The connection is gone; what arrived is still handed over."""
        self._writer = None
        self._aliases.clear()
        self._receiver.disconnected()

    def forget(self) -> None:
        """The session is over."""
        if self.session is not None:
            self._journal.later(Resumable(""))
            self._kept.clear()
        self.session = None
        self._receiver.told(self._receiver.received())

    def take(self, news: News) -> None:
        """Take what the server says of a stream."""
        receiver = self._receiver
        if isinstance(news, Placed):
            stream = self._aliases.get(news.alias, _UNKNOWN)
            self._do(stream, receiver.receive(stream, *news[1:]))
            return
        stream = news.stream
        if isinstance(news, Open | Proved | wire.Reset):
            self._aliases[news.alias] = stream
        match news:
            case Open():
                actions = receiver.open(stream, Position(news.gen, news.seq, news.tag))
            case Close():
                self._aliases = {alias: name for alias, name in self._aliases.items() if name != stream}
                actions = receiver.close(stream, news.reason)
            case Advance():
                to = Position(news.gen, news.seq, news.tag)
                actions = receiver.advance(stream, Point(news.prev_seq, news.prev_tag), to)
            case Proved():
                actions = receiver.proved(stream, Position(news.gen, news.seq, news.tag))
            case wire.Reset():
                actions = receiver.reset(stream, news.reason, Position(news.gen, news.seq, news.tag))
        self._do(stream, actions)

    def received(self, news: Received, connection: int) -> None:
        """Take an event in no stream, in its turn if it has one; the answer belongs to this connection."""
        after = news.after
        if after is None:
            self._audience.beside(news, connection)
        else:
            body = news, connection
            self._do(after.stream, self._receiver.after(after.stream, Point(after.seq, after.tag), body))

    def _do(self, stream: str, actions: machine.Actions) -> None:
        """Do ``actions``, and what follows from them; a handler that is done at once must not make this recursive."""
        self._todo.extend(actions)
        self._touched.add(stream)
        if self._running:
            return
        self._running = True
        try:
            while self._todo:
                self._act(self._todo.popleft())
        finally:
            self._running = False
        self._keep()

    def _act(self, action: machine.Action) -> None:
        match action:
            case Deliver(stream, _, entry):
                self._audience.event(_parcel(entry), lambda outcome: self._handed(stream, outcome))
            case machine.Reset(stream, reason, _):
                self._audience.reset(Reset(stream, reason), lambda _: self._handed(stream, Outcome()))
            case AskFor(stream, after):
                if self._writer is not None:
                    self._writer.send(self._codec.ask(stream, after))
            case Pass(_, body):
                self._beside(*body)
            case DeadLetter(stream, entry):
                self._audience.dead_letter(_parcel(entry), self._errors.pop(stream))

    def _beside(self, event: Received, connection: int) -> None:
        try:
            self._audience.beside(event, connection)
        except PacketError as error:  # the connection that brought it may be another one by now
            logger.error("an event that cannot be read: %s", error)

    def _handed(self, stream: str, outcome: Outcome) -> None:
        error = outcome.error
        if error is None or isinstance(error, EventRefused):
            self._errors.pop(stream, None)
            self._do(stream, self._receiver.handed(stream))
        else:
            self._errors[stream] = error
            self._do(stream, self._receiver.failed(stream))

    def _keep(self) -> None:
        """Note what has been handled, for the program that comes after this one."""
        touched, self._touched = self._touched, set()
        if not self._journal.outlives or self.session is None:
            return
        for stream in touched:
            at = self._receiver.cursor(stream)
            if at is None:
                if self._kept.pop(stream, None) is not None:
                    self._journal.later(Left(stream))
            elif at != self._kept.get(stream):
                self._kept[stream] = at
                self._journal.later(Reached(stream, *at))


def _parcel(entry: Any) -> Parcel:
    parcel: Parcel | None = entry.parcel if isinstance(entry, Arrived) else None
    if parcel is None:
        raise TypeError("an entry that did not arrive here")
    return parcel
