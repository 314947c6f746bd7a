"""As much of WebSocket and Socket.IO as a load generator needs, for text messages of a client."""

import json

MASK = b"\x37\xfa\x21\x3d"  # any key but zero, so that the server has the work of unmasking (RFC 6455, 5.3)
TEXT, CLOSE = 1, 8
OPEN, PING, PONG = b"0", b"2", b"3"  # Engine.IO packets
CONNECT, CONNECT_ERROR, EVENT, ACK = b"40", b"44", b"42", b"43"  # Socket.IO packets in Engine.IO messages


def request(host: str, port: int) -> bytes:
    """The opening handshake, straight to the WebSocket transport."""
    return (
        f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}:{port}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YmVsbHdpcmUgYmVuY2ggIQ==\r\n\r\n"
    ).encode()


def masked(payload: bytes) -> bytes:
    """One text frame from a client (RFC 6455, 5.2); up to 65,535 bytes."""
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else bytes([0x81, 0xFE]) + size.to_bytes(2, "big")
    key = (MASK * (size // 4 + 1))[:size]
    return head + MASK + (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def event(name: str, text: str, ack: int | None = None) -> bytes:
    """A Socket.IO event with one text, as a frame from a client."""
    number = "" if ack is None else str(ack)
    return masked(EVENT + number.encode() + json.dumps([name, text], separators=(",", ":")).encode())


def unmasked(payload: bytes) -> bytes:
    """One text frame from a server; up to 65,535 bytes."""
    size = len(payload)
    head = bytes([0x81, size]) if size < 126 else bytes([0x81, 126]) + size.to_bytes(2, "big")
    return head + payload


def split(inbox: bytearray) -> list[tuple[int, bytes]]:
    """Take all complete frames of a server out of ``inbox``, as pairs of opcode and payload."""
    frames, at = [], 0
    while len(inbox) - at >= 2:
        start, size = at + 2, inbox[at + 1] & 0x7F
        if size >= 126:
            width = 2 if size == 126 else 8
            start, size = start + width, int.from_bytes(inbox[start : start + width], "big")
        if len(inbox) < start + size:
            break
        frames.append((inbox[at] & 0x0F, bytes(inbox[start : start + size])))
        at = start + size
    del inbox[:at]
    return frames
