"""The echo for conformance suites: its head, its limits, and the order of what it sends back."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.protocol.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, build_close, build_frame, build_text
from bellwire.protocol.handshake import HandshakeError
from bellwire.testing.echo import MAX_HEAD, Echo, parse_head

REQUEST = (
    b"GET /any/path?at=all HTTP/1.1\r\n"
    b"Host: localhost\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: keep-alive\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)


class RecordingTransport(asyncio.Transport):
    """Keeps what is written; nothing is ever sent."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def take(self) -> bytes:
        written, self.written = self.written, b""
        return written


def connect(request: bytes = REQUEST) -> tuple[Echo, RecordingTransport]:
    echo, transport = Echo(), RecordingTransport()
    echo.connection_made(transport)
    echo.data_received(request)
    return echo, transport


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    frame = build_frame(opcode, payload, fin=fin)
    return bytes((frame[0], frame[1] | 0x80)) + bytes(4) + payload


def test_any_path_is_upgraded() -> None:
    _, transport = connect()
    assert transport.written.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in transport.written
    assert b"Extensions" not in transport.written


def test_compression_is_agreed_with_the_full_window() -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    _, transport = connect(REQUEST[:-2] + offer)
    assert b"Sec-WebSocket-Extensions: permessage-deflate\r\n" in transport.written


def test_head_may_come_in_portions_with_a_message_behind_it() -> None:
    echo, transport = connect(b"")
    for byte in REQUEST:
        echo.data_received(bytes((byte,)))
    assert transport.take().startswith(b"HTTP/1.1 101")
    _, transport = connect(REQUEST + masked(TEXT, b"early"))
    assert transport.written.endswith(b"\r\n\r\n" + build_text("early"))


def test_pongs_come_before_the_message_they_interrupted_and_close_comes_last() -> None:
    echo, transport = connect()
    transport.take()
    first, rest = masked(TEXT, b"a", fin=False), masked(CONTINUATION, b"b")
    echo.data_received(first + masked(PING, b"p") + rest)
    assert transport.take() == build_frame(PONG, b"p") + build_text("ab")
    echo.data_received(masked(TEXT, b"c") + masked(CLOSE, b"\x03\xe8") + masked(TEXT, b"d"))
    assert transport.take() == build_text("c") + build_close(1000)
    assert transport.closed


def test_a_broken_frame_ends_the_connection() -> None:
    echo, transport = connect()
    echo.data_received(build_text("no mask"))
    assert transport.written.endswith(build_close(1002, "frame is not masked"))
    assert transport.closed


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    echo, transport = connect()
    echo.pause_writing()
    assert not transport.reading
    echo.resume_writing()
    assert transport.reading


def test_a_request_that_is_no_handshake_is_refused_with_its_status() -> None:
    _, transport = connect(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"upgrade: websocket\r\n" in transport.written
    assert transport.closed


@pytest.mark.parametrize("tail", [b"", b"\r\n\r\n"])
def test_a_head_without_bounds_is_refused(tail: bytes) -> None:
    _, transport = connect(b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + tail)
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert transport.closed


def test_nothing_is_read_from_a_connection_that_was_refused() -> None:
    echo, transport = connect(b"\r\n\r\n")
    transport.take()
    echo.data_received(REQUEST)
    assert transport.written == b""


def test_rfc9110_section_5_3_fields_that_come_twice_are_joined() -> None:
    method, version, fields = parse_head(b"GET / HTTP/1.1\r\nA: 1\r\na:2")
    assert (method, version, fields) == (b"GET", "1.1", {b"a": b"1, 2"})


@pytest.mark.parametrize("line", [b"no colon", b": no name", b"space : x", b" folded: x"])
def test_rfc9112_section_5_malformed_lines_are_refused(line: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        parse_head(b"GET / HTTP/1.1\r\n" + line)
    assert caught.value.status == 400


@given(st.binary(max_size=200))
def test_any_bytes_for_a_head_are_answered_or_waited_for(data: bytes) -> None:
    _, transport = connect(data + b"\r\n\r\n")
    assert transport.written.startswith(b"HTTP/1.1 4")
    assert transport.closed
