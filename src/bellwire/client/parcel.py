"""What arrived, from whichever wire: arguments that are read when somebody knows their types."""

from typing import Any, Final, TypeVar

import msgspec

from bellwire.core.errors import PacketError
from bellwire.guard.schema import PayloadReader, ReplyReader

R = TypeVar("R")

_decode_msgpack: Final = msgspec.msgpack.Decoder().decode


class Parcel:
    """The arguments of an event; ``size`` is in bytes, ``taken`` says that iterators have it."""

    __slots__ = ("_objects", "_text", "name", "size", "taken")

    def __init__(self, name: str, size: int, text: str = "", objects: list[Any] | None = None) -> None:
        self.name = name
        self.size = size
        self.taken = False
        self._text = text
        self._objects = objects

    def read(self, reader: PayloadReader) -> tuple[Any, ...]:
        """Return the payload. Raises EventRefused if it is not the event's, PacketError if it is none at all."""
        return reader.read(self._text) if self._objects is None else reader.read_objects(self._objects)


class Answer:
    """The arguments of an acknowledgement."""

    __slots__ = ("_objects", "_text")

    def __init__(self, text: str, objects: list[Any] | None = None) -> None:
        self._text = text
        self._objects = objects

    def read(self, reader: ReplyReader[R]) -> R:
        """Return the reply. Raises EventRefused if it is a refusal or no reply, PacketError if it cannot be read."""
        return reader.read(self._text) if self._objects is None else reader.read_objects(self._objects)


def packet_parcel(name: str, payload: str, objects: list[Any] | None) -> Parcel:
    """An event of Socket.IO; ``objects`` is the payload of a binary one, decoded, with the name."""
    return Parcel(name, len(payload), payload, None if objects is None else objects[1:])


def raw_parcel(name: str, args: msgspec.Raw, *, msgpack: bool) -> Parcel:
    """An event of bellwire.v1. Raises PacketError if its arguments are no array."""
    if msgpack:
        return Parcel(name, len(bytes(args)), objects=_read_msgpack(args))
    text = _json_array(args)
    inside = text[1:].lstrip()
    # PayloadReader takes the event's name first, as in Socket.IO's packets, and leaves it unread.
    return Parcel(name, len(text), '[""]' if inside == "]" else f'["",{inside}')


def raw_answer(args: msgspec.Raw, *, msgpack: bool) -> Answer:
    """An acknowledgement of bellwire.v1. Raises PacketError if its arguments are no array."""
    if msgpack:
        return Answer("", _read_msgpack(args))
    text = _json_array(args)
    return Answer(text if text[1:-1].strip() else "[]")


def _json_array(args: msgspec.Raw) -> str:
    text = bytes(args).decode()
    if text[:1] != "[":
        raise PacketError("args are not an array")
    return text


def _read_msgpack(args: msgspec.Raw) -> list[Any]:
    try:
        found = _decode_msgpack(args)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PacketError(f"args are not valid MessagePack: {error}") from None
    if not isinstance(found, list):
        raise PacketError("args are not an array")
    return found
