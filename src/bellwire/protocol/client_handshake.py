"""The opening handshake, seen from the client (RFC 6455, section 4.1): write the request, judge the response."""

import re
import secrets
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Final

from bellwire.core.errors import ProtocolError
from bellwire.protocol.handshake import TOKEN, VALUE, accept_key, asks_for_websocket

MAX_HEAD: Final = 16_384
"""Bytes of a response's head; as much as uvicorn and Node take of a request's."""

# RFC 9112, sections 3.2.1 (a target has no white space) and 4 (the status line).
_TARGET: Final = re.compile(r"/[!-~]*")
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")


class ResponseError(ProtocolError):
    """The response opens no WebSocket; ``status`` is its HTTP status, None if it is no response of HTTP/1.1."""

    code = "response_error"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message if self.status is None else f"{self.message} (status {self.status})"


def new_key() -> bytes:
    """Make a ``Sec-WebSocket-Key``: the base64 of 16 random bytes."""
    return b64encode(secrets.token_bytes(16))


def build_request(host: str, target: str, key: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Return the request that asks for a WebSocket.

    ``host`` is the value of ``Host``, ``target`` the path with its query; ``headers`` are further fields. Raises
    ValueError for what would break the head apart.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError(f"{target!r} is no path: it begins with '/' and is ASCII without white space")
    fields = [
        (b"Host", host.encode("ascii")),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", key),
        (b"Sec-WebSocket-Version", b"13"),
        *headers,
    ]
    for name, value in fields:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            raise ValueError(f"{name!r}: {value!r} is no header field")
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode(), b"".join([b"%b: %b\r\n" % field for field in fields]))


def subprotocols(names: Sequence[str]) -> tuple[bytes, bytes]:
    """The field that offers sub-protocols, the best one first (RFC 6455, section 1.9)."""
    return b"Sec-WebSocket-Protocol", ", ".join(names).encode("ascii")


class Response:
    """The server's response, as it arrives; it holds at most `MAX_HEAD` bytes.

    If sub-protocols were ``offered``, one of them has to be chosen: it is the ``subprotocol`` then.
    """

    __slots__ = ("_head", "_key", "_offered", "subprotocol")

    def __init__(self, key: bytes, offered: Sequence[str] = ()) -> None:
        self._key = key
        self._offered = offered
        self._head = bytearray()
        self.subprotocol: str | None = None

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes; None while the head is not complete, then what came behind it.

        Raises ResponseError if the response does not open the WebSocket that was asked for with ``key``.
        """
        searched = max(0, len(self._head) - 3)
        self._head += data
        end = self._head.find(b"\r\n\r\n", searched)
        if end > MAX_HEAD or (end < 0 and len(self._head) > MAX_HEAD):
            raise ResponseError(f"the head of the response is longer than {MAX_HEAD} bytes")
        if end < 0:
            return None
        self._check(bytes(self._head[:end]))
        return bytes(self._head[end + 4 :])

    def _check(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        found = _STATUS.fullmatch(first)
        if found is None:
            raise ResponseError("the server does not speak HTTP/1.1")
        status = int(found[1])
        if status != 101:
            raise ResponseError("the server opens no WebSocket here", status)
        headers = _parse_fields(lines)
        if not asks_for_websocket(headers):
            raise ResponseError("the response names no upgrade to a WebSocket", status)
        if headers.get("sec-websocket-accept") != accept_key(self._key).decode():
            raise ResponseError("the response was not made for this request", status)
        # Points 5 and 6 of section 4.1: what was not offered cannot have been chosen.
        if headers.get("sec-websocket-extensions"):
            raise ResponseError("the response chooses what was not offered", status)
        self._choose(headers.get("sec-websocket-protocol", ""), status)

    def _choose(self, chosen: str, status: int) -> None:
        if not chosen and not self._offered:
            return
        if chosen not in self._offered:
            what = f"chooses {chosen[:64]!r}, which was not offered" if chosen else "chooses no sub-protocol"
            raise ResponseError(f"the response {what}", status)
        self.subprotocol = chosen


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    """Names in lower case; several fields of one name joined by commas (RFC 9110, section 5.3)."""
    fields: dict[str, str] = {}
    for line in lines:
        field, colon, text = line.partition(b":")
        text = text.strip(b" \t")
        if not colon or not TOKEN.fullmatch(field) or not VALUE.fullmatch(text):
            raise ResponseError("a field of the response is malformed")
        name, value = field.decode().lower(), text.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
