"""Who is in a room, on all nodes: told to those who look, and kept the same everywhere.

A room's presence is *served* by the nodes that have somebody who looks at it, or is shown in it. They publish their
steps (`bellwire.delivery.presence`) on a stream of the room's own. Whoever begins to serve it asks all nodes for what
they show, and so does who missed something; each says from time to time how far it has come, so that what was lost on
the way is found.

A socket whose connection is lost is shown for a while longer, so that a page that comes back does not leave and join.
When a node has died the others do not wait: each takes out whom that one showed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from bellwire.brokers.base import Broker
from bellwire.brokers.envelope import UNREADABLE
from bellwire.core.clock import Timer, Wheel
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError, BrokerUnavailable, OutcomeUnknown, RoomLimit
from bellwire.core.presence import PRESENCE_DIFF, PRESENCE_STATE, PresenceDiff, PresenceState
from bellwire.delivery.entry import Entry
from bellwire.delivery.naming import stream_of
from bellwire.delivery.presence import NOTHING, Presence, Shown, Step
from bellwire.guard.packets import post
from bellwire.server.cluster import Asked, Cluster
from bellwire.server.dispatch import Dispatcher, Outcome
from bellwire.server.fanout import Fanout
from bellwire.server.socket import Socket

GRACE_SECONDS: Final = 5.0
"""How long a socket is shown after its connection was lost, and the sockets of a node that ended in order."""

REPAIR_SECONDS: Final = 30.0
"""How often a node says how far it has come."""

SILENCE_SECONDS: Final = 2.5 * REPAIR_SECONDS
"""After how long a node that says nothing about a room is asked: it may show nobody any more."""

SYNC_SECONDS: Final = 2.0
"""How long others have to say whom they show."""

MAX_SHOWN: Final = 256
"""Sockets that are shown in one room: each that comes is told to all of them."""

MAX_INFO: Final = 1_024
"""Bytes of JSON that a socket may say of itself."""

ROOMS_AT_ONCE: Final = 128
"""How many rooms something is done to in one turn of the event loop: repairing takes 10 us each, losing a node 30."""

STREAMS_AT_ONCE: Final = 1_000
"""How many rooms a node is asked for in one question."""

PART_BYTES: Final = 128 * 1024
"""How many bytes of an answer make a part, beside one more room. Brokers take messages of 1 MB."""

ANSWERS: Final = 3
"""How many wholes are asked for that turn out to be older than what was heard of, until the next repair."""

_LEFT: Final = frozenset({"client namespace disconnect", "server namespace disconnect", "forced server close"})
"""The reasons of those who went on purpose."""

_encode: Final = msgspec.msgpack.Encoder().encode
_read_step: Final = msgspec.msgpack.Decoder(Step).decode
_read_streams: Final = msgspec.msgpack.Decoder(list[str]).decode


class _Whole(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node shows in the room of a stream."""

    stream: str
    step: Step


_read_wholes: Final = msgspec.msgpack.Decoder(list[_Whole]).decode


