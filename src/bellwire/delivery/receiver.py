"""The client's side of one connection with many streams: what it hands over, and in which order.

The guarantee, from the reader's end: each message once and in order, or a reset before anything newer. What arrives
on a stream, by the first rule that applies::

    the stream is not open                       nothing
    too much waits for the handler               nothing; asked for when that was handed over
    its prev is the last point received          in order: handed over after what waits; a known id only advances
    known by id and point                        nothing: it was sent twice
    its prev lies beyond the last point          kept for a while, the gap is asked for once
    anything else                                suspect: asked for; the server proves the position or resets

and a stream's deliveries::

    state   event           next    action
    IDLE    something waits BUSY    Deliver or Reset, the first that waits
    BUSY    handed          IDLE    the cursor moves behind it
    BUSY    failed          BUSY    Deliver again; the third time DeadLetter, and on as if handed

A reset waits in the same queue: what was received before it is handed over before it, and nothing older after it. So
does the end of a stream that is closed, and so does a message in no log that has to come after a position.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from bellwire.delivery.entry import Entry
from bellwire.delivery.position import START, UNBOUNDED, Point, Position, position

KNOWN_MIDS: Final = 2_000
"""How many message ids a stream remembers: as many as the default history holds, and as many again. A log that lost its
end may begin before the oldest that the client was handed of as many as it holds."""

MAX_WAITING: Final = 1_000
"""How many messages of a stream wait for their handler, and"""
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
"""how many bytes of them; those beyond are left in the log until then."""

MAX_HELD: Final = 256
"""How many messages in no log wait, of one stream, for a position that has not been reached."""

MAX_EARLY: Final = 256
"""How many messages beyond a gap are kept, and"""
MAX_EARLY_BYTES: Final = 1024 * 1024
"""how many bytes of them. The others come with the answer to what was asked for."""

MAX_CLOSED: Final = 1_024
"""Of how many streams that were closed the end is remembered; more than a server remembers of them."""

MAX_ATTEMPTS: Final = 3
"""How often a message is handed over whose handler fails."""


_IN_ORDER: Final = ("truncated", "too_far", "forbidden")
"""Reasons for a reset after which what the log has is still what it had."""


class Deliver(NamedTuple):
    """Call the handler, then `Receiver.handed` or `Receiver.failed`."""

    stream: str
    gen: str
    entry: Entry


class DeadLetter(NamedTuple):
    """The handler failed `MAX_ATTEMPTS` times with this message; the stream goes on without it."""

    stream: str
    entry: Entry


class Reset(NamedTuple):
    """Call the handler of resets, then `Receiver.handed`: before what comes now there may be a hole."""

    stream: str
    reason: str
    restart: Position


class AskFor(NamedTuple):
    """Ask the server to prove ``after`` and to send what follows on it."""

    stream: str
    after: Position


class Pass(NamedTuple):
    """Hand over a message that is in no log and needs no answer; nothing waits for it."""

    stream: str
    body: Any


Action: TypeAlias = Deliver | DeadLetter | Reset | AskFor | Pass
Actions: TypeAlias = tuple[Action, ...]


class _Skip(NamedTuple):
    """Waits like a message, and only moves the cursor."""

    at: Position


class _End:
    """Waits like a message: the stream was closed."""


_END: Final = _End()


class _Track:
    """One stream, as this client follows it."""

    __slots__ = (
        "asked",
        "attempts",
        "busy",
        "closed",
        "cursor",
        "early",
        "early_size",
        "ended",
        "full",
        "gen",
        "held",
        "last",
        "mids",
        "name",
        "size",
        "waiting",
    )

    def __init__(self, name: str, at: Position) -> None:
        self.name = name
        self.gen = at.gen
        self.last = at.point  # received
        self.cursor = at  # handed over
        self.waiting: deque[Deliver | Reset | Pass | _Skip | _End] = deque()
        self.size = 0  # of what waits
        self.held: deque[tuple[int, Pass]] = deque()  # until this number is reached
        self.busy: Deliver | Reset | None = None
        self.attempts = 0
        self.mids: OrderedDict[str, Point] = OrderedDict()
        self.early: dict[Point, tuple[str, Entry]] = {}
        self.early_size = 0
        self.asked = False
        self.full = False
        self.closed = False  # nothing more comes
        self.ended = False  # and nothing waits

    @property
    def received(self) -> Position:
        return position(self.gen, self.last)

    def ask(self) -> Actions:
        if self.asked:
            return ()
        self.asked = True
        return (AskFor(self.name, self.received),)

    def forget_early(self) -> None:
        self.early.clear()
        self.early_size = 0

    # --- in

    def take(self, gen: str | None, prev: Point, entry: Entry) -> Actions:
        if self.full:
            return ()
        if prev == self.last:
            self._in_order(self.gen if gen is None else gen, entry)
            if self.early:
                self._take_early()
            if self.held:
                self._release(self.last.seq)
            return self.pump()
        point = entry.point
        if point == self.last or self.mids.get(entry.mid) == point:
            return ()
        if prev.seq > self.last.seq and gen is not None:
            self._keep_early(gen, prev, entry)
        return self.ask()

    def _in_order(self, gen: str, entry: Entry) -> None:
        self.gen = gen
        self.last = point = Point(entry.seq, entry.tag)
        self.asked = False
        mids = self.mids
        if entry.is_marker or entry.mid in mids:
            self.waiting.append(_Skip(position(gen, point)))
        else:
            self.waiting.append(Deliver(self.name, gen, entry))
            self.size += entry.size
        mids[entry.mid] = point
        mids.move_to_end(entry.mid)
        if len(mids) > KNOWN_MIDS:
            mids.popitem(last=False)
        self.full = len(self.waiting) >= MAX_WAITING or self.size >= MAX_WAITING_BYTES

    def _take_early(self) -> None:
        while not self.full and (found := self.early.pop(self.last, None)) is not None:
            self.early_size -= found[1].size
            self._in_order(*found)

    def _keep_early(self, gen: str, prev: Point, entry: Entry) -> None:
        size = entry.size
        if len(self.early) == MAX_EARLY:
            self._drop_late()
        if len(self.early) < MAX_EARLY and self.early_size + size <= MAX_EARLY_BYTES and prev not in self.early:
            self.early[prev] = gen, entry
            self.early_size += size

    def _drop_late(self) -> None:
        """Of what was kept beyond a gap, forget what the gap was closed by."""
        kept = {prev: found for prev, found in self.early.items() if found[1].seq > self.last.seq}
        self.early, self.early_size = kept, sum(entry.size for _, entry in kept.values())

    def advance(self, prev: Point, to: Position) -> Actions:
        if self.full:
            return ()
        if prev != self.last:
            return self.ask() if to.point != self.last else ()
        self.gen, self.last, self.asked = to.gen, to.point, False
        if self.waiting and isinstance(self.waiting[-1], _Skip):
            self.waiting.pop()
        self.waiting.append(_Skip(to))
        self._take_early()
        self._release(self.last.seq)
        return self.pump()

    def reset(self, reason: str, restart: Position) -> Actions:
        self._stand(restart)
        if self.waiting and isinstance(self.waiting[-1], Reset):
            self.waiting.pop()  # nothing came between the two: one is enough
        self.waiting.append(Reset(self.name, reason, restart))
        self._release()
        return self.pump()

    def reopen(self, at: Position) -> Actions:
        self._stand(at)
        if self.closed:
            self.closed = False
            self.waiting.remove(_END)
        self.waiting.append(_Skip(at))
        self._release()
        return self.pump()

    def close(self, reason: str | None) -> Actions:
        if reason is None and (self.full or self.asked):
            reason = "too_far"  # what was left in the log will not come any more
        self.closed = True
        self.forget_early()
        if reason is not None:
            self.waiting.append(Reset(self.name, reason, self.received))
        self._release()
        self.waiting.append(_END)
        return self.pump()

    def after(self, point: Point, message: Pass) -> bool:
        """Let ``message`` wait for its turn; False if too many do."""
        if len(self.held) >= MAX_HELD or len(self.waiting) >= 2 * MAX_WAITING:
            return False
        if self.last.seq >= point.seq:
            self.waiting.append(message)
        else:
            self.held.append((point.seq, message))
        return True

    def _stand(self, at: Position) -> None:
        self.gen, self.last, self.asked, self.full = at.gen, at.point, False, False
        self.forget_early()

    def _release(self, upto: int = UNBOUNDED) -> None:
        """Let what was held wait in its turn: it was held for a position up to this number."""
        held = self.held
        while held and held[0][0] <= upto:
            self.waiting.append(held.popleft()[1])

    # --- out

    def pump(self) -> Actions:
        if self.busy is not None:
            return ()
        waiting = self.waiting
        passed: Actions = ()
        while waiting:
            item = waiting.popleft()
            if isinstance(item, Deliver):
                self.size -= item.entry.size
                self.busy = item
                return (*passed, item) if passed else (item,)
            if isinstance(item, Reset):
                self.busy = item
                return (*passed, item)
            if isinstance(item, Pass):
                passed = (*passed, item)
            elif isinstance(item, _Skip):
                self.cursor = item.at
            else:
                self.ended = True
        if self.full and not self.ended:  # what came meanwhile was left in the log
            self.full = False
            return (*passed, *self.ask())
        return passed

    def handed(self) -> Actions:
        item, self.busy = self.busy, None
        self.attempts = 0
        if item is None:
            raise ValueError(f"nothing of {self.name} is being handed over")
        self.cursor = item.restart if isinstance(item, Reset) else position(item.gen, item.entry.point)
        return self.pump()

    def failed(self) -> Actions:
        item = self.busy
        if not isinstance(item, Deliver):  # a reset was told of, however its handler took it
            return self.handed()
        self.attempts += 1
        if self.attempts < MAX_ATTEMPTS:
            return (item,)
        return (DeadLetter(self.name, item.entry), *self.handed())


class Receiver:
    """All streams of one client; it outlives the connection.

    Where a stream ended that was closed is remembered until the server has been told (`received`, `told`): as long as
    it has not, it may send all of the stream once more to a client that has lost its connection.

    A call returns the actions to be done, in order. Of one stream at most one `Deliver` or `Reset` is outstanding.
    ``ignored`` counts what arrived for streams that are not open, and what was to come `after` a position that was
    not reached before the connection was lost, or with too many others.
    """

    __slots__ = ("_closed", "_doubtful", "_tracks", "ignored")

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self._closed: dict[str, Position] = {}
        self._doubtful = False  # whether what a log has was not what it had
        self.ignored = 0

    # --- from the server

    def open(self, stream: str, at: Position) -> Actions:
        """``stream`` is followed from ``at`` on; if it was open already, this is another membership from there."""
        track = self._tracks.get(stream)
        if track is None:
            self._tracks[stream] = _Track(stream, at)
            self._closed.pop(stream, None)
            return ()
        return track.reopen(at)

    def close(self, stream: str, reason: str | None = None) -> Actions:
        """``stream`` is no longer followed: what waits of it is handed over, then it is forgotten.

        With a ``reason`` something before its end may be missing, and a `Reset` says so.
        """
        track = self._open(stream)
        if track is None:
            return ()
        return self._done(track, track.close(reason))

    def proved(self, stream: str, at: Position) -> Actions:
        """The server found the position asked for or resumed from; what follows on it is on its way."""
        track = self._open(stream)
        if track is None:
            return self._ignore()
        track.asked = False
        if at.point == track.last:
            track.gen = at.gen
        return ()

    def receive(self, stream: str, gen: str | None, prev: Point, entry: Entry) -> Actions:
        """Take ``entry``, which the server sent under ``gen`` with ``prev`` as its previous point.

        Without a ``gen`` it is that of the previous point. So such a message cannot be kept until a gap is closed: it
        may be closed under another one.
        """
        track = self._open(stream)
        if track is None:
            return self._ignore()
        if self._doubtful and entry.mid not in track.mids and any(entry.mid in t.mids for t in self._tracks.values()):
            track.mids[entry.mid] = START  # of an event to several streams another copy was taken
        return track.take(gen, prev, entry)

    def advance(self, stream: str, prev: Point, to: Position) -> Actions:
        """Nothing between ``prev`` and ``to`` is for this client."""
        track = self._open(stream)
        if track is None:
            return self._ignore()
        return track.advance(prev, to)

    def reset(self, stream: str, reason: str, restart: Position) -> Actions:
        """The server cannot go on from where this client stands; what it sends now follows on ``restart``.

        If that is because a log has changed, the server does not know for certain any more which copy of an event to
        several streams was taken: from now on a message that was handed over in one is known in all.
        """
        self._doubtful = self._doubtful or reason not in _IN_ORDER
        track = self._open(stream)
        if track is None:
            return self._ignore()
        return track.reset(reason, restart)

    def volatile(self, stream: str, body: Any) -> Actions:
        """Take a message that is in no log: it passes beside all that waits."""
        return (Pass(stream, body),) if self._open(stream) is not None else self._ignore()

    def after(self, stream: str, point: Point, body: Any) -> Actions:
        """Take a message that is in no log and has its turn after ``point``, if the stream is open."""
        track, message = self._open(stream), Pass(stream, body)
        if track is None:
            return (message,)
        return track.pump() if track.after(point, message) else self._ignore()

    def _open(self, stream: str) -> _Track | None:
        track = self._tracks.get(stream)
        return track if track is not None and not track.closed else None

    def _done(self, track: _Track, actions: Actions) -> Actions:
        """Forget a stream that was closed, once nothing of it waits, but for where it ended."""
        if track.ended:
            del self._tracks[track.name]
            self._closed[track.name] = track.cursor
            if len(self._closed) > MAX_CLOSED:
                del self._closed[next(iter(self._closed))]
        return actions

    def _ignore(self) -> Actions:
        self.ignored += 1
        return ()

    # --- from the program

    def handed(self, stream: str) -> Actions:
        """The handler returned; ValueError if nothing of the stream was outstanding."""
        track = self._tracks.get(stream)
        return self._done(track, track.handed()) if track is not None else ()

    def failed(self, stream: str) -> Actions:
        """The handler raised: the cursor stays, and the message comes again, `MAX_ATTEMPTS` times in all."""
        track = self._tracks.get(stream)
        return self._done(track, track.failed()) if track is not None else ()

    # --- the connection

    def disconnected(self) -> None:
        """The connection is gone: what was asked for will not come. What waits is still handed over."""
        for track in self._tracks.values():
            track.asked = track.full = False
            track.forget_early()
            self.ignored += len(track.held)
            track.held.clear()

    def received(self) -> dict[str, Position]:
        """From where to resume with this receiver: behind all that arrived in order, handed over or waiting.

        Of a stream that was closed, behind what was handed over; the open ones come first.
        """
        tracks = self._tracks.values()
        places = {track.name: track.received for track in tracks if not track.closed}
        return places | {track.name: track.cursor for track in tracks if track.closed} | self._closed

    def told(self, places: Mapping[str, Position]) -> list[str]:
        """The server knows that this client stands at ``places``, which were `received` before: it has said so.

        Return the closed streams that are forgotten with this.
        """
        over = [stream for stream, at in places.items() if self._closed.get(stream) == at]
        for stream in over:
            del self._closed[stream]
        return over

    @property
    def waiting(self) -> int:
        """How many messages wait to be handed over, those not counted that are outstanding."""
        return sum(isinstance(item, Deliver) for track in self._tracks.values() for item in track.waiting)

    def cursor(self, stream: str) -> Position | None:
        """Behind what was handed over of one stream; None if it is not known, or not any more."""
        track = self._tracks.get(stream)
        return track.cursor if track is not None else self._closed.get(stream)

    def cursors(self) -> dict[str, Position]:
        """From where to resume without it, as after a crash: behind all that was handed over."""
        return {name: track.cursor for name, track in self._tracks.items()} | self._closed
