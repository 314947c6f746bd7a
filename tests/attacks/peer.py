"""A client that can do anything wrong: bytes on a TCP connection, and what a good client does with them on request."""

import contextlib
import itertools
import json
import select
import socket
import struct
import zlib
from typing import Any, Self

from bellwire.protocol.frames import BINARY, CLOSE, PING, RSV1, TEXT, build_frame

PATIENCE = 20.0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A client's frame, with a mask of zeros."""
    plain = build_frame(opcode, payload, fin=fin, rsv1=rsv1)
    head = plain[: len(plain) - len(payload)]
    return bytes((head[0], head[1] | 0x80)) + head[2:] + bytes(4) + payload


def upgrade(path: str = "/socket.io/?EIO=4&transport=websocket", fields: str = "") -> bytes:
    """The request for a WebSocket; ``fields`` are further lines, each with its end."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    ).encode("latin-1")


class Ended(Exception):  # noqa: N818 - it is what happened
    """The server has ended the connection."""


class Peer:
    """One connection. What is awaited has `PATIENCE` seconds; closing is never an error."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = itertools.count()
        self._buffer = b""
        self._inflater = zlib.decompressobj(-15)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # --- bytes

    def send(self, data: bytes) -> Self:
        self._socket.sendall(data)
        return self

    def offer(self, data: bytes) -> Self:
        """Send as much as the server takes before it ends the connection."""
        with contextlib.suppress(OSError):
            self._socket.sendall(data)
        return self

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        data, _, self._buffer = self._buffer.partition(end)
        return data + end

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        with contextlib.suppress(Ended):
            while True:
                self._more()
        data, self._buffer = self._buffer, b""
        return data

    def _more(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise Ended
        self._buffer += data

    def listen(self, seconds: float) -> bool:
        """Wait for something to come, at most so long."""
        return bool(self._buffer or select.select([self._socket], [], [], seconds)[0])

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """End the connection with a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    # --- HTTP

    def request(self, data: bytes) -> tuple[int, bytes]:
        """Send a request; the status and body of the answer."""
        self.send(data)
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        status, _, body = self.response()
        return status, body

    def response(self) -> tuple[int, dict[str, str], bytes]:
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        if fields.get("transfer-encoding") == "chunked":
            return status, fields, self._chunks()
        return status, fields, self.read(int(fields.get("content-length", "0")))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.read_until(b"\r\n"), 16):
            body += self.read(size + 2)[:-2]
        self.read(2)
        return body

    def get(self, sid: str = "", fields: str = "", path: str = "/socket.io/") -> tuple[int, bytes]:
        """A request of long-polling."""
        self.send(_head("GET", path, sid, fields))
        return self.answer()

    def post(self, sid: str, body: bytes, fields: str = "") -> tuple[int, bytes]:
        self.send(_head("POST", "/socket.io/", sid, f"Content-Length: {len(body)}\r\n{fields}") + body)
        return self.answer()

    def polling(self) -> str:
        """Open a session of long-polling; its sid."""
        status, body = self.get()
        assert status == 200, body
        sid: str = json.loads(body[1:])["sid"]
        return sid

    # --- WebSocket

    def opened(self, fields: str = "") -> Self:
        self.send(upgrade(fields=fields))
        assert self.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        assert self.text()[:1] == "0"
        return self

    def opened_raw(self, subprotocol: str) -> Self:
        self.send(upgrade("/bellwire", f"Sec-WebSocket-Protocol: {subprotocol}\r\n"))
        assert self.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        return self

    def joined(self, fields: str = "") -> Self:
        self.opened(fields).say("40")
        assert self.text()[:3] == "40{"
        return self

    def say(self, *texts: str) -> Self:
        """Send text messages."""
        return self.send(b"".join([frame(TEXT, text.encode()) for text in texts]))

    def attach(self, *attachments: bytes) -> Self:
        """Send binary messages."""
        return self.send(b"".join([frame(BINARY, data) for data in attachments]))

    def next_frame(self) -> tuple[int, bytes]:
        """The next frame from the server: its opcode and payload."""
        first, size = self.read(2)
        if size == 126:
            size = int.from_bytes(self.read(2), "big")
        elif size == 127:
            size = int.from_bytes(self.read(8), "big")
        payload = self.read(size)
        if first & RSV1:
            payload = self._inflater.decompress(payload + b"\0\0\xff\xff")
        return first & 0x0F, payload

    def text(self) -> str:
        """The next text message but Engine.IO's pings, which are answered."""
        while True:
            opcode, payload = self.next_frame()
            if opcode == CLOSE:
                raise Ended(int.from_bytes(payload[:2], "big"))
            if opcode == TEXT and payload != b"2":
                return payload.decode()
            if payload == b"2":
                self.say("3")

    def ends(self) -> int | None:
        """Wait until the server ends the connection; the code of its close frame, None if there is none."""
        try:
            while True:
                opcode, payload = self.next_frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big") if payload else 1005
                if opcode == TEXT and payload == b"2":
                    self.offer(frame(TEXT, b"3"))
        except Ended:
            return None
        finally:
            self.close()

    def ping(self) -> None:
        """Check that it is still a WebSocket."""
        self.send(frame(PING, b"still there"))
        opcode, payload = self.next_frame()
        assert (opcode, payload) == (PING + 1, b"still there")

    # --- Socket.IO

    def call(self, event: str, *args: Any) -> Any:
        """Emit an event and return what it is answered with; other events are passed over."""
        number = next(self._numbers)
        self.say(f"42{number}{json.dumps([event, *args])}")
        return self.reply(number)

    def reply(self, number: int) -> Any:
        head = f"43{number}["
        while True:
            text = self.text()
            if text.startswith(head):
                args = json.loads(text[len(head) - 1 :])
                return args[0] if args else None


def _head(method: str, path: str, sid: str, fields: str) -> bytes:
    query = "?EIO=4&transport=polling" + (f"&sid={sid}" if sid else "")
    return f"{method} {path}{query} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode("latin-1")
