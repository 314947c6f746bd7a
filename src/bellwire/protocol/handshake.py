"""The opening handshake, seen from the server (RFC 6455, section 4.2): judge the request, write the 101."""

import binascii
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha1
from typing import Final

from bellwire.core.errors import ProtocolError

# Section 1.3: appended to the client's key, so that only a server that knows WebSocket can answer.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_CHALLENGE_BYTES: Final = 16  # what the key is the base64 of, section 4.1

# RFC 9110, section 5.6.2 (token) and 5.5 (a field value holds no control characters but the tab).
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

UPGRADE_FIELDS: Final = (("upgrade", "websocket"), ("connection", "upgrade"))


_ACCEPTED: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n"
    b"%b\r\n"
)


class HandshakeError(ProtocolError):
    """The request is no opening handshake this server can accept; answer it with ``status``.

    ``headers`` belong into that answer: the ``Upgrade`` or ``Sec-WebSocket-Version`` a 426 must have
    (RFC 9110, section 15.5.22; RFC 6455, section 4.4), the ``Allow`` of a 405.
    """

    code = "handshake_error"

    def __init__(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers: tuple[tuple[str, str], ...] = tuple(headers)

    def __str__(self) -> str:
        return f"{self.message} (status {self.status})"


def accept_key(key: bytes) -> bytes:
    """Return the value of ``Sec-WebSocket-Accept`` for the client's key (section 4.2.2, point 5.4)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def check_upgrade(method: str, http_version: str, headers: Mapping[str, str]) -> bytes:
    """Judge the client's opening handshake (section 4.2.1) and return its ``Sec-WebSocket-Key``.

    ``http_version`` is ``"1.1"``; the names in ``headers`` are in lower case, and values of fields
    that came several times are joined by commas. ``Upgrade`` and ``Connection`` are lists of tokens in
    any case: browsers send ``Connection: keep-alive, Upgrade``.

    Raises HandshakeError: 405 for another method than GET, 426 for a request that asks for no
    WebSocket or for another version than 13, else 400.
    """
    if method != "GET":
        raise HandshakeError(405, "a WebSocket is opened with GET", [("allow", "GET")])
    if not asks_for_websocket(headers):
        raise HandshakeError(426, "the request does not ask for an upgrade to a WebSocket", UPGRADE_FIELDS)
    if http_version != "1.1":
        raise HandshakeError(400, "a WebSocket is opened with HTTP/1.1")
    if "host" not in headers:
        raise HandshakeError(400, "the Host field is missing")
    if headers.get("sec-websocket-version", "").strip() != "13":
        raise HandshakeError(
            426, "the only version of WebSocket here is 13", [*UPGRADE_FIELDS, ("sec-websocket-version", "13")]
        )
    key = headers.get("sec-websocket-key", "").strip().encode(errors="replace")
    if not _is_challenge(key):
        raise HandshakeError(400, "Sec-WebSocket-Key is not the base64 of 16 bytes")
    return key


def build_response(
    key: bytes,
    *,
    subprotocol: str | None = None,
    extensions: str | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the head of the response that opens the WebSocket (section 4.2.2): status 101 to empty line.

    ``subprotocol`` and ``extensions`` are what was chosen among the client's offers; ``headers`` are
    further fields. Raises ValueError for a name or a value that would break the head apart.
    """
    fields = [] if subprotocol is None else [(b"Sec-WebSocket-Protocol", subprotocol.encode("ascii"))]
    if extensions is not None:
        fields.append((b"Sec-WebSocket-Extensions", extensions.encode("ascii")))
    fields.extend(headers)
    for name, value in fields:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise ValueError(f"{name!r}: {value!r} is no header field")
    return _ACCEPTED % (accept_key(key), b"".join([b"%b: %b\r\n" % field for field in fields]))


def asks_for_websocket(headers: Mapping[str, str]) -> bool:
    """Whether the fields of a request or of a response speak of an upgrade to a WebSocket."""
    return has_token(headers, "upgrade", "websocket") and has_token(headers, "connection", "upgrade")


def has_token(headers: Mapping[str, str], name: str, token: str) -> bool:
    """Whether ``token``, in lower case, is in the list of tokens that the field ``name`` holds, in any case."""
    value = headers.get(name, "").lower()
    return value == token or token in [part.strip() for part in value.split(",")]


def _is_challenge(key: bytes) -> bool:
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == _CHALLENGE_BYTES
    except binascii.Error:
        return False
