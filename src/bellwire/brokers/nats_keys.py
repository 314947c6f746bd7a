"""Keyed state in JetStream: a stream of one message per key, replaced by comparing its number.

- A revision is the message's number. A key that was deleted has a tombstone for a while, one that ran out may still
  have its message: either counts as none, and is replaced by comparing with *its* number, since for JetStream it is
  there.
- A message id beside a comparison makes a retry fail that would be right (nats-server answers "wrong last sequence"
  before it looks for duplicates). So there is none: each attempt carries 64 random bits, and what was not answered
  is read back.
"""

import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from bellwire.brokers.base import Kept
from bellwire.brokers.nats_fence import Fence, newest_behind
from bellwire.brokers.nats_link import Link, Message, Unanswered
from bellwire.brokers.nats_streams import SEQUENCE, sequence
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.core.randomness import random_number

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_TTL: Final = "Nats-TTL"
_WRONG_LAST: Final = frozenset((10071, 10164))
"""JetStream's codes for a comparison that failed."""

_VALUE: Final = 1
_TOMBSTONE: Final = 0
_HEAD: Final = struct.Struct(">BdQ")  # kind, when it runs out (infinity: never), the attempt's own bits

_TOMBSTONE_TTL: Final = 60.0
_SPARE_TTL: Final = 5.0
"""Seconds that a message is kept beyond its time: readers judge by the time in it, with fractions of a second, and
the server's expiry is only there to tidy up."""

_ENDS_KEPT: Final = 16_384
"""How many keys' ends are remembered, so that renewing a lease is one question and not two."""

_ATTEMPTS: Final = 8
_parse: Final = msgspec.json.Decoder(dict[str, Any]).decode


class _Stored(NamedTuple):
    """A key's message, whatever it means."""

    revision: int
    kind: int
    ends: float
    attempt: int
    value: bytes


class _Refused(Exception):  # noqa: N818
    """The comparison failed."""


def keys_name(prefix: str) -> str:
    """Return the name of the JetStream stream that holds all keys."""
    return f"{prefix}_keys"


def fence_subject(prefix: str) -> str:
    """Return the subject of their fences (`nats_fence`)."""
    return f"{prefix}.fence.keys"


def keys_config(prefix: str, replicas: int | None = None) -> dict[str, Any]:
    """Return how it is set up. Without markers of deletion: one would make a comparison with 0 fail."""
    return {
        "name": keys_name(prefix),
        "subjects": [f"{prefix}.key.*", fence_subject(prefix)],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": replicas or 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
    }