class ServedRoom:
    """A room whose presence this node serves; the broker tells it what the others say."""

    __slots__ = (
        "_asking",
        "_audience",
        "_heard",
        "_node",
        "_timers",
        "_wanted",
        "guests",
        "key",
        "lock",
        "name",
        "namespace",
        "presence",
        "ready",
        "watchers",
    )

    def __init__(self, node: "Presences", namespace: str, name: str, key: str) -> None:
        self.namespace = namespace
        self.name = name
        self.key = key
        self.presence = node.new_presence(name)
        self.watchers: set[Socket] = set()
        """Who looks at it here."""
        self.lock = asyncio.Lock()
        self.ready = False
        self.guests = 0
        """How many need it that do not look yet."""
        self._audience = (self.watchers,)
        self._timers: dict[str, Timer] = {}  # of those whose connection was lost, by their ids
        self._node = node
        self._asking: set[str] = set()
        self._wanted: dict[str, int] = {}
        self._heard: dict[str, float] = {}

    @property
    def unused(self) -> bool:
        """Whether nobody needs it."""
        return not self.guests and not self.watchers and self.presence.shows_nobody

    # --- to those who look

    def cast(self, diff: PresenceDiff) -> None:
        """Tell all who look here what has changed."""
        if diff and self.watchers:
            self._node.fanout.cast(self._audience, post(self.namespace, PRESENCE_DIFF, (diff,)))

    def add(self, socket: Socket) -> None:
        """Let ``socket`` look: it is told the state, and from then on what changes."""
        if socket not in self.watchers:
            self._node.fanout.settle(socket)
            socket.deliver(post(self.namespace, PRESENCE_STATE, (self.presence.state,)))
            self.watchers.add(socket)

    def discard(self, socket: Socket) -> None:
        """``socket`` does not look any longer."""
        if socket in self.watchers:
            self._node.fanout.settle(socket)
            self.watchers.discard(socket)

    # --- what this node shows

    def show(self, shown: Shown) -> None:
        """Show a socket, here and elsewhere. Raises `RoomLimit`."""
        if not self.presence.shows(shown.id) and len(self.presence) >= MAX_SHOWN:
            raise RoomLimit(
                f"{MAX_SHOWN} sockets are shown in {self.name!r}, and no more can be: watch() it, or use another room"
            )
        self._stop_timer(shown.id)
        self._say(*self.presence.show(shown, self._node.next_version()))

    def hide(self, id: str) -> None:  # noqa: A002 - a socket's
        """Show it no longer."""
        self._stop_timer(id)
        if self.presence.shows(id):
            self._say(*self.presence.hide((id,), self._node.next_version()))
            self._node.give_up(self)

    def hide_later(self, id: str) -> None:  # noqa: A002
        """The same, unless it is shown again before its time is over."""
        if self.presence.shows(id):
            self._stop_timer(id)
            self._timers[id] = self._node.wheel.after(GRACE_SECONDS, lambda: self.hide(id))

    def _stop_timer(self, id: str) -> None:  # noqa: A002
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Leave it to the others how long those are shown whose connection was lost."""
        for id_ in tuple(self._timers):
            self._stop_timer(id_)

    def _say(self, step: Step, diff: PresenceDiff) -> None:
        self.cast(diff)
        self.publish(step)

    def publish(self, step: Step) -> None:
        """Tell the other nodes; what is lost on the way is found later."""
        self._node.start(self._node.broker.publish(self.key, _encode(step)))

    # --- what the others show

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        """Nobody appends here (`bellwire.brokers.base.Listener`)."""
        self._node.ignore()

    def volatile(self, stream: str, body: bytes) -> None:
        """Another node, or this one, has said something."""
        try:
            step = _read_step(body)
        except UNREADABLE:
            self._node.ignore()
        else:
            self.take(step)

    def take(self, step: Step) -> None:
        """Take what a node said of itself."""
        if not self.presence.knows(step.node):
            return
        diff = self.presence.take(step)
        self._heard[step.node] = self._node.now
        if diff is not None:
            self.cast(diff)
        else:
            self._wanted[step.node] = max(step.version, self._wanted.get(step.node, NOTHING))
            self.ask(step.node)

    def lose(self, node: str) -> None:
        """``node`` is gone."""
        self._heard.pop(node, None)
        self._wanted.pop(node, None)
        self.cast(self.presence.lose(node))

    def ask(self, node: str) -> None:
        """Ask ``node`` for its whole, unless it is being asked."""
        if node not in self._asking:
            self._asking.add(node)
            self._node.start(self._catch_up(node))

    async def _catch_up(self, node: str) -> None:
        try:
            for _ in range(ANSWERS):
                unreachable = await self._node.ask([self.key], frozenset({node}))
                if unreachable or self._wanted.get(node, NOTHING) <= self.presence.version(node):
                    return
        finally:
            self._asking.discard(node)

    def repair(self) -> None:
        """Say how far this node has come, and ask those of whom nothing was heard."""
        if self.presence.said:
            self.publish(self.presence.unchanged())
        for node in self.presence.shown_by:
            if self._node.now - self._heard.get(node, 0.0) > SILENCE_SECONDS:
                self.ask(node)


class Presences:
    """The presence of all rooms that this node serves; made, and used, in the running loop."""

    def __init__(
        self, broker: Broker, cluster: Cluster, fanout: Fanout, dispatcher: Dispatcher, wheel: Wheel, counters: Counters
    ) -> None:
        self.broker = broker
        self.fanout = fanout
        self.wheel = wheel
        self._cluster = cluster
        self._dispatcher = dispatcher
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._rooms: dict[str, ServedRoom] = {}
        self._looking: dict[Socket, set[ServedRoom]] = {}
        self._version = NOTHING
        self._leaving: set[str] = set()
        self._losing: set[str] = set()
        self._timer: Timer | None = None
        self._closed = False
        cluster.watch(self)
        cluster.remind(self._say_again)
        cluster.serve("presence", self._asked)
        cluster.hear("presence.leaving", self._told_of_leaving)

    def __len__(self) -> int:
        return len(self._rooms)

    @property
    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    # --- for sockets and namespaces

    async def track(self, socket: Socket, room: str, info: object) -> None:
        """Show ``socket`` in ``room``, and let it look. The errors of `Socket.track`."""
        said = checked(info)
        served = await self._open(socket.namespace, room)
        try:
            if self._belongs(socket, room):
                served.show(Shown(socket.id, socket.user, said, self.broker.clock()))
                self._look(served, socket)
        finally:
            self._leave(served)

    async def watch(self, socket: Socket, room: str) -> None:
        """Let ``socket`` look at who is in ``room``. Raises BrokerUnavailable."""
        served = await self._open(socket.namespace, room)
        try:
            if self._belongs(socket, room):
                self._look(served, socket)
        finally:
            self._leave(served)

    def untrack(self, socket: Socket, room: str) -> None:
        """It is not shown in ``room`` any longer, and does not look."""
        served = self._rooms.get(key_of_room(socket.namespace, room)) if socket in self._looking else None
        if served is not None:
            self._look_away(served, socket)
            served.hide(socket.id)
            self.give_up(served)

    def depart(self, socket: Socket, reason: str) -> None:
        """``socket`` is gone."""
        for served in tuple(self._looking.get(socket, ())):
            self._look_away(served, socket)
            if reason in _LEFT or (socket.user is None and socket.reader is None):
                served.hide(socket.id)
            else:
                served.hide_later(socket.id)
            self.give_up(served)

    async def present(self, namespace: str, room: str) -> dict[str, list[Any]]:
        """Return who is in ``room``, on all nodes that say so in time. Raises BrokerUnavailable."""
        served = await self._open(namespace, room)
        try:
            return dict(served.presence.state.present)
        finally:
            self._leave(served)

    async def close(self, grace: float) -> None:
        """Let the others know that clients are on their way to them; wait at most ``grace`` seconds for the broker."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for served in self._rooms.values():
            served.close()
        if self._rooms:
            with contextlib.suppress(BellwireError, TimeoutError):  # then they take them for gone at once
                async with asyncio.timeout(min(grace, SYNC_SECONDS)):
                    await self._cluster.tell("presence.leaving", b"")

    def _belongs(self, socket: Socket, room: str) -> bool:
        return not socket.gone and room in socket.rooms

    def _look(self, served: ServedRoom, socket: Socket) -> None:
        self._looking.setdefault(socket, set()).add(served)
        served.add(socket)

    def _look_away(self, served: ServedRoom, socket: Socket) -> None:
        served.discard(socket)
        looking = self._looking.get(socket)
        if looking is not None:
            looking.discard(served)
            if not looking:
                del self._looking[socket]

    # --- rooms

    async def _open(self, namespace: str, room: str) -> ServedRoom:
        key = key_of_room(namespace, room)
        served = self._rooms.get(key)
        if served is None:
            served = self._rooms[key] = ServedRoom(self, namespace, room, key)
        served.guests += 1
        try:
            async with served.lock:
                if not served.ready:
                    await self.broker.subscribe(key, served)
                    await self.ask([key], self._cluster.peers.ids)
                    served.ready = True
        except BaseException:
            self._leave(served)
            raise
        if self._timer is None and not self._closed:
            self._timer = self.wheel.after(REPAIR_SECONDS, self._repair)
        return served

    def _leave(self, served: ServedRoom) -> None:
        served.guests -= 1
        self.give_up(served)

    def give_up(self, served: ServedRoom) -> None:
        """Serve a room no longer that nobody needs."""
        if served.unused and self._rooms.get(served.key) is served:
            del self._rooms[served.key]
            self.start(self.broker.unsubscribe(served.key, served))

    def new_presence(self, room: str) -> Presence:
        """Return what is known of a room at first."""
        return Presence(room, self._cluster.node, self._version, self._cluster.peers.ids)

    def next_version(self) -> int:
        """Return the version of a step that is about to be made."""
        self._version += 1
        return self._version

    def start(self, job: Any) -> None:
        """Do something in the background; when it fails, the next repair makes it good."""
        self._dispatcher.run(job, self._done)

    def _done(self, outcome: Outcome) -> None:
        if outcome.error is not None and not isinstance(outcome.error, BellwireError | asyncio.CancelledError):
            raise outcome.error

    def ignore(self) -> None:
        """Something was published that no node of this version says."""
        self._counters.dropped("envelope", reason="malformed", policy="ignored")

    def _repair(self) -> None:
        self._timer = self.wheel.after(REPAIR_SECONDS, self._repair) if self._rooms else None
        self.start(self._each(ServedRoom.repair))

    async def _each(self, do: Callable[[ServedRoom], None]) -> None:
        """Do something to all rooms, and let the loop turn now and then: there may be very many."""
        for number, served in enumerate(tuple(self._rooms.values()), 1):
            do(served)
            if number % ROOMS_AT_ONCE == 0:
                await asyncio.sleep(0)

    # --- other nodes

    async def ask(self, keys: list[str], nodes: frozenset[str]) -> tuple[str, ...]:
        """Ask ``nodes`` whom they show in rooms; return those that did not say. Raises BrokerUnavailable."""
        try:
            return await self._cluster.ask("presence", _encode(keys), self._answered, timeout=SYNC_SECONDS, nodes=nodes)
        except OutcomeUnknown as error:
            raise BrokerUnavailable("the other nodes may not have been asked") from error

    def _answered(self, node: str, part: bytes) -> None:
        for whole in _read_wholes(part):
            served = self._rooms.get(whole.stream)
            if served is not None and whole.step.node == node:
                served.take(whole.step)

    async def _asked(self, asked: Asked) -> None:
        part: list[_Whole] = []
        size = 0
        for key in asked.read(_read_streams):
            served = self._rooms.get(key)
            nobody = Step(self._cluster.node, NOTHING, self._version)
            part.append(_Whole(key, nobody if served is None else served.presence.whole()))
            size += len(_encode(part[-1]))
            if size > PART_BYTES:
                await asked.answer(_encode(part))
                part, size = [], 0
        if part:
            await asked.answer(_encode(part))

    async def _ask_for_all(self, nodes: Iterable[str]) -> None:
        keys = list(self._rooms)
        for start in range(0, len(keys), STREAMS_AT_ONCE):
            await self.ask(keys[start : start + STREAMS_AT_ONCE], frozenset(nodes))

    def _told_of_leaving(self, node: str, body: bytes) -> None:
        self._leaving.add(node)

    def node_joined(self, node: str) -> None:
        """``node`` is there: it may have said something before it was heard."""
        self._losing.discard(node)
        for served in self._rooms.values():
            served.presence.meet(node)
        if self._rooms:
            self.start(self._ask_for_all((node,)))

    def node_left(self, node: str) -> None:
        """``node`` is gone: at once if it died; if it ended in order, its clients have time to come back."""
        if node in self._leaving:
            self._leaving.discard(node)
            self.wheel.after(GRACE_SECONDS, lambda: self.start(self._lose(node)))
        else:
            self.start(self._lose(node))

    async def _lose(self, node: str) -> None:
        self._losing.add(node)
        await self._each(lambda served: self._lose_in(served, node))
        self._losing.discard(node)

    def _lose_in(self, served: ServedRoom, node: str) -> None:
        if node in self._losing:  # else it is back, and is asked for all that it shows
            served.lose(node)

    def _say_again(self) -> None:
        """Others may have missed what this node said, and this node what they said."""
        self.start(self._each(ServedRoom.repair))
        if self._rooms:
            self.start(self._ask_for_all(self._cluster.peers.ids))


def key_of_room(namespace: str, room: str) -> str:
    """Return the name of the stream on which a room's presence is published."""
    return f"presence.{stream_of(namespace, room)}"


def checked(info: object) -> Any:
    """Return what a socket says of itself as plain JSON values.

    Raises:
        TypeError: it is nothing that JSON can hold.
        ValueError: it is too large.

    """
    try:
        text = msgspec.json.encode(info)
        plain = msgspec.json.decode(text)
        post("/", PRESENCE_STATE, (PresenceState("", {"": [plain]}),)).body  # noqa: B018 - all wires can hold it
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"what a socket says of itself is plain values or a Struct: {error}") from None
    if len(text) > MAX_INFO:
        raise ValueError(f"what a socket says of itself has {len(text)} bytes as JSON, more than {MAX_INFO}: say less")
    return plain
