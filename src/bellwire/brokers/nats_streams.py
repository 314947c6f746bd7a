"""What Bellwire keeps in JetStream, and how it is read: names, streams, entries (no connection is held here).

- Streams of messages share *partitions*: JetStream streams over ``<prefix>.in.<p>.<hash>``. A partition's numbers
  rise over all of them, so those of one stream leave some out. What is stored is republished to
  ``<prefix>.out.<p>.<hash>``, in order, and there are no consumers.
- Names are hashed, so that none has a meaning in a subject.
- A partition's first number is the time in microseconds at which it was made: a partition that is made again gives
  no number for a second time, and all numbers stay below 2^53 until the year 2255.
"""

import asyncio
import hashlib
import struct
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec

from bellwire.brokers.nats_fence import Fence, caught_up, newest_behind
from bellwire.brokers.nats_link import Link, Message, Unanswered
from bellwire.brokers.nats_requirements import check_account, missing_jetstream, refused
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.chain import Chain
from bellwire.delivery.entry import Draft, Entry, enter
from bellwire.delivery.log import Limits
from bellwire.delivery.position import START, Point

VERSION: Final = b"\x01"
"""The first byte of an envelope."""

SEQUENCE: Final = "Nats-Sequence"
LAST_SEQUENCE: Final = "Nats-Last-Sequence"
TIME: Final = "Nats-Time-Stamp"
PENDING: Final = "Nats-Num-Pending"
MESSAGE_ID: Final = "Nats-Msg-Id"

ADVISORY: Final = "$JS.EVENT.ADVISORY.STREAM"
"""Where JetStream tells what it does with streams."""

_API: Final = "$JS.API"
_NOT_FOUND: Final = 10059
_NAME_IN_USE: Final = 10058
_BATCH: Final = 500
_BATCH_BYTES: Final = 1024 * 1024
_NEAR: Final = 8
_SPARE: Final = 16 * 1024
"""Bytes for the entry that a page starts on and the headers."""

_WALKS: Final = 5
"""How often a walk through a stream starts anew when what it stood on was taken out meanwhile."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Draft).decode
_json = msgspec.json.Encoder().encode
_parse: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Place(NamedTuple):
    """Where a stream lies: its partition, and the hash that stands for its name."""

    partition: int
    hash: str


@lru_cache(maxsize=16_384)
def place_of(stream: str, partitions: int) -> Place:
    """Return where the stream of this name lies among ``partitions``."""
    digest = hashlib.blake2b(stream.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return Place(int.from_bytes(digest[:4], "big") % partitions, digest.hex())


def message_id(stream: str, mid: str) -> str:
    """Return the id by which JetStream knows ``mid`` in ``stream``.

    It remembers ids per partition: the stream is a part of the id, so that a message may go to several of them.
    Hashed, because a mid may hold anything and an id is a line of text.
    """
    stream_bytes, mid_bytes = stream.encode("utf-8", "surrogatepass"), mid.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(struct.pack(">I", len(mid_bytes)) + mid_bytes + stream_bytes, digest_size=20).hexdigest()


def envelope(draft: Draft) -> bytes:
    """Return ``draft`` as it is stored: a version, and msgpack."""
    return VERSION + _encode(draft)


def opened(message: Message, prev: Point) -> Entry:
    """Return a stored or republished message as the entry behind ``prev``.

    Raises:
        BrokerUnavailable: it was not written by this version of Bellwire, or another program's message lies there.

    """
    if message.data[:1] != VERSION:
        raise BrokerUnavailable(f"a message with an envelope of version {message.data[:1]!r}, known is {VERSION!r}")
    try:
        return enter(_decode(memoryview(message.data)[1:]), sequence(message), prev, stamp(message.headers[TIME]))
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise BrokerUnavailable(f"a message that Bellwire did not write: {error}") from error


def sequence(message: Message) -> int:
    """Return a stored message's number in its partition."""
    return int(message.headers[SEQUENCE])