class Keys:
    """The keys of one prefix; ``link`` waits a little for the connection that stands now, ``clock`` is the broker's."""

    def __init__(
        self, prefix: str, link: Callable[[], Awaitable[Link]], clock: Callable[[], float], fence: Fence
    ) -> None:
        self.replicated = False
        """Whether several servers answer, of which some may lag."""
        self._prefix = prefix
        self._fence = fence
        self._link = link
        self._clock = clock
        self._ends: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def get(self, link: Link, key: str) -> Kept | None:
        """Return what is kept under ``key``, None if there is nothing, or nothing any more."""
        try:
            stored = await self._stored(link, key)
        except Unanswered as error:
            raise BrokerUnavailable(f"no answer from NATS: {error}") from error
        return Kept(stored.value, stored.revision) if stored is not None and self._counts(stored) else None

    async def put(self, link: Link, key: str, value: bytes, *, expected: int | None, ttl: float | None) -> int | None:
        """Keep ``value``, as `Broker.put` says."""
        ends = math.inf if ttl is None else self._clock() + ttl
        keep = None if ttl is None else ttl + _SPARE_TTL
        compare = expected
        if expected and not await self._is_current(link, key, expected):
            return None
        for _ in range(_ATTEMPTS):
            try:
                revision = await self._write(link, key, _VALUE, ends, value, compare, keep)
            except _Refused:
                if expected != 0:
                    return None
                compare = await self._empty(link, key)
                if compare is None:
                    return None
            else:
                self._remember(key, revision, ends)
                return revision
        raise BrokerUnavailable("the key changes faster than it can be compared")

    async def delete(self, link: Link, key: str, *, expected: int | None) -> bool:
        """Remove ``key``, as `Broker.delete` says."""
        for _ in range(_ATTEMPTS):
            try:
                stored = await self._stored(link, key)
            except Unanswered as error:
                raise BrokerUnavailable(f"no answer from NATS: {error}") from error
            if stored is None or not self._counts(stored) or expected not in (None, stored.revision):
                return False
            try:
                await self._write(link, key, _TOMBSTONE, math.inf, b"", stored.revision, _TOMBSTONE_TTL)
            except _Refused:
                continue
            return True
        raise BrokerUnavailable("the key changes faster than it can be compared")

    # --- within

    def _subject(self, key: str) -> str:
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16)
        return f"{self._prefix}.key.{digest.hexdigest()}"

    def _counts(self, stored: _Stored) -> bool:
        return stored.kind == _VALUE and stored.ends > self._clock()

    async def _stored(self, link: Link, key: str) -> _Stored | None:
        name, subject = keys_name(self._prefix), self._subject(key)
        if self.replicated:
            fence = fence_subject(self._prefix)
            newest = await newest_behind(link, name, subject, fence, await self._fence.put(link, fence))
            return None if newest is None else _unpack(newest)
        request = msgspec.json.encode({"last_by_subj": subject})
        message = await link.ask(f"$JS.API.DIRECT.GET.{name}", request)
        if message.status and message.status != "404":
            raise BrokerUnavailable(f"NATS refused a read: {message.status}")
        return None if message.status or SEQUENCE not in message.headers else _unpack(message)

    async def _is_current(self, link: Link, key: str, revision: int) -> bool:
        """Whether this revision is there and has not run out; JetStream compares the first only."""
        known = self._ends.get(key)
        if known is not None and known[0] == revision:
            return known[1] > self._clock()
        kept = await self.get(link, key)
        return kept is not None and kept.revision == revision

    async def _empty(self, link: Link, key: str) -> int | None:
        """Return the number to compare with where nothing must be, None if something is."""
        try:
            stored = await self._stored(link, key)
        except Unanswered as error:
            raise BrokerUnavailable(f"no answer from NATS: {error}") from error
        if stored is None:
            return 0
        return None if self._counts(stored) else stored.revision

    async def _write(
        self, link: Link, key: str, kind: int, ends: float, value: bytes, compare: int | None, keep: float | None
    ) -> int:
        attempt = random_number()
        headers: dict[str, str] = {}
        if compare is not None:
            headers[_EXPECTED] = str(compare)
        if keep is not None:
            headers[_TTL] = str(math.ceil(keep))
        data = _HEAD.pack(kind, ends, attempt) + value
        try:
            return _written(await link.ask(self._subject(key), data, headers))
        except Unanswered:
            return await self._read_back(key, attempt, data, headers)

    async def _read_back(self, key: str, attempt: int, data: bytes, headers: dict[str, str]) -> int:
        """Find out whether an attempt that was not answered was kept; if it was not, make it once more.

        It may still be on its way through the server while it is read back: the second attempt's comparison then
        fails, and whose value stands there tells the rest.
        """
        try:
            link = await self._link()
            stored = await self._stored(link, key)
            if stored is not None and stored.attempt == attempt:
                return stored.revision
            if headers.get(_EXPECTED) != str(0 if stored is None else stored.revision):
                raise OutcomeUnknown(key)  # it may have been kept, and replaced since
            try:
                return _written(await link.ask(self._subject(key), data, headers))
            except _Refused:
                stored = await self._stored(link, key)
                if stored is not None and stored.attempt == attempt:
                    return stored.revision
                raise OutcomeUnknown(key) from None
        except (BrokerUnavailable, Unanswered) as error:
            raise OutcomeUnknown(key) from error

    def _remember(self, key: str, revision: int, ends: float) -> None:
        self._ends[key] = revision, ends
        self._ends.move_to_end(key)
        if len(self._ends) > _ENDS_KEPT:
            self._ends.popitem(last=False)


def _unpack(message: Message) -> _Stored:
    try:
        kind, ends, attempt = _HEAD.unpack_from(message.data)
    except struct.error as error:
        raise BrokerUnavailable("what is kept under the key was not written by Bellwire") from error
    return _Stored(sequence(message), kind, ends, attempt, message.data[_HEAD.size :])


def _written(message: Message) -> int:
    answer = _parse(message.data)
    error = answer.get("error")
    if error is None:
        return int(answer["seq"])
    if error.get("err_code") in _WRONG_LAST:
        raise _Refused
    raise BrokerUnavailable(f"JetStream refused a value: {error.get('description')}")
