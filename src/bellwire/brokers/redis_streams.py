"""What Bellwire keeps in Redis, and how scripts are asked (no connection is held here).

- A stream has a *log* (a Redis stream), *meta* (a hash that outlives the entries), a key for each message id of the
  last two minutes, and a sharded channel. All have the hash of its name in braces, so they lie in one slot.
- What a script does happens at once or not at all: the scripts are in ``lua``, each with its answers at its top.
- Each script declares that it writes, so it is refused before it does anything by a replica, and by a master with too
  few of them (``min-replicas-to-write``): an answer is never that of a replica. Those that need no room to speak of run
  when the memory is full as well.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import msgspec

from bellwire.brokers.redis_link import Link, Part, Refused
from bellwire.brokers.redis_slots import slot_of
from bellwire.core.errors import BrokerUnavailable, MessageTooLarge
from bellwire.delivery.answer import Answer, Page, Reason, Unproved
from bellwire.delivery.entry import Draft, Entry, enter
from bellwire.delivery.log import Appended, Limits
from bellwire.delivery.position import Point, Position

VERSION: Final = b"\x01"
"""The first byte of an envelope."""

ENTRY: Final = b"E"
"""The first byte of a live entry; then the generation, a line feed, and the record."""

VOLATILE: Final = b"V"
"""The first byte of a volatile message."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""The most bytes of a message: what Redis lets wait for a subscriber (``client-output-buffer-limit pubsub``, 8 MB for a
minute) before it takes the connection away."""

KEEP: Final = 48 * 3600.0
"""Seconds that a stream is kept which nobody follows and nothing is appended to: longer than any session."""

_BEFORE: Final = frozenset(
    (
        *("READONLY", "LOADING", "BUSY", "MASTERDOWN", "OOM", "NOREPLICAS", "MISCONF", "NOPERM", "NOAUTH", "NOSCRIPT"),
        *("CLUSTERDOWN", "MOVED", "ASK", "TRYAGAIN", "CROSSSLOT"),
    )
)
"""The codes that Redis answers with before it does anything."""

_NO_MASTER: Final = frozenset(("READONLY", "MASTERDOWN"))
_WHEN_FULL: Final = "flags=allow-oom"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Draft).decode


class Script(NamedTuple):
    """A Lua script: its text, and the name that Redis gives it."""

    source: str
    sha: str

    @classmethod
    def of(cls, source: str) -> "Script":
        """Return the script with this text."""
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _load(*names: str, flags: str = "") -> Script:
    """Put a script together. Without the flag ``no-writes`` it declares that it writes."""
    folder = files("bellwire.brokers") / "lua"
    parts = [(folder / f"{name}.lua").read_text("utf-8") for name in names]
    return Script.of("\n".join((f"#!lua {flags}".rstrip(), *parts)))


class Scripts(NamedTuple):
    """All scripts there are."""

    append: Script = _load("clock", "log", "append")
    read: Script = _load("clock", "log", "read", flags=_WHEN_FULL)
    top: Script = _load("clock", "log", "top", flags=_WHEN_FULL)
    get: Script = _load("clock", "kept", "get", flags=_WHEN_FULL)
    put: Script = _load("clock", "kept", "put")
    delete: Script = _load("clock", "kept", "delete", flags=_WHEN_FULL)
    status: Script = _load("clock", "status", flags=_WHEN_FULL)
    forget: Script = _load("forget", flags=_WHEN_FULL)


async def run(link: Link, script: Script, keys: Sequence[bytes], arguments: Sequence[Part]) -> Any:
    """Run a script and return its answer; raises as `Link.ask` does."""
    try:
        return await link.ask("EVALSHA", script.sha, len(keys), *keys, *arguments)
    except Refused as error:
        if error.code != "NOSCRIPT":
            raise
    return await link.ask("EVAL", script.source, len(keys), *keys, *arguments)


def leave_replica(link: Link, error: Exception) -> None:
    """Drop the connection to a server that has become a replica, so that the master is looked for at once."""
    if isinstance(error, Refused) and error.code in _NO_MASTER:
        link.lose(f"Redis: {error}")


def did_nothing(error: Refused) -> bool:
    """Whether the server refused before it did anything."""
    return error.code in _BEFORE


class Place(NamedTuple):
    """Where a stream, or a key, lies."""

    log: bytes
    meta: bytes
    mids: bytes
    """What the keys of message ids begin with."""
    channel: bytes
    key: bytes
    slot: int
    """The slot that all of them are in."""


@lru_cache(maxsize=16_384)
def place_of(prefix: str, name: str) -> Place:
    """Return where the stream, and the key, of this name lies."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    stem = f"{prefix}:{{{digest}}}:"
    log, meta, mids, channel, key = (f"{stem}{part}".encode() for part in ("log", "meta", "m:", "live", "key"))
    return Place(log, meta, mids, channel, key, slot_of(digest.encode()))


