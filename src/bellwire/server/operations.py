"""What is done to sockets on other nodes: asked over the cluster, and done there by the same code as here.

::

    kind          what is asked          the answer
    sockets       a selection            who is there, in parts
    call          a selection, an event  the acknowledgements as they come, then who did not give one; until the other
                                         node waits no longer
    join, leave   a selection, a room    what went wrong, if anything did
    disconnect    a selection            nothing

Each node does it to its own sockets. Only nodes that can have one are asked, where that is known from the ids.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec
from typing_extensions import override

from bellwire.core.errors import (
    BellwireError,
    BrokerUnavailable,
    CallLimit,
    Disconnected,
    EventRefused,
    MessageTooLarge,
    PacketError,
    RoomLimit,
)
from bellwire.delivery.naming import Key, key_of, kind_of
from bellwire.guard.schema import MAX_MESSAGE_LENGTH
from bellwire.protocol.post import Post
from bellwire.server.acks import Call, Waiting
from bellwire.server.cluster import Asked, Cluster
from bellwire.server.local import Local

if TYPE_CHECKING:
    from bellwire.server.namespace import Namespace
    from bellwire.server.socket import Socket

T = TypeVar("T")

TIMEOUT: Final = 5.0
"""Seconds for other nodes to do what is asked of them."""

LAG: Final = 1.0
"""Seconds for a node to tell that a call's time is over."""

PART_ITEMS: Final = 256
"""How many sockets are told in one part of an answer, and"""
PART_BYTES: Final = 128 * 1024
"""how many bytes of what is told, unless it is one socket's. Brokers take messages of 1 MB."""

FindNamespace: TypeAlias = "Callable[[str], tuple[Namespace, Mapping[str, str]] | None]"


