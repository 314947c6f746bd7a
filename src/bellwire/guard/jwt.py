"""Tokens that say who a client is: JSON Web Tokens (RFC 7519), by the advice of RFC 8725.

What a token says of itself decides nothing. Which algorithms there are was fixed by whoever made the `JWTAuth`, each
key verifies with its own ones only, and ``kid`` is looked up among the keys that are known. Addresses and keys in a
token's header (``jku``, ``x5u``, ``jwk``, ``x5c``) are not looked at.
"""

import logging
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from jwt.algorithms import has_crypto
from jwt.warnings import InsecureKeyLengthWarning

from bellwire.core.errors import ConfigError, TokenRefused
from bellwire.guard.auth import Identity
from bellwire.guard.fetch import MAX_BYTES, FetchError, check_url, fetch
from bellwire.guard.jwks import KeySet, PublicKey

MAX_TOKEN: Final = 8_192
"""Characters of a token; a longer one is refused before anything of it is read."""

MAX_USER: Final = 255
"""Characters of a user's id."""

MAX_LEEWAY: Final = 60.0
"""Seconds by which clocks may differ at most."""

LAST_SECOND: Final = 253_402_300_799
"""The end of the year 9999: what is said to last longer, or to be younger, is taken for that."""

_FAMILIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), "HMAC"),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "EdDSA",
}
"""The algorithms by what their keys are (RFC 7518 §3.1, RFC 8037)."""

ALGORITHMS: Final = tuple(_FAMILIES)
"""All that a token can be signed with."""

logger = logging.getLogger("bellwire.guard")


class JWTAuth:
    """Find out who a client is from the JSON Web Token in ``auth["token"]``: for ``Server(auth=...)``.

    A token must be signed with one of ``algorithms`` and have a time at which it expires (``exp``); ``nbf`` and ``iat``
    hold if they are there. Its connection lasts no longer than it.

    Args:
        key: the secret of HS256, HS384 and HS512, or the public key of all other algorithms as PEM.
        jwks: instead of ``key``, the issuer's set of public keys: an ``https://`` address, ``http://`` on this machine,
            or a file. It is read when the first client comes, and again as the issuer changes its keys.
        algorithms: which signatures count. With ``key``, those of one kind of key.
        audience: whom the token must be for (``aud``), one or several. Without it, a token that says so is refused.
        issuer: who must have issued it (``iss``), one or several.
        leeway: seconds by which the issuer's clock may differ, up to 60.
        user_claim: which claim is the user's id: text of 1 to 255 characters.

    Constructing it touches neither network nor files.

    Raises:
        ConfigError: these cannot go together, or the key is none; the message says what to write. For all but HS256,
            HS384 and HS512 it needs ``pip install "bellwire[crypto]"``.

    """

    def __init__(
        self,
        *,
        key: str | bytes | None = None,
        jwks: str | os.PathLike[str] | None = None,
        algorithms: Sequence[str],
        audience: str | Collection[str] | None = None,
        issuer: str | Collection[str] | None = None,
        leeway: float = 0,
        user_claim: str = "sub",
    ) -> None:
        self._algorithms = _checked_algorithms(algorithms)
        if (key is None) is (jwks is None):
            raise ConfigError("JWTAuth takes either key=... or jwks=...: one place where the keys are")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ConfigError(f"JWTAuth(leeway={leeway!r}): give seconds from 0 to {MAX_LEEWAY:g}")
        if not user_claim:
            raise ConfigError("JWTAuth(user_claim=''): name the claim that has the user's id, such as 'sub'")
        self._audience = _checked_names("audience", audience)
        self._issuer = _checked_names("issuer", issuer)
        self._leeway = float(leeway)
        self._user_claim = user_claim
        self._weak = False
        self._keys = None if jwks is None else _key_set(jwks, self._algorithms)
        self._key = PublicKey(None if key is None else self._checked_key(key), self._algorithms)

    def __repr__(self) -> str:
        return f"JWTAuth(algorithms={list(self._algorithms)!r})"

    async def __call__(self, request: object, payload: Mapping[str, Any]) -> Identity:
        """Return who the client is. Raises `TokenRefused`, and `AuthUnavailable` if there are no keys to go by."""
        token = payload.get("token")
        if token is None:
            raise TokenRefused("token_missing")
        if not isinstance(token, str) or len(token) > MAX_TOKEN or not token.isascii():
            raise TokenRefused("token_invalid")
        try:
            key = await self._key_for(token)
            return self._identity(self._claims(token, key))
        except jwt.ExpiredSignatureError:
            raise TokenRefused("token_expired") from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            logger.debug("a token was refused: %s", type(error).__name__)
            raise TokenRefused("token_invalid") from None

    async def _key_for(self, token: str) -> PublicKey:
        if self._keys is None:
            return self._key
        key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
        if key is None:
            raise jwt.InvalidKeyError("no such key")
        return key

    def _claims(self, token: str, key: PublicKey) -> dict[str, Any]:
        with _silence() if self._weak else nullcontext():
            return jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": ["exp"]},
            )

    def _identity(self, claims: dict[str, Any]) -> Identity:
        user = claims.get(self._user_claim)
        if not isinstance(user, str) or not 0 < len(user) <= MAX_USER:
            raise jwt.InvalidTokenError(f"its claim {self._user_claim!r} names no user")
        user.encode()  # a ValueError: lone surrogates are no text that could go anywhere
        issued = claims.get("iat")
        return Identity(
            user, claims, _second(claims["exp"]) + self._leeway, None if issued is None else _second(issued)
        )

    def _checked_key(self, key: str | bytes) -> Any:
        """Return the key as PyJWT takes it, read once; it has to be right for each of the algorithms."""
        if not isinstance(key, str | bytes):
            raise ConfigError(f"JWTAuth(key=...) takes text or bytes, not {type(key).__name__}")
        families = {_FAMILIES[name] for name in self._algorithms}
        if len(families) > 1:
            raise ConfigError(f"JWTAuth(key=...): no key is for {' and '.join(sorted(families))}; give jwks=...")
        prepared: Any = key
        for name in self._algorithms:
            algorithm = jwt.get_algorithm_by_name(name)
            try:
                prepared = algorithm.prepare_key(prepared)
            except (jwt.PyJWTError, ValueError, TypeError):
                raise ConfigError(f"JWTAuth(key=...): this is no key for {name}; {_WANTED[_FAMILIES[name]]}") from None
            if hasattr(prepared, "private_bytes"):
                raise ConfigError(
                    "JWTAuth(key=...): this is a private key, which only the issuer of tokens should have; give the "
                    "public one: openssl pkey -in private.pem -pubout"
                )
            if algorithm.check_key_length(prepared):
                self._too_short(name)
        return prepared

    def _too_short(self, algorithm: str) -> None:
        if _FAMILIES[algorithm] != "HMAC":
            raise ConfigError(f"JWTAuth(key=...): this key is too short for {algorithm}; RSA takes 2048 bits at least")
        if not self._weak:
            logger.warning("the key of JWTAuth is short: who has a token can guess it; openssl rand -base64 48")
        self._weak = True


