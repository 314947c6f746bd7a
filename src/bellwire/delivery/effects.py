"""What a handler may do to the world, and what a crash in the middle of it leaves ("Up: client to server").

::

    effect          stored before   the handler may                  after a crash in the middle
    relay           nothing         only emit; its emits are kept    runs again, as nothing had happened; once its
                                    back until it has returned       record is stored, any node completes it
    transactional   a lease         write in a transaction of its    runs again with the same key: the transaction
                                    own, with the key it is given    decides
    at_most_once    a lease         do anything                      outcome_unknown, never runs again
    at_least_once   a lease         do anything                      runs again, and is told so

Exactly once comes from the first two, because what they do can be told from its double: an emit by its message id, a
transaction by its key. What any other handler did when its process died nobody can know; the third says so, the
fourth does it again.
"""

import hashlib
import re
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

Effect: TypeAlias = Literal["relay", "transactional", "at_most_once", "at_least_once"]
"""The four kinds of handlers, as an application names them."""


class Rule(NamedTuple):
    """One row of the table above."""

    started: bool
    """Whether a lease is stored before the handler runs."""
    again: bool
    """Whether the handler runs again when its lease is over and nothing is on record."""
    keyed: bool
    """Whether the handler is given a key that tells its transaction from a double."""


RULES: Final[dict[Effect, Rule]] = {
    "relay": Rule(started=False, again=True, keyed=False),
    "transactional": Rule(started=True, again=True, keyed=True),
    "at_most_once": Rule(started=True, again=False, keyed=False),
    "at_least_once": Rule(started=True, again=True, keyed=False),
}

DEDUPE_SECONDS: Final = 120.0
"""How long every broker remembers the id of a message, from the moment it was appended."""

APPEND_SECONDS: Final = DEDUPE_SECONDS / 2
"""How long after its record was stored a relay's emissions may be appended, in the broker's time.

The first attempt comes after the record, the last one before this deadline, so two attempts that both reach the
broker are never further apart than the time for which it remembers the first. Half of it is left for clocks."""

PRODUCER_ID: Final = r"^[0-9a-f]{32}$"
"""The pattern of a producer's id: 128 secret random bits in hexadecimal."""

_is_producer_id: Final = re.compile(PRODUCER_ID).fullmatch


class Key(NamedTuple):
    """What names one event for good: a transactional handler stores it, unique, beside what it writes."""

    producer: str
    """The producer's key (`producer_key`)."""
    number: int


class Emission(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One emit of a relay, kept back: ``body`` is encoded; a copy goes to each of ``streams``, in this order."""

    streams: tuple[str, ...]
    body: bytes
    excluded: tuple[str, ...] = ()


def producer_key(principal: str | None, producer_id: str) -> str:
    """Return the name under which a producer is on record: 128 bits in hexadecimal.

    It is made of who authenticated (None: nobody) and the id the client chose, so that no user can read or spoil
    another's outcomes by taking his id.

    Raises:
        ValueError: ``producer_id`` is none (`PRODUCER_ID`).

    """
    if not _is_producer_id(producer_id):
        raise ValueError("a producer's id is 32 lower-case hexadecimal digits")
    owner = b"-" if principal is None else b"+" + principal.encode(errors="surrogatepass")
    return _digest(b"producer", owner, producer_id.encode()).hex()


def message_id(producer: str, number: int, index: int) -> str:
    """Return the id of a relay's emission ``index``: the same one whoever appends it, and however often."""
    return _digest(b"emission", producer.encode(), b"%d" % number, b"%d" % index).hex()


def payload_digest(*parts: bytes) -> bytes:
    """Return what tells one event from another under the same number: 128 bits.

    ``parts`` are the event's name and its payload as the client encoded them, attachments included: a client sends
    the same bytes whenever it sends an event again.
    """
    return _digest(b"payload", *parts)


def _digest(domain: bytes, *parts: bytes) -> bytes:
    """Hash ``parts``, each with its length before it, apart from the hashes of other domains."""
    measured = [piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)]
    return hashlib.sha256(b"bellwire.%s.1%s" % (domain, b"".join(measured))).digest()[:16]