class Selection(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A target as it is told to other nodes; ``keys`` as `kind_of` tells them."""

    namespace: str
    keys: tuple[tuple[str, str], ...]
    excluded: tuple[str, ...]

    @classmethod
    def of(cls, namespace: str, keys: Sequence[Key], excluded: tuple[str, ...]) -> "Selection":
        """Return what a target selects."""
        return cls(namespace, tuple([kind_of(key) for key in keys]), excluded)


class Found(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A socket, to those who asked which there are."""

    id: str
    user: str | None
    rooms: frozenset[str]


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An error of an operation, by its code."""

    code: str
    message: str

    @classmethod
    def of(cls, error: BellwireError) -> "Failure":
        """Return what is told of an error."""
        if isinstance(error, EventRefused):
            return cls(error.code, error.message)
        return cls(error.code, error.reason if isinstance(error, Disconnected) else str(error))

    def as_error(self) -> BellwireError:
        """Return an error of the same kind."""
        for kind in (RoomLimit, CallLimit, BrokerUnavailable):
            if self.code == kind.code:
                return kind(self.message)
        if self.code == Disconnected.code:
            return Disconnected(self.message)
        return EventRefused(self.code, self.message)


class Heard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one socket answered to a call: JSON text, or its objects in msgpack, or why it did not."""

    id: str
    text: str | None = None
    objects: bytes | None = None
    failure: Failure | None = None

    @classmethod
    def refused(cls, id: str, why: str) -> "Heard":  # noqa: A002 - a socket's
        """Return what stands for an answer that does not get to the other node."""
        return cls(id, failure=Failure("invalid_reply", why[:MAX_MESSAGE_LENGTH]))


class _InRoom(msgspec.Struct, frozen=True, array_like=True, gc=False):
    selection: Selection
    room: str


class _Disconnect(msgspec.Struct, frozen=True, array_like=True, gc=False):
    selection: Selection
    close: bool


class _Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    selection: Selection
    body: bytes


class _Answers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    heard: list[Heard]
    missing: list[str]


_encode: Final = msgspec.msgpack.Encoder().encode
_read_objects: Final = msgspec.msgpack.Decoder(list[Any]).decode
_read_selection: Final = msgspec.msgpack.Decoder(Selection).decode
_read_in_room: Final = msgspec.msgpack.Decoder(_InRoom).decode
_read_disconnect: Final = msgspec.msgpack.Decoder(_Disconnect).decode
_read_call: Final = msgspec.msgpack.Decoder(_Call).decode
_read_found: Final = msgspec.msgpack.Decoder(list[Found]).decode
_read_failure: Final = msgspec.msgpack.Decoder(Failure).decode
_read_answers: Final = msgspec.msgpack.Decoder(_Answers).decode


class Operations:
    """Asks other nodes, and answers them; ``find`` tells the namespace that a name means."""

    __slots__ = ("_cluster", "_find")

    def __init__(self, cluster: Cluster, find: FindNamespace) -> None:
        self._cluster = cluster
        self._find = find
        for kind, answerer in (
            ("sockets", self._sockets),
            ("call", self._called),
            ("join", self._joined),
            ("leave", self._left),
            ("disconnect", self._disconnected),
        ):
            cluster.serve(kind, answerer)

    # --- asked by this node

    async def sockets(self, selection: Selection, nodes: frozenset[str]) -> tuple[list[Found], tuple[str, ...]]:
        """Return who is there on other nodes, and the nodes that did not say. Raises BrokerUnavailable."""
        found: list[Found] = []
        return found, await self._cluster.ask(
            "sockets", _encode(selection), lambda _, part: found.extend(_read_found(part)), timeout=TIMEOUT, nodes=nodes
        )

    async def join(self, selection: Selection, room: str, nodes: frozenset[str]) -> tuple[str, ...]:
        """Make sockets on other nodes members of ``room``; return the nodes that did not say that it is done.

        Raises BrokerUnavailable, and what `Socket.join` raised elsewhere.
        """
        return await self._in_room("join", selection, room, nodes)

    async def leave(self, selection: Selection, room: str, nodes: frozenset[str]) -> tuple[str, ...]:
        """Take them out of it; the same errors."""
        return await self._in_room("leave", selection, room, nodes)

    async def _in_room(self, kind: str, selection: Selection, room: str, nodes: frozenset[str]) -> tuple[str, ...]:
        failures: list[Failure] = []
        unreachable = await self._cluster.ask(
            kind,
            _encode(_InRoom(selection, room)),
            lambda _, part: failures.append(_read_failure(part)),
            timeout=TIMEOUT,
            nodes=nodes,
        )
        for failure in failures:
            raise failure.as_error()
        return unreachable

    async def disconnect(self, selection: Selection, nodes: frozenset[str], *, close: bool) -> tuple[str, ...]:
        """Disconnect them; return the nodes that did not say that it is done. Raises BrokerUnavailable."""
        body = _encode(_Disconnect(selection, close))
        return await self._cluster.ask("disconnect", body, lambda *_: None, timeout=TIMEOUT, nodes=nodes)

    async def call(
        self,
        selection: Selection,
        body: bytes,
        call: Call[Any],
        nodes: frozenset[str],
        timeout: float,  # noqa: ASYNC109 - the nodes are told it
    ) -> tuple[frozenset[str], tuple[str, ...]]:
        """Call the sockets on other nodes, and give ``call`` what they answer.

        Return the ids of those that did not answer in time, and the nodes that did not say. Raises BrokerUnavailable:
        nobody was called.
        """
        missing: set[str] = set()

        def take(_: str, part: bytes) -> None:
            answers = _read_answers(part)
            missing.update(answers.missing)
            for heard in answers.heard:
                _pass_on(heard, call)

        unreachable = await self._cluster.ask(
            "call", _encode(_Call(selection, body)), take, timeout=timeout, lag=LAG, nodes=nodes
        )
        return frozenset(missing), unreachable

    # --- asked by others

    def _local(self, selection: Selection) -> Local | None:
        """Return what is meant here; None where no such namespace is served."""
        found = self._find(selection.namespace)
        keys = tuple([key_of(*key) for key in selection.keys])
        return None if found is None else Local(found[0], selection.namespace, keys, selection.excluded)

    async def _sockets(self, asked: Asked) -> None:
        local = self._local(asked.read(_read_selection))
        found = [] if local is None else [told(socket) for socket in local.sockets()]
        for part in _parts(found):
            await asked.answer(_encode(part))

    async def _joined(self, asked: Asked) -> None:
        wanted = asked.read(_read_in_room)
        await self._do(asked, wanted.selection, lambda local: local.join(wanted.room))

    async def _left(self, asked: Asked) -> None:
        wanted = asked.read(_read_in_room)
        await self._do(asked, wanted.selection, lambda local: local.leave(wanted.room))

    async def _disconnected(self, asked: Asked) -> None:
        wanted = asked.read(_read_disconnect)
        await self._do(asked, wanted.selection, lambda local: local.disconnect(close=wanted.close))

    async def _do(self, asked: Asked, selection: Selection, what: "Callable[[Local], Any]") -> None:
        local = self._local(selection)
        try:
            if local is not None:
                await what(local)
        except BellwireError as error:
            await asked.answer(_encode(Failure.of(error)))

    async def _called(self, asked: Asked) -> None:
        wanted = asked.read(_read_call)
        local = self._local(wanted.selection)
        hub = None if local is None else local.hub
        if local is None or hub is None:
            return
        number, audience = hub.next_ack(), local.answering()
        message = asked.read(lambda _: Post.read(wanted.selection.namespace, wanted.body, number))
        reporting = _Reporting(audience, asked)
        asked.withdrawn = reporting.give_up
        telling = asyncio.ensure_future(reporting.tell())
        try:
            missing = await local.call(message, number, reporting, audience)
        finally:
            reporting.close()
            await telling
        ids = sorted(missing)
        for start in range(0, len(ids), PART_ITEMS):
            await asked.answer(_encode(_Answers([], ids[start : start + PART_ITEMS])))


def told(socket: "Socket") -> Found:
    """Return what others are told of a socket."""
    return Found(socket.id, socket.user, socket.rooms)


def _pass_on(heard: Heard, call: Call[Any]) -> None:
    if heard.failure is not None:
        call.fail(heard.id, heard.failure.as_error())
        return
    try:
        call.take(heard.id, _read_objects(heard.objects or b"\x90") if heard.text is None else heard.text)
    except (PacketError, RecursionError) as error:  # what an own client would be disconnected for
        call.fail(heard.id, EventRefused("invalid_reply", str(error)[:MAX_MESSAGE_LENGTH]))


class _Reporting(Waiting):
    """Acknowledgements for another node: told as they come, those of one turn of the loop together."""

    __slots__ = ("_asked", "_closed", "_heard", "_news")

    def __init__(self, audience: "Sequence[Socket]", asked: Asked) -> None:
        super().__init__(audience, asked.timeout)
        self._asked = asked
        self._heard: list[Heard] = []
        self._news = asyncio.Event()
        self._closed = False

    @override
    def take(self, id: str, payload: str | list[Any]) -> None:
        if isinstance(payload, str):
            self._add(Heard(id, payload))
            return
        try:
            self._add(Heard(id, objects=_encode(payload)))
        except (OverflowError, RecursionError) as error:  # JSON has numbers that msgpack does not
            self._add(Heard.refused(id, str(error)))

    @override
    def fail(self, id: str, error: BellwireError) -> None:
        self._add(Heard(id, failure=Failure.of(error)))

    def _add(self, heard: Heard) -> None:
        self._heard.append(heard)
        self._news.set()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._news.set()

    async def tell(self) -> None:
        """Give what comes as parts of the answer, until it is closed."""
        while not self._closed or self._heard:
            await self._news.wait()
            self._news.clear()
            heard, self._heard = self._heard, []
            for part in _parts(heard):
                await self._give(part)

    async def _give(self, heard: list[Heard]) -> None:
        try:
            await self._asked.answer(_encode(_Answers(heard, [])))
        except MessageTooLarge as error:  # the clients' doing: the others' answers are not to be lost with it
            refused = [Heard.refused(one.id, f"the reply does not fit through the broker: {error}") for one in heard]
            await self._asked.answer(_encode(_Answers(refused, [])))


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Divide what is to be told into parts."""
    part: list[T] = []
    size = 0
    for one in items:
        cost = len(_encode(one))
        if part and (len(part) >= PART_ITEMS or size + cost > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(one)
        size += cost
    if part:
        yield part