def stamp(text: str) -> float:
    """Return the server's time, RFC 3339 with up to nine digits of a second, in seconds since 1970."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(whole + "+00:00").timestamp() + (float("0." + fraction) if fraction else 0.0)


def stored_as(message: Message) -> tuple[int, bool]:
    """Return the number that JetStream gave a message, by its answer, and whether it had the message already.

    Raises:
        BrokerUnavailable: it refused the message.

    """
    answer = _parse(message.data)
    if "error" in answer:
        raise BrokerUnavailable(f"JetStream refused a message: {answer['error'].get('description')}")
    return int(answer["seq"]), bool(answer.get("duplicate"))


# --- partitions


def partition_name(prefix: str, partition: int) -> str:
    """Return the name of a partition's JetStream stream."""
    return f"{prefix}_{partition}"


def fence_subject(prefix: str, partition: int) -> str:
    """Return the subject of a partition's fences (`nats_fence`)."""
    return f"{prefix}.fence.{partition}"


def partition_config(prefix: str, partition: int, limits: Limits, replicas: int | None = None) -> dict[str, Any]:
    """Return how a partition is set up.

    Two messages more than ``limits`` keep behind the newest: the newest itself, and the one before the oldest, which
    proves where the history starts. No age and no bytes: both count for the whole partition and would take the
    newest entry of a quiet stream.
    """
    return {
        "name": partition_name(prefix, partition),
        "subjects": [f"{prefix}.in.{partition}.*", fence_subject(prefix, partition)],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": replicas or 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": limits.messages + 2,
        "duplicate_window": int(limits.dedupe * 1e9),
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "republish": {"src": f"{prefix}.in.{partition}.>", "dest": f"{prefix}.out.{partition}.>"},
    }


