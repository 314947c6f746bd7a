"""A user's places, one for each of his connections: what is kept about them, under one key for each user."""

from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Final, TypeAlias

import msgspec


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A connection's place."""

    connection: str
    """16 hexadecimal digits that nobody else knows it by."""
    node: str
    """Where it is."""
    since: float
    """When it was taken, in the broker's time."""


Record: TypeAlias = tuple[Place, ...]

encode_places: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Record).decode


def decode_places(value: bytes) -> Record:
    """Return what is kept; nothing if another program wrote it."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return ()


def places_key(user: str) -> str:
    """Return the key of a user's places, in which there is no trace of his name."""
    return f"places.{blake2b(user.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def on_nodes(places: Iterable[Place], nodes: Collection[str]) -> list[Place]:
    """Return those of ``places`` that are on ``nodes``."""
    return [place for place in places if place.node in nodes]


def surplus(places: Collection[Place], limit: int) -> list[Place]:
    """Return what has to go before one more is within ``limit``: the oldest."""
    return sorted(places, key=lambda place: (place.since, place.connection))[: max(0, len(places) + 1 - limit)]
