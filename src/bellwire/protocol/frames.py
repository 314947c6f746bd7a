"""WebSocket frames: their header, their mask, and the frames that each side writes (RFC 6455, section 5).

A frame on the wire (section 5.2)::

    byte 0      FIN 0x80 | RSV1 0x40 | RSV2 0x20 | RSV3 0x10 | opcode 0x0F
    byte 1      MASK 0x80 | length 0x7F; 126: two more bytes of length, 127: eight more
    then        the mask, four bytes, in the client's direction only (section 5.3)
    then        the payload

Only what holds for a single frame is judged here; what a frame may follow is for ``websocket``.
"""

import struct
from typing import Final

from bellwire.core.errors import WebSocketError

try:  # in C, eight times as fast for a short message and thirty times for a long one
    from websockets.speedups import apply_mask
except ImportError:  # built without its extension
    from websockets.utils import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN: Final = 0x80
RSV1: Final = 0x40
MASK: Final = 0x80  # of the second byte
CONTROL: Final = 0x8  # the bit that control opcodes have in common, section 5.5

OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

# Section 7.4.1, the codes that may be on the wire (1004, 1005, 1006 and 1015 may not); 1012 to 1014
# are later entries of IANA's registry. Section 7.4.2 leaves 3000 to 4999 to libraries and applications.
CLOSE_CODES: Final = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))

MAX_CONTROL_PAYLOAD: Final = 125  # bytes, section 5.5

unmask: Final = apply_mask
"""``unmask(payload, mask)``: take the four bytes of a mask off (section 5.3). To put it on is the same."""

_SHORT: Final = 126  # payloads below it have their length in the second byte
_MEDIUM: Final = 65536  # payloads below it have it in two more bytes
_pack_medium: Final = struct.Struct("!BBH").pack
_TEXT_HEADS: Final = tuple(bytes((FIN | TEXT, size)) for size in range(_SHORT))


def build_frame(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False, mask: bytes = b"") -> bytes:
    """Return one frame, its length in the shortest form (section 5.2).

    ``mask`` is the four bytes of a client's frame (section 5.3), new for every frame and not to be foreseen;
    without them it is a server's. ``rsv1`` marks the first frame of a compressed message (RFC 7692, section 6).
    """
    first = opcode | (FIN if fin else 0) | (RSV1 if rsv1 else 0)
    size = len(payload)
    masked = 0
    if mask:
        masked, payload = MASK, mask + unmask(payload, mask)
    if size < _SHORT:
        return bytes((first, masked | size)) + payload
    if size < _MEDIUM:
        return _pack_medium(first, masked | 126, size) + payload
    return struct.pack("!BBQ", first, masked | 127, size) + payload


def build_text(text: str) -> bytes:
    """Return ``text`` as one unfragmented text frame; a lone surrogate is a UnicodeEncodeError."""
    return frame_text(text.encode())


def frame_text(payload: bytes) -> bytes:
    """Return a text that is UTF-8 already as one unfragmented text frame."""
    size = len(payload)
    if size < _SHORT:
        return _TEXT_HEADS[size] + payload
    if size < _MEDIUM:
        return _pack_medium(FIN | TEXT, 126, size) + payload
    return build_frame(TEXT, payload)


def build_binary(data: bytes) -> bytes:
    """Return ``data`` as one unfragmented binary frame."""
    return build_frame(BINARY, data)


def build_close(code: int, reason: str = "", *, mask: bytes = b"") -> bytes:
    """Return a close frame (section 5.5.1); 1005, "no code was given", makes its payload empty.

    Raises ValueError for a code that may not be sent (section 7.4) and for a reason of more than 123
    bytes of UTF-8: a control frame holds 125, the code takes two.
    """
    if code == 1005 and not reason:
        return build_frame(CLOSE, b"", mask=mask)
    if code not in CLOSE_CODES:
        raise ValueError(f"close code {code} may not be sent: use 1000-1003, 1007-1014 or 3000-4999")
    payload = code.to_bytes(2, "big") + reason.encode()
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a close reason of {len(payload) - 2} bytes: at most 123 bytes of UTF-8 fit")
    return build_frame(CLOSE, payload, mask=mask)


def parse_close(payload: bytes) -> int:
    """Return the code of a close frame's payload, 1005 if it is empty (section 7.1.5).

    Raises WebSocketError: 1002 for half a code or one that may not be sent, 1007 for a reason that is
    no UTF-8.
    """
    if not payload:
        return 1005
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or code not in CLOSE_CODES:
        raise WebSocketError(1002, "invalid close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError(1007, "close reason is not UTF-8") from None
    return code


def parse_header(data: bytes, start: int, end: int, mask: int = MASK) -> tuple[int, int]:
    """Read a frame's header at ``data[start:end]``: ``(bytes of header, bytes of payload)``.

    ``mask`` is MASK for a client's frame, whose header ends with the four bytes of its mask, and 0 for a server's.

    The frame is complete when ``end - start`` reaches the sum of the two. While the header itself is
    incomplete the payload counts as empty, so that the sum is what to wait for at the least; nothing
    is read beyond ``end``. Faults are found as early as they can be.

    Raises WebSocketError(1002): RSV2 or RSV3, an unknown opcode, no mask on a client's frame or one on a
    server's (section 5.1), a control frame that is fragmented, longer than 125 bytes (section 5.5) or
    marked as compressed (RFC 7692, section 6.1), a length of 2^63 or more (section 5.2). RSV1 of other
    frames is judged by who knows the extensions. A length in a longer form than needed is let pass: section
    5.2 forbids to send it, and asks no receiver to look.
    """
    if end - start < 2:
        return 2, 0
    first = data[start]
    opcode = first & 0x0F
    size = data[start + 1] ^ mask
    if size & MASK:
        raise WebSocketError(1002, "frame is not masked" if mask else "frame is masked")
    if first & 0x30 or opcode not in OPCODES:
        raise WebSocketError(1002, "reserved bits or opcode")
    if opcode & CONTROL and (size > MAX_CONTROL_PAYLOAD or first & (FIN | RSV1) != FIN):
        raise WebSocketError(1002, "control frame is fragmented, compressed or too long")
    key = 4 if mask else 0
    if size < 126:
        return 2 + key, size
    width = 2 if size == 126 else 8
    header = 2 + width + key
    if end - start < header:
        return header, 0
    size = int.from_bytes(data[start + 2 : start + 2 + width], "big")
    if size >> 63:
        raise WebSocketError(1002, "length has its highest bit set")
    return header, size