async def ask_api(link: Link, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream's API, and return the answer: an error's too, under ``error``."""
    message = await link.ask(f"{_API}.{subject}", _json(request) if request is not None else b"")
    return _parse(message.data)


async def check_jetstream(link: Link) -> None:
    """Check that there is JetStream for us.

    Raises:
        ConfigError: there is none.
        BrokerUnavailable: it takes no requests at the moment.

    """
    try:
        answer = await ask_api(link, "INFO")
    except BrokerUnavailable as error:
        if link.denied or link.lost.is_set():
            raise
        raise missing_jetstream() from error
    check_account(answer)


async def identities(link: Link, names: Iterable[str]) -> list[str] | None:
    """Return the identities of JetStream streams, None if one is not there, or JetStream itself is not.

    Raises:
        Unanswered: where a stream has no leader, nobody may answer.

    """
    try:
        infos = await asyncio.gather(*(ask_api(link, f"STREAM.INFO.{name}") for name in names))
    except BrokerUnavailable:
        return None
    if any(info.get("error", {}).get("err_code") == _NOT_FOUND for info in infos):
        return None
    if any("error" in info for info in infos):
        raise Unanswered("a stream")
    return [identity(info) for info in infos]


async def ensure(link: Link, config: dict[str, Any], first: int, *, change: bool = True) -> dict[str, Any]:
    """Make the JetStream stream as ``config`` says, and return what is known about it.

    One that is there already is changed to that, but for its replicas, unless ``change`` says no. ``first`` is the
    first number if it is made now.

    Raises:
        BrokerUnavailable: JetStream refuses it.
        ConfigError: it has fewer servers than replicas are asked for.

    """
    name, replicas = config["name"], config["num_replicas"]
    kept = {key: value for key, value in config.items() if key != "num_replicas"}
    answer = await ask_api(link, f"STREAM.INFO.{name}")
    if answer.get("error", {}).get("err_code") == _NOT_FOUND:
        answer = await ask_api(link, f"STREAM.CREATE.{name}", config | {"first_seq": first})
        if answer.get("error", {}).get("err_code") == _NAME_IN_USE:  # another node was faster
            answer = await ask_api(link, f"STREAM.INFO.{name}")
    if change and "error" not in answer and not kept.items() <= answer["config"].items():
        answer = await ask_api(link, f"STREAM.UPDATE.{name}", answer["config"] | kept)
    if "error" in answer:
        raise refused(name, answer["error"], replicas)
    return answer


def identity(info: dict[str, Any]) -> str:
    """Return what a JetStream stream is told by: one that was made again, or restored, is another."""
    return f"{info['config']['name']} {info['created']}"


def generation(info: dict[str, Any]) -> str:
    """Return the generation of the streams in a partition: if that is made again it is another, and a later one.

    It is what the partition's numbers begin with, which a restored one has too: it gives numbers out again, and tags
    tell who saw what is gone. Its era is the time at which the partition was first made, in milliseconds.
    """
    config = info["config"]
    made = int(config.get("first_seq", 0)) // 1_000 or int(stamp(info["created"]) * 1_000)
    digest = hashlib.blake2b(f"{config['name']} {config.get('first_seq', info['created'])}".encode(), digest_size=8)
    return f"{made}.{digest.hexdigest()}"


# --- reading


class Reader:
    """Reads the streams of one prefix over a link, with direct gets."""

    def __init__(self, prefix: str, partitions: int, fence: Fence) -> None:
        self._prefix = prefix
        self._fence = fence
        self.partitions = partitions
        self.replicated = False
        """Whether several servers answer, of which some may lag."""

    def place(self, stream: str) -> Place:
        """Return where a stream lies."""
        return place_of(stream, self.partitions)

    def subject(self, stream: str) -> str:
        """Return the subject under which a stream is stored."""
        place = self.place(stream)
        return f"{self._prefix}.in.{place.partition}.{place.hash}"

    def live_subject(self, stream: str) -> str:
        """Return the subject under which it is republished, and volatile messages are published."""
        place = self.place(stream)
        return f"{self._prefix}.out.{place.partition}.{place.hash}"

    def _direct(self, stream: str) -> str:
        return f"{_API}.DIRECT.GET.{partition_name(self._prefix, self.place(stream).partition)}"

    async def newest(self, link: Link, stream: str) -> Message | None:
        """Return the newest message of a stream, as whoever answers knows it."""
        return await _get(link, self._direct(stream), {"last_by_subj": self.subject(stream)})

    async def acknowledged(self, link: Link, stream: str) -> Message | None:
        """Return the newest message of all that were acknowledged before the call."""
        if not self.replicated:
            return await self.newest(link, stream)
        partition = self.place(stream).partition
        name, fence = partition_name(self._prefix, partition), fence_subject(self._prefix, partition)
        return await newest_behind(link, name, self.subject(stream), fence, await self._fence.put(link, fence))

    async def least(self, link: Link, stream: str) -> int:
        """Return the number of the newest entry that was acknowledged before the call: what an answer must reach.

        0 on a single server, whose answers know all of it.
        """
        newest = await self.acknowledged(link, stream) if self.replicated else None
        return 0 if newest is None else sequence(newest)

    async def numbered(self, link: Link, stream: str, seq: int) -> Message | None:
        """Return the message with this number, None if it is no longer there or is another stream's."""
        if self.replicated:
            request = _json({"seq": seq, "next_by_subj": self.subject(stream), "batch": 1})

            async def look() -> Message | None:
                return next(iter(await link.ask_many(self._direct(stream), request)), None)

            first = await caught_up(look)  # a stream has its newest, so one without any from here on lags
            return first if sequence(first) == seq else None
        message = await _get(link, self._direct(stream), {"seq": seq})
        if message is None or message.headers.get("Nats-Subject") != self.subject(stream):
            return None
        return message

    async def before(self, link: Link, stream: str, seq: int) -> Point:
        """Return the point of the entry before number ``seq``, `START` if there is none.

        ``Nats-Last-Sequence`` is no help in a direct get: it is the number before *within that answer*.
        """
        if self.replicated:
            return await caught_up(lambda: self._linked(link, stream, seq))
        return await self._below(link, stream, seq)

    async def _below(self, link: Link, stream: str, seq: int) -> Point:
        request = {"multi_last": [self.subject(stream)], "up_to_seq": seq - 1}
        parts = await link.ask_many(self._direct(stream), _json(request))
        return opened(parts[0], START).point if parts else START

    async def _linked(self, link: Link, stream: str, seq: int) -> Point | None:
        """Return the point before number ``seq`` if a replica has both with nothing between; one that lags has not."""
        prev = await self._below(link, stream, seq)
        entries, _ = await self.page(link, stream, prev.seq, _NEAR, _BATCH_BYTES)
        if prev == START and entries and entries[0].seq == seq:
            return START
        return next((before.point for before, entry in pairwise(entries) if entry.seq == seq), None)

    async def page(self, link: Link, stream: str, seq: int, messages: int, size: int) -> tuple[list[Entry], int]:
        """Return entries from number ``seq`` on, each linked to the one before, and how many there are beyond them.

        The first one's ``prev`` is not known, and `START`. About ``size`` bytes end the page too, but it has one
        entry if there is one. (Without a limit JetStream would send up to 64 MB.)
        """
        request = {
            "seq": max(seq, 1),
            "next_by_subj": self.subject(stream),
            "batch": messages,
            "max_bytes": size + _SPARE,
        }
        parts = await link.ask_many(self._direct(stream), _json(request))
        entries: list[Entry] = []
        prev = START
        for part in parts:
            entry = opened(part, prev)
            entries.append(entry)
            prev = entry.point
        return entries, int(parts[-1].headers.get(PENDING, "0")) if parts else 0

    async def whole(self, link: Link, stream: str, seq: int = 1) -> list[Entry]:
        """Return all that is stored of a stream from number ``seq`` on; pages overlap by one, which proves the seam.

        Raises:
            BrokerUnavailable: it goes on so fast that no page fits to the one before.

        """
        for _ in range(_WALKS):
            entries, pending = await self.page(link, stream, seq, _BATCH, _BATCH_BYTES)
            while pending:
                onward = await self.onward(link, stream, entries[-1], _BATCH, _BATCH_BYTES)
                if onward is None:
                    break
                more, pending = onward
                entries += more
            else:
                return entries
        raise BrokerUnavailable("the stream is trimmed faster than it can be read")

    async def all(self, link: Link, stream: str) -> list[Entry]:
        """Return all that is stored of a stream, that included which was acknowledged before the call."""
        least = await self.least(link, stream)

        async def look() -> list[Entry] | None:
            stored = await self.whole(link, stream)
            return stored if not least or (stored and stored[-1].seq >= least) else None

        return await caught_up(look)

    async def onward(
        self, link: Link, stream: str, last: Entry, messages: int, size: int
    ) -> tuple[list[Entry], int] | None:
        """Return the entries that follow on ``last`` and how many there are beyond them.

        None if ``last`` is not stored any more: nothing can be said then about what follows on it.
        """
        entries, pending = await self.page(link, stream, last.seq, messages + 1, size)
        if not entries or entries[0].point != last.point:
            return None
        if len(entries) > 1 or not pending:
            return entries[1:], pending
        # ``last`` fills a page of bytes. Entries go oldest first, so one that is there after the next one was read
        # was there all the time, and nothing came out between the two.
        entries, pending = await self.page(link, stream, last.seq + 1, 1, size)
        there = await self.numbered(link, stream, last.seq)
        if not entries or there is None or opened(there, START).point != last.point:
            return None
        return [msgspec.structs.replace(entries[0], prev=last.point)], pending


async def _get(link: Link, subject: str, request: dict[str, Any]) -> Message | None:
    message = await link.ask(subject, _json(request))
    if message.status == "404":
        return None
    if message.status:
        raise BrokerUnavailable(f"NATS refused a read: {message.status} {message.headers.get('Description', '')}")
    return message


def trimmed(stored: list[Entry], limits: Limits, now: float) -> Chain:
    """Return what ``limits`` leave of all that is stored of a stream, on the point before it.

    What is stored always holds the entry before the oldest that counts, if there was one: the partition keeps one
    more than the limits, and the sweep leaves one more.
    """
    start = _first_kept(stored, limits, now)
    chain = Chain(stored[start - 1].point if start else START)
    for entry in stored[start:]:
        chain.append(entry)
    return chain


def _first_kept(stored: list[Entry], limits: Limits, now: float) -> int:
    behind = len(stored) - 1
    size = sum(entry.size for entry in stored[:-1])
    horizon = now - limits.age
    index = 0
    while behind > 0 and (behind > limits.messages or size > limits.size or stored[index].at < horizon):
        size -= stored[index].size
        index += 1
        behind -= 1
    return index
