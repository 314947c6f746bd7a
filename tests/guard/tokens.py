"""Keys and tokens for tests, as an issuer would have and make them."""

import base64
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import get_default_algorithms

from bellwire.guard.jwt import JWTAuth

SECRET = "k" * 64
"""Long enough for HS512."""


def private_key(algorithm: str, number: int = 0) -> Any:
    """One of the issuer's private keys for ``algorithm``, the same each time."""
    return _made(algorithm, number)


@cache
def _made(algorithm: str, number: int) -> Any:
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    return ec.generate_private_key(curves[algorithm])


def public_pem(key: Any) -> bytes:
    """Return the public half, as one gives it to ``JWTAuth(key=...)``."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(key: Any) -> bytes:
    """Return the private half, which only the issuer has."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def jwk(algorithm: str, kid: str | None = None, number: int = 0, **more: Any) -> dict[str, Any]:
    """Return the public half of an issuer's key as a member of a set."""
    key = private_key(algorithm, number).public_key()
    member: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(key, as_dict=True)
    member.pop("key_ops", None)
    return member | ({} if kid is None else {"kid": kid}) | more


def key_set(*members: dict[str, Any]) -> bytes:
    """Return a set of keys as it stands at its URL."""
    return json.dumps({"keys": members}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Return what a good token says, with these changes; None takes a claim out."""
    now = int(time.time())
    said = {"sub": "ada", "iat": now, "exp": now + 600} | changed
    return {name: value for name, value in said.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changed: Any) -> str:
    """Return a signed token."""
    return jwt.encode(claims(**changed), key, algorithm, headers)


def unsigned(header: dict[str, Any], said: object, signature: bytes = b"") -> str:
    """Return a token of any content, with any signature."""
    parts = (json.dumps(header).encode(), json.dumps(said).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def secret_auth(**options: Any) -> JWTAuth:
    """Return an authentication by `SECRET`."""
    return JWTAuth(key=SECRET, algorithms=["HS256"], **options)