_WANTED: Final = {
    "HMAC": "give a secret of 32 random bytes or more, and not a public key",
    "RSA": "give an RSA public key as PEM",
    "EC": "give a public key on the algorithm's curve as PEM",
    "EdDSA": "give an Ed25519 or Ed448 public key as PEM",
}


def _second(time: Any) -> int:
    """Return a time that PyJWT has checked as a number that does not grow without end."""
    return max(0, min(int(time), LAST_SECOND))


@contextmanager
def _silence() -> Iterator[None]:
    """Keep PyJWT from telling what was told when the `JWTAuth` was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        yield


def _checked_algorithms(algorithms: object) -> tuple[str, ...]:
    if isinstance(algorithms, str) or not isinstance(algorithms, Collection) or not algorithms:
        raise ConfigError(f"JWTAuth(algorithms={algorithms!r}): give a list, as algorithms=['HS256']")
    unknown = [name for name in algorithms if name not in _FAMILIES]
    if unknown:
        raise ConfigError(f"JWTAuth(algorithms=...): {unknown[0]!r} is none of {', '.join(_FAMILIES)}")
    families = {_FAMILIES[name] for name in algorithms}
    if "HMAC" in families and len(families) > 1:
        raise ConfigError(
            "JWTAuth(algorithms=...): HS256, HS384 and HS512 do not go with others: whoever knows the public key could "
            "sign with it as a secret"
        )
    if "HMAC" not in families and not has_crypto:
        raise ConfigError(
            f"JWTAuth(algorithms=...): {', '.join(algorithms)} needs the package cryptography: "
            'pip install "bellwire[crypto]"'
        )
    return tuple(dict.fromkeys(algorithms))


def _checked_names(what: str, names: object) -> str | tuple[str, ...] | None:
    """Return what a claim may say, None for anything."""
    if names is None or (isinstance(names, str) and names):
        return names
    if isinstance(names, Collection) and names and all(isinstance(name, str) and name for name in names):
        return tuple(names)
    raise ConfigError(f"JWTAuth({what}={names!r}): give a text that is not empty, or a list of some")


def _key_set(jwks: str | os.PathLike[str], algorithms: tuple[str, ...]) -> KeySet:
    if _FAMILIES[algorithms[0]] == "HMAC":
        raise ConfigError(f"JWTAuth(jwks=...) has public keys, and {algorithms[0]} takes a secret: give key=...")
    source = os.fspath(jwks)
    if not source:
        raise ConfigError("JWTAuth(jwks=''): give an https:// address, or the path of a file")
    if "://" not in source:
        return KeySet(partial(_read_file, Path(source)), source, algorithms)
    check_url(source, "JWTAuth(jwks=...)")
    return KeySet(partial(fetch, source), urlsplit(source)._replace(query="", fragment="").geturl(), algorithms)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        document = file.read(MAX_BYTES + 1)
    if len(document) > MAX_BYTES:
        raise FetchError(f"it has more than {MAX_BYTES} bytes")
    return document
