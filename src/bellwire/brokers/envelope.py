"""What nodes say to each other, beside what is emitted: typed, versioned, of a limited size.

An envelope is one byte, the version, and a message in MessagePack: an array whose first item names its kind. It travels
as something published (`bellwire.brokers.base.Broker.publish`): at most once, and in the order in which one node said
it. Anything else on those streams is ignored, and counted.
"""

from collections.abc import Callable
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from bellwire.core.errors import MessageTooLarge, PacketError

VERSION: Final = 1
"""Nodes of another version are not understood: run one version per prefix, or update one node after the other."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of one envelope. Brokers take less, as a rule, and say so."""

_VERSION: Final = bytes((VERSION,))

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PacketError)
"""What is raised for bytes of another node that hold something else than they should, by msgspec and by `Post.read`."""

NodeId: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{8}\Z")]
"""A node, by 32 random bits that it draws when it starts."""


ALL: Final = "cluster"
"""The stream that every node listens to."""


def stream_of_node(node: str) -> str:
    """Return the name of the stream that ``node`` alone listens to."""
    return f"node.{node}"


def kind_published(stream: str) -> Literal["node", "volatile"]:
    """Return what is published to ``stream`` beside its log: what nodes say to each other, or events for clients.

    It is a label of the counter of what a broker brings.
    """
    return "node" if stream == ALL or stream.startswith("node.") else "volatile"


class Alive(msgspec.Struct, frozen=True, array_like=True, tag="alive", gc=False):
    """``node`` is there; whoever hears it with ``ask`` says the same to it."""

    node: NodeId
    ask: bool = False


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone", gc=False):
    """``node`` has ended, and has told its clients."""

    node: NodeId


class Question(msgspec.Struct, frozen=True, array_like=True, tag="question", gc=False):
    """``node`` asks for something of this ``kind``; ``number`` is its own for the answers, 0 if it wants none.

    ``timeout`` is the time in seconds for which it waits, counted from when this arrives.
    """

    node: NodeId
    number: Annotated[int, Meta(ge=0)]
    kind: Annotated[str, Meta(max_length=64)]
    body: bytes
    timeout: Annotated[float, Meta(ge=0)] = 0.0


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer", gc=False):
    """The part ``place``, from 0 on, of what ``node`` answers to question ``number``."""

    node: NodeId
    number: int
    place: int
    body: bytes = b""
    last: bool = False
    failed: bool = False
    """Whether this is the last because something went wrong there."""


class Withdrawn(msgspec.Struct, frozen=True, array_like=True, tag="withdrawn", gc=False):
    """``node`` waits for the answer to its question ``number`` no longer."""

    node: NodeId
    number: int


class Direct(msgspec.Struct, frozen=True, array_like=True, tag="direct", gc=False):
    """An event for one socket of the node: the ``stream`` of that, and a `Published`, encoded."""

    stream: str
    published: bytes


Envelope: TypeAlias = Alive | Gone | Question | Answer | Withdrawn | Direct

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[memoryview], Envelope]] = msgspec.msgpack.Decoder(Envelope).decode


class Unreadable(NamedTuple):
    """Why an envelope is ignored: ``too_large``, ``version`` or ``malformed``."""

    reason: str


def seal(envelope: Envelope) -> bytes:
    """Encode. Raises `MessageTooLarge`."""
    data = _VERSION + _encode(envelope)
    if len(data) > MAX_BYTES:
        raise MessageTooLarge(len(data), MAX_BYTES, "cluster")
    return data


def unseal(data: bytes) -> Envelope | Unreadable:
    """Decode what another node, or anybody else, has published."""
    if len(data) > MAX_BYTES:
        return Unreadable("too_large")
    if data[:1] != _VERSION:
        return Unreadable("version")
    try:
        return _decode(memoryview(data)[1:])
    except UNREADABLE:
        return Unreadable("malformed")