def fixed_arguments(limits: Limits) -> tuple[Part, ...]:
    """Return the arguments of every script on a stream, without the first two."""
    return limits.messages, limits.size, micros(limits.age), f"{int(KEEP * 1000)} {int(limits.standing * 1000)}"


def micros(seconds: float) -> int:
    """Return a time as scripts take it."""
    return round(seconds * 1e6)


def append_arguments(draft: Draft, deadline: float | None, limits: Limits) -> tuple[Part, ...]:
    """Return what `append` is given beside the fixed arguments; raises `MessageTooLarge`."""
    envelope = VERSION + _encode(draft)
    check_size(len(envelope))
    when: Part = b"" if deadline is None else micros(deadline)
    return when, draft.tag, enter(draft, 1, Point(0, 0), 0.0).size, envelope, micros(limits.dedupe)


def check_size(size: int) -> None:
    """Raise `MessageTooLarge` where Redis would cut off those who listen."""
    if size > MAX_BYTES:
        raise MessageTooLarge(size, MAX_BYTES, "broker on Redis")


def appended(answer: list[bytes], tag: int) -> Appended:
    """Return what `append` answered to an attempt with this tag.

    Raises:
        BrokerUnavailable: it came too late.

    """
    kind, *rest = answer
    if kind == b"new":
        gen, *numbers = rest
        seq, prev_seq, prev_tag = map(int, numbers)
        return Appended(gen.decode(), Point(seq, tag), Point(prev_seq, prev_tag), duplicate=False)
    if kind == b"known":
        gen, *numbers = rest
        seq, first_tag, prev_seq, prev_tag = map(int, numbers)
        return Appended(gen.decode(), Point(seq, first_tag), Point(prev_seq, prev_tag), duplicate=True)
    raise BrokerUnavailable("the attempt came after its deadline")


def opened(record: bytes) -> Entry:
    """Return a record as an entry.

    Raises:
        BrokerUnavailable: it was not written by this version of Bellwire, or by another program.

    """
    head, _, envelope = record.partition(b"\n")
    try:
        seq, tag, prev_seq, prev_tag, at, _ = map(int, head.split())
        if envelope[:1] != VERSION:
            raise BrokerUnavailable(f"an envelope of version {envelope[:1]!r}, known is {VERSION!r}")
        draft = _decode(memoryview(envelope)[1:])
        if draft.tag != tag:
            raise BrokerUnavailable("an entry whose two tags differ")
    except (ValueError, msgspec.MsgspecError) as error:
        raise BrokerUnavailable(f"an entry that Bellwire did not write: {error}") from error
    return enter(draft, seq, Point(prev_seq, prev_tag), at / 1e6)


def opened_live(payload: bytes) -> tuple[str, Entry]:
    """Return a live entry with its generation; raises as `opened` does."""
    gen, _, record = payload[1:].partition(b"\n")
    try:
        return gen.decode("ascii"), opened(record)
    except UnicodeDecodeError as error:
        raise BrokerUnavailable("a generation that Bellwire did not write") from error


def answered(answer: list[bytes]) -> Answer:
    """Return what `read` answered; raises as `opened` does."""
    kind, gen_bytes, seq, tag, *rest = answer
    gen = gen_bytes.decode()
    top = Position(gen, int(seq), int(tag))
    if kind == b"page":
        more, *records = rest
        return Page([opened(record) for record in records], top, more == b"1", confirmed=True)
    restart, *others = (Position(gen, int(seq), int(tag)) for seq, tag in zip(rest[::2], rest[1::2], strict=True))
    since = others[0] if others else None
    return Unproved(Reason(kind.decode()), restart, top, confirmed=True, since=since)
