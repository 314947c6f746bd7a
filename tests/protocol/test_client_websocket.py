"""RFC 6455: what a client does with the frames of a server, and the server with those of a client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import WebSocketError
from bellwire.protocol.client_websocket import ClientWebSocket
from bellwire.protocol.frames import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    build_close,
    build_frame,
    build_text,
    parse_header,
)
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.websocket import CLOSED, CLOSING, OPEN, WebSocket

MASK = bytes.fromhex("37fa213d")
MASKED_HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # section 5.7


def client(*, max_message: int = 1_000_000, max_fragments: int = 1024) -> ClientWebSocket:
    return ClientWebSocket(max_message=max_message, max_fragments=max_fragments, random_bytes=lambda _: MASK)


def failure(data: bytes, ws: ClientWebSocket | None = None) -> int:
    ws = ws or client()
    ws.receive(data)
    assert isinstance(ws.error, WebSocketError)
    assert ws.state == CLOSED
    code = ws.error.close_code
    assert ws.take_outgoing().endswith(build_close(code, ws.error.reason, mask=MASK))
    return code


def test_section_5_7_a_client_masks_hello() -> None:
    assert client().encode("Hello") == MASKED_HELLO


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("letter", ["x", b"x"])
def test_each_side_reads_what_the_other_writes(letter: str | bytes, size: int) -> None:
    ours, theirs, message = client(), WebSocket(max_message=100_000), letter * size
    assert theirs.receive(ours.encode(message)) == [message]
    assert ours.receive(Outgoing(message).frames) == [message]
    assert (ours.error, theirs.error) == (None, None)


def test_every_frame_has_a_mask_of_its_own() -> None:
    masks = iter([b"abcd", b"efgh"])
    ws = ClientWebSocket(max_message=9, random_bytes=lambda size: next(masks) if size == 4 else b"")
    assert [ws.encode("")[2:], ws.encode(b"")[2:]] == [b"abcd", b"efgh"]


def test_masks_are_random_if_nothing_is_said() -> None:
    ws = ClientWebSocket(max_message=9)
    assert len({ws.encode("") for _ in range(20)}) == 20


def test_several_messages_in_any_portions() -> None:
    data = (
        build_text("one")
        + build_frame(BINARY, b"tw", fin=False)
        + build_frame(PING, b"?")
        + build_frame(CONTINUATION, b"o")
        + build_text("ü" * 100)
        + build_frame(BINARY, b"4" * 70_000)
    )
    for step in (1, 7, len(data)):
        ws = client()
        messages = [m for at in range(0, len(data), step) for m in ws.receive(data[at : at + step])]
        assert messages == ["one", b"two", "ü" * 100, b"4" * 70_000]
        assert ws.take_outgoing() == build_frame(PONG, b"?", mask=MASK)


def test_section_5_1_masked_frame_from_a_server_is_1002() -> None:
    assert failure(MASKED_HELLO) == 1002
    assert failure(build_frame(PING, b"", mask=MASK)) == 1002


def test_section_8_1_text_that_is_not_utf8_is_1007() -> None:
    assert failure(build_frame(TEXT, b"abc\xff")) == 1007
    assert failure(build_frame(TEXT, b"a" * 200 + b"\xff")) == 1007


@pytest.mark.parametrize("size", [11, 200, 70_000])
def test_a_message_that_is_too_long_is_1009_before_it_arrives(size: int) -> None:
    assert failure(build_text("x" * size)[:10], client(max_message=10)) == 1009
    assert failure(build_text("x" * size), client(max_message=10)) == 1009


def test_fragments_are_bounded() -> None:
    data = build_frame(TEXT, b"", fin=False) + build_frame(CONTINUATION, b"", fin=False) * 3
    assert failure(data, client(max_fragments=3)) == 1009


def test_section_7_the_client_closes_first() -> None:
    ws = client()
    ws.close(1000)
    assert (ws.state, ws.take_outgoing()) == (CLOSING, build_close(1000, mask=MASK))
    assert ws.receive(build_text("late") + build_close(1000)) == []
    assert (ws.state, ws.close_code, ws.take_outgoing()) == (CLOSED, 1000, b"")


def test_section_7_the_server_closes_first() -> None:
    ws = client()
    assert ws.receive(build_text("last") + build_close(1012)) == ["last"]
    assert (ws.state, ws.close_code) == (CLOSED, 1012)
    assert ws.take_outgoing() == build_close(1012, mask=MASK)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_messages_or_one_failure(portions: list[bytes]) -> None:
    ws = client(max_message=64)
    messages = [message for portion in portions for message in ws.receive(portion)]
    assert all(len(message) <= 64 for message in messages)
    assert (ws.state == CLOSED) == (ws.close_code is not None)
    assert ws.state in (OPEN, CLOSED)


@given(st.binary(max_size=16), st.integers(0, 16))
def test_any_header_is_read_or_refused_and_never_shrinks(data: bytes, cut: int) -> None:
    try:
        header, size = parse_header(data, 0, len(data), 0)
    except WebSocketError:
        return
    early_header, early_size = parse_header(data, 0, min(cut, len(data)), 0)
    assert early_header + early_size <= header + size
    assert header in (2, 4, 10)
