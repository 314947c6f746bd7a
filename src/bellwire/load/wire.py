"""As much of WebSocket as a load generator needs: the frames of a client, and those of a server."""

import zlib
from typing import Final, NamedTuple

MASK = b"\x37\xfa\x21\x3d"  # any key but zero, so that the server has the work of unmasking (RFC 6455, 5.3)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_COMPRESSED: Final = 0x40  # RSV1 (RFC 7692, 6)
_TAIL: Final = b"\0\0\xff\xff"  # is left out at the end of compressed messages (RFC 7692, 7.2.1)


class Frame(NamedTuple):
    """A frame of a server: its opcode, its payload, and how many bytes it was on the wire."""

    opcode: int
    payload: bytes
    size: int


def request(host: str, port: int, target: str, *lines: str) -> bytes:
    """The opening handshake (RFC 6455, 4.1), with more lines for its head."""
    head = (
        f"GET {target} HTTP/1.1",
        f"Host: {host}:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: YmVsbHdpcmUgYmVuY2ggIQ==",
        *lines,
    )
    return ("\r\n".join(head) + "\r\n\r\n").encode()


def masked(payload: bytes, opcode: int = TEXT) -> bytes:
    """One frame from a client (RFC 6455, 5.2); up to 65,535 bytes."""
    size = len(payload)
    first = 0x80 | opcode
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE]) + size.to_bytes(2, "big")
    key = (MASK * (size // 4 + 1))[:size]
    return head + MASK + (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def unmasked(payload: bytes, opcode: int = TEXT) -> bytes:
    """One frame from a server; up to 65,535 bytes."""
    size = len(payload)
    first = 0x80 | opcode
    head = bytes([first, size]) if size < 126 else bytes([first, 126]) + size.to_bytes(2, "big")
    return head + payload


def framed(size: int) -> int:
    """How long the frame of a payload of ``size`` bytes is, from a server."""
    return size + (2 if size < 126 else 4 if size < 1 << 16 else 10)


def split(inbox: bytearray) -> list[Frame]:
    """Take all complete frames of a server out of ``inbox``, inflated if they came without context takeover."""
    frames, at = [], 0
    while len(inbox) - at >= 2:
        start, size = at + 2, inbox[at + 1] & 0x7F
        if size >= 126:
            width = 2 if size == 126 else 8
            start, size = start + width, int.from_bytes(inbox[start : start + width], "big")
        if len(inbox) < start + size:
            break
        payload = bytes(inbox[start : start + size])
        if inbox[at] & _COMPRESSED:
            payload = zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + _TAIL)
        frames.append(Frame(inbox[at] & 0x0F, payload, start + size - at))
        at = start + size
    del inbox[:at]
    return frames


class Counter:
    """Counts the frames of a server whose payloads have more than ``small`` bytes, in bytes that come in pieces.

    With an ``opcode`` it counts those only that have it.
    """

    def __init__(self, small: int, opcode: int | None = None) -> None:
        self._small = framed(small)
        self._opcode = opcode
        self._left = 0  # of the frame that began
        self._counts = False  # whether it counts
        self._head = b""  # the beginning of a frame whose size is not known yet

    def feed(self, data: bytes) -> int:
        """Return how many were completed by these bytes."""
        if self._head:
            data, self._head = self._head + data, b""
        done, at, end = 0, self._left, len(data)
        while at <= end:
            done += self._counts
            head = data[at : at + 10]
            size = _size(head)
            if size == 0:
                self._head, self._left, self._counts = head, 0, False
                return done
            self._counts = size > self._small and self._opcode in (None, head[0] & 0x0F)
            at += size
        self._left = at - end
        return done


def _size(head: bytes) -> int:
    """How long the frame is that begins so, its head included; 0 if that is not known yet."""
    if len(head) < 2:
        return 0
    size = head[1] & 0x7F
    if size < 126:
        return size + 2
    width = 2 if size == 126 else 8
    return int.from_bytes(head[2 : 2 + width], "big") + 2 + width if len(head) >= 2 + width else 0
