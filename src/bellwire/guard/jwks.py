"""The public keys of an issuer of tokens: a JSON Web Key Set (RFC 7517 §5) at a URL, or in a file.

When the set is read again::

    it is                                         a token asks for a key            then
    not there                                     any                               it is read; nothing without it
    younger than `FRESH_SECONDS`                  that is in it                     nothing
    younger than `FRESH_SECONDS`                  that is not in it                 it is read: the issuer has a new one
    older                                         any                               it is read
    there, and cannot be read                     any                               the keys of before are kept

It is never read twice within `PAUSE_SECONDS`, whatever tokens ask for: clients make up the names of keys as they like.
Whoever wants a key while the set is read waits for that, `PATIENCE_SECONDS` at most, unless the key is there and the
read before has failed, or has not ended in that time. A client that leaves meanwhile does not end it.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import jwt
import msgspec

from bellwire.core.errors import AuthUnavailable
from bellwire.guard.fetch import FetchError

FRESH_SECONDS: Final = 300.0
"""For so long the set counts as what the issuer says: a key that it took out is good for no longer."""

PAUSE_SECONDS: Final = 10.0
"""Between the beginnings of two reads at least."""

PATIENCE_SECONDS: Final = 5.0
"""For a read: it has deadlines of its own, but not for finding out where the host is (getaddrinfo has none)."""

MAX_KEYS: Final = 64
"""Of a set; what comes behind them is left out."""

logger = logging.getLogger("bellwire.guard")

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode

ALGORITHMS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""What a key of a set verifies, by its ``kty`` and ``crv`` (RFC 7518 §3.1, RFC 8037 §3.1). None of it is symmetric."""


class PublicKey(NamedTuple):
    """A key, and the algorithms that it is for."""

    key: Any
    algorithms: tuple[str, ...]


class KeySet:
    """The keys of one issuer that can verify tokens of ``algorithms``.

    ``read`` returns the document; it is called in a thread, and raises `FetchError` or OSError. ``source`` names it in
    the log. ``patience`` is how many seconds it may keep those waiting who want a key.
    """

    __slots__ = ("_algorithms", "_begun", "_failed", "_keys", "_patience", "_read", "_reading", "_since", "_source")

    def __init__(
        self,
        read: Callable[[], bytes],
        source: str,
        algorithms: Collection[str],
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._read = read
        self._source = source
        self._algorithms = algorithms
        self._patience = patience
        self._keys: Mapping[str, PublicKey] | None = None
        self._since = self._begun = -math.inf  # when the set was read, and when the newest read began
        self._reading: asyncio.Future[bytes] | None = None
        self._failed = ""  # why it could not be read last time

    async def find(self, kid: str | None) -> PublicKey | None:
        """Return the key named ``kid``, None if there is none; without a name, the only key of the set.

        Raises:
            AuthUnavailable: the set was never read.

        """
        found = self._lookup(kid)
        if found is None or not self._within(self._since, FRESH_SECONDS):
            reading = self._renew()
            if reading is not None and (found is None or not self._failed):
                ended, _ = await asyncio.wait((reading,), timeout=self._patience)
                if not ended:
                    self._fail(f"it takes more than {self._patience:g} seconds")
                found = self._lookup(kid)
        if self._keys is None:
            raise AuthUnavailable(f"the keys at {self._source} cannot be read")
        return found

    def _lookup(self, kid: str | None) -> PublicKey | None:
        keys = self._keys or {}
        if kid is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(kid)

    def _within(self, since: float, seconds: float) -> bool:
        """Whether that was in the last ``seconds``. What another event loop's clock has said, it was not."""
        return 0 <= asyncio.get_running_loop().time() - since < seconds

    def _renew(self) -> "asyncio.Future[bytes] | None":
        """Begin to read, unless that is under way; None if it is too early."""
        loop = asyncio.get_running_loop()
        reading = self._reading
        if reading is None or reading.get_loop() is not loop:
            if self._within(self._begun, PAUSE_SECONDS):
                return None
            self._begun = loop.time()
            reading = self._reading = loop.run_in_executor(None, self._read)
            reading.add_done_callback(self._came)
        return reading

    def _came(self, reading: "asyncio.Future[bytes]") -> None:
        """Take what was read, though nobody waits for it any more."""
        if reading is self._reading:
            self._reading = None
        if reading.cancelled():
            return
        try:
            keys = usable_keys(reading.result(), self._algorithms)
        except (FetchError, OSError, ValueError) as error:
            self._fail(str(error)[:200])
            return
        if self._failed:
            logger.warning("the keys at %s can be read again", self._source)
        self._failed = ""
        self._keys, self._since = keys, reading.get_loop().time()

    def _fail(self, why: str) -> None:
        if self._failed != why:  # told once, until it is another fault, or none
            kept = "" if self._keys is None else "; those of before are kept"
            logger.warning("the keys at %s cannot be read: %s%s", self._source, why, kept)
        self._failed = why


def usable_keys(document: bytes, algorithms: Collection[str]) -> dict[str, PublicKey]:
    """Return the keys of a set by their names; those without one by their place.

    Raises:
        ValueError: it is no set, or there is no key in it for any of ``algorithms``.

    """
    found: dict[str, PublicKey] = {}
    try:
        members = _decode(document).get("keys")
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"this is no JSON Web Key Set: {error}") from None
    for place, member in enumerate(members[:MAX_KEYS] if isinstance(members, list) else ()):
        key = _public_key(member, algorithms) if isinstance(member, dict) else None
        if key is not None:
            kid = member.get("kid")
            found.setdefault(kid if isinstance(kid, str) else f"\0{place}", key)
    if not found:
        raise ValueError(f"there is no public key in it for {', '.join(algorithms)}")
    return found


def _public_key(member: Mapping[str, Any], algorithms: Collection[str]) -> PublicKey | None:
    """Return a member of a set as a key, None for one that verifies no token of ``algorithms``."""
    if member.get("use", "sig") != "sig" or "d" in member:  # whoever publishes a private key has lost it
        return None
    kty, crv = str(member.get("kty")), str(member.get("crv", ""))
    possible = [name for name in ALGORITHMS.get((kty, "" if kty == "RSA" else crv), ()) if name in algorithms]
    if "alg" in member:
        possible = [name for name in possible if name == member["alg"]]
    if not possible:
        return None
    algorithm = jwt.get_algorithm_by_name(possible[0])
    try:
        key = algorithm.from_jwk(dict(member))
        too_short = algorithm.check_key_length(key)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    return None if too_short else PublicKey(key, tuple(possible))
