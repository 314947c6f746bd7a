"""RFC 6455: what a server does with the frames of a client. The masking client is in this file."""

import itertools
import random
import sys
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.core.errors import WebSocketError
from bellwire.protocol.deflate import Inflate, Parameters, compress
from bellwire.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    build_close,
    build_frame,
    build_text,
    unmask,
)
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.websocket import CLOSED, CLOSING, OPEN, TRANSITIONS, WebSocket

MASK = bytes.fromhex("37fa213d")
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # section 5.7: a masked text message


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, mask: bytes = MASK) -> bytes:
    """One frame as a client writes it."""
    frame = build_frame(opcode, payload, fin=fin, rsv1=rsv1)
    head = frame[: len(frame) - len(payload)]
    return bytes((head[0], head[1] | 0x80)) + head[2:] + mask + unmask(payload, mask)


def fragmented(opcode: int, *parts: bytes) -> bytes:
    """One message in as many frames as there are parts."""
    last = len(parts) - 1
    return b"".join(
        masked(CONTINUATION if place else opcode, part, fin=place == last) for place, part in enumerate(parts)
    )


def open_socket(*, max_message: int = 1_000_000, max_fragments: int = 1024) -> WebSocket:
    return WebSocket(max_message=max_message, max_fragments=max_fragments)


def compressing() -> WebSocket:
    return WebSocket(max_message=1_000_000, inflate=Inflate(Parameters()))


def packed(payload: bytes) -> bytes:
    return compress(payload, 15)


def bytewise(ws: WebSocket, data: bytes) -> list[str | bytes]:
    return [message for place in range(len(data)) for message in ws.receive(data[place : place + 1])]


def assert_failed(ws: WebSocket, code: int) -> None:
    """Section 7.1.7: the close frame of the failure is the last thing sent."""
    assert ws.error is not None
    assert ws.error.close_code == code
    assert ws.take_outgoing().endswith(build_close(code, ws.error.reason))
    assert (ws.state, ws.close_code) == (CLOSED, 1006)


def failure(data: bytes, ws: WebSocket | None = None) -> int:
    """Feed the data and return the code with which the connection was failed."""
    ws = ws or open_socket()
    ws.receive(data)
    assert ws.error is not None
    assert_failed(ws, ws.error.close_code)
    return ws.error.close_code


# --- messages


def test_section_5_7_masked_hello_is_a_text_message() -> None:
    ws = open_socket()
    assert ws.receive(HELLO) == ["Hello"]
    assert (ws.outgoing, ws.state, ws.error, ws.close_code) == (b"", OPEN, None, None)


def test_section_5_6_text_is_str_and_binary_is_bytes() -> None:
    ws = open_socket()
    assert ws.receive(masked(TEXT, "grün".encode())) == ["grün"]
    assert ws.receive(masked(BINARY, b"\xff\0")) == [b"\xff\0"]
    assert ws.receive(masked(TEXT)) == [""]
    assert ws.receive(masked(BINARY)) == [b""]


@pytest.mark.parametrize("size", [0, 1, 2, 125, 126, 127, 128, 65535, 65536, 100_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_section_5_2_lengths_of_every_form(opcode: int, size: int) -> None:
    for mask in (MASK, bytes(4)):
        message = open_socket().receive(masked(opcode, b"x" * size, mask=mask))
        assert message == [("x" if opcode == TEXT else b"x") * size]


@pytest.mark.parametrize("length", ["fe0005", "ff0000000000000005"])
def test_section_5_2_length_in_a_longer_form_than_needed_is_let_pass(length: str) -> None:
    assert open_socket().receive(b"\x81" + bytes.fromhex(length) + HELLO[2:]) == ["Hello"]


def test_frame_of_133_bytes_with_a_64_bit_length_is_not_taken_for_a_short_one() -> None:
    assert open_socket().receive(masked(TEXT, b"x" * 70_000)[:133]) == []


def test_several_messages_at_once_come_in_order() -> None:
    data = HELLO + masked(BINARY, b"2") + fragmented(TEXT, b"t", b"hr", b"ee") + masked(TEXT, b"4") + HELLO[:7]
    ws = open_socket()
    assert ws.receive(data) == ["Hello", b"2", "three", "4"]
    assert ws.receive(HELLO[7:] + HELLO) == ["Hello", "Hello"]


def test_byte_by_byte_gives_the_same_messages() -> None:
    data = (
        HELLO
        + fragmented(BINARY, b"", b"a" * 200, b"b")
        + masked(PING, b"x" * 125)
        + masked(TEXT, "ü€😀".encode() * 50)
    )
    ws = open_socket()
    assert bytewise(ws, data) == ["Hello", b"a" * 200 + b"b", "ü€😀" * 50]
    assert ws.take_outgoing() == build_frame(PONG, b"x" * 125)


def test_nothing_received_is_nothing() -> None:
    assert open_socket().receive(b"") == []


def test_section_5_4_control_frames_between_fragments_are_answered_at_once() -> None:
    ws = open_socket()
    assert ws.receive(masked(TEXT, b"Hel", fin=False) + masked(PING, b"now")) == []
    assert ws.take_outgoing() == build_frame(PONG, b"now")
    assert ws.receive(masked(CONTINUATION, b"lo")) == ["Hello"]


# --- what is broken, section 7.1.7


def test_section_5_1_frame_without_mask_is_1002() -> None:
    assert failure(build_text("Hello")) == 1002


@pytest.mark.parametrize("first", [0x83, 0x87, 0x8B, 0x8F, 0x91, 0xA1, 0xB1, 0xC1, 0xC2, 0xF1, 0xC9])
def test_section_5_2_reserved_bits_and_opcodes_are_1002(first: int) -> None:
    assert failure(bytes((first, 0x80)) + MASK) == 1002


def test_section_5_2_length_of_2_to_63_is_1002() -> None:
    assert failure(b"\x82\xff\x80" + bytes(7) + MASK) == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_section_5_5_control_frames_are_short_and_whole(opcode: int) -> None:
    assert failure(masked(opcode, b"x" * 126)) == 1002
    assert failure(masked(opcode, b"x", fin=False)) == 1002


def test_section_5_4_continuation_without_a_beginning_is_1002() -> None:
    assert failure(masked(CONTINUATION, b"x")) == 1002
    assert failure(masked(CONTINUATION, b"x", fin=False)) == 1002
    assert failure(fragmented(TEXT, b"a", b"b") + masked(CONTINUATION, b"c")) == 1002


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_section_5_4_message_within_a_message_is_1002(opcode: int, fin: bool) -> None:
    assert failure(masked(TEXT, b"a", fin=False) + masked(opcode, b"b", fin=fin)) == 1002


def test_messages_before_the_fault_are_delivered_and_nothing_behind_it() -> None:
    ws = open_socket()
    assert ws.receive(HELLO + masked(PING, b"p") + build_text("no mask") + HELLO) == ["Hello"]
    assert ws.outgoing.startswith(build_frame(PONG, b"p"))
    assert_failed(ws, 1002)
    assert ws.receive(HELLO) == []
    assert not ws.outgoing


def test_a_failed_connection_keeps_no_trace_of_what_failed_it() -> None:
    ws = open_socket()
    ws.receive(masked(TEXT, b"\xff"))
    assert isinstance(ws.error, WebSocketError)
    assert (ws.error.__context__, ws.error.__traceback__) == (None, None)


# --- UTF-8, section 8.1

NOT_UTF8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\x80", b"\xf0\x9f\x98"]


@pytest.mark.parametrize("payload", NOT_UTF8)
def test_section_8_1_text_that_is_not_utf8_is_1007(payload: bytes) -> None:
    assert failure(masked(TEXT, payload)) == 1007
    assert failure(masked(TEXT, payload * 100)) == 1007
    assert failure(fragmented(TEXT, b"good", payload, b"")) == 1007
    assert failure(HELLO + masked(TEXT, payload)) == 1007


def test_section_8_1_characters_may_be_split_between_fragments() -> None:
    parts = ["😀ü".encode()[place : place + 1] for place in range(6)]
    assert open_socket().receive(fragmented(TEXT, *parts)) == ["😀ü"]


def test_section_8_1_text_may_not_end_within_a_character() -> None:
    ws = open_socket()
    ws.receive(masked(TEXT, b"\xf0\x9f", fin=False))
    assert ws.state == OPEN
    assert failure(masked(CONTINUATION), ws) == 1007


@pytest.mark.parametrize("payload", NOT_UTF8[:5])
def test_section_8_1_fails_at_the_first_impossible_byte(payload: bytes) -> None:
    """The message is neither complete, nor is the fragment, when the fault is in."""
    ws = open_socket()
    frame = masked(TEXT, "κόσμε".encode() + payload + b"more", fin=False)
    assert bytewise(ws, frame[:-4]) == []
    assert_failed(ws, 1007)


def test_section_8_1_binary_and_fragments_of_binary_are_not_looked_at() -> None:
    assert open_socket().receive(fragmented(BINARY, b"\xff", b"\xff")) == [b"\xff\xff"]


# --- control frames, section 5.5


def test_section_5_5_2_ping_is_answered_with_its_payload() -> None:
    ws = open_socket()
    assert ws.receive(masked(PING, b"a") + masked(PING) + masked(PING, b"x" * 125)) == []
    assert ws.take_outgoing() == b"".join(build_frame(PONG, p) for p in (b"a", b"", b"x" * 125))
    assert ws.take_outgoing() == b""


def test_section_5_5_3_pong_needs_no_answer() -> None:
    ws = open_socket()
    assert ws.receive(masked(PONG, b"unasked")) == []
    assert (ws.outgoing, ws.state) == (b"", OPEN)


def test_a_storm_of_pings_is_answered_in_linear_time() -> None:
    ws = open_socket()
    ws.receive(masked(PING) * 200_000)
    assert ws.take_outgoing() == build_frame(PONG, b"") * 200_000


# --- closing, sections 5.5.1 and 7


def test_section_7_every_state_knows_what_to_do_when_we_close() -> None:
    assert {state for state, _ in TRANSITIONS} == {OPEN, CLOSING, CLOSED}
    assert all((state, "we close") in TRANSITIONS for state in (OPEN, CLOSING, CLOSED))


@pytest.mark.parametrize("reason", ["", "done"])
def test_section_5_5_1_close_is_echoed_with_its_code(reason: str) -> None:
    ws = open_socket()
    payload = (3001).to_bytes(2, "big") + reason.encode()
    assert ws.receive(HELLO + masked(CLOSE, payload) + HELLO) == ["Hello"]
    assert ws.take_outgoing() == build_close(3001)
    assert (ws.state, ws.close_code, ws.error) == (CLOSED, 3001, None)


def test_section_7_1_5_close_without_code_is_1005() -> None:
    ws = open_socket()
    assert ws.receive(masked(CLOSE)) == []
    assert ws.take_outgoing() == b"\x88\0"
    assert (ws.state, ws.close_code) == (CLOSED, 1005)


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\x13\x88", b"\0\0"])
def test_section_7_4_malformed_close_is_1002(payload: bytes) -> None:
    assert failure(masked(CLOSE, payload)) == 1002


def test_section_5_5_1_close_reason_must_be_utf8() -> None:
    assert failure(masked(CLOSE, b"\x03\xe8\xff")) == 1007


def test_section_7_1_2_we_close_and_the_peer_answers() -> None:
    ws = open_socket()
    ws.close(1012, "restart")
    assert ws.take_outgoing() == build_close(1012, "restart")
    assert ws.state == CLOSING
    ws.close(1000)
    assert not ws.outgoing
    assert ws.receive(masked(CLOSE, b"\x03\xf4")) == []
    assert (ws.state, ws.close_code, ws.outgoing) == (CLOSED, 1012, b"")
    ws.close()
    assert (ws.state, ws.outgoing) == (CLOSED, b"")


def test_section_1_4_messages_after_our_close_are_ignored_and_pings_answered() -> None:
    ws = open_socket()
    ws.close()
    ws.take_outgoing()
    assert ws.receive(HELLO) == []
    assert ws.receive(HELLO + masked(PING, b"p") + fragmented(TEXT, b"a", b"b")) == []
    assert ws.take_outgoing() == build_frame(PONG, b"p")
    assert ws.state == CLOSING


def test_section_5_5_1_nothing_is_sent_behind_our_close_when_the_peer_fails() -> None:
    ws = open_socket()
    ws.close()
    ws.take_outgoing()
    ws.receive(build_text("no mask"))
    assert (ws.state, ws.outgoing, ws.close_code) == (CLOSED, b"", 1006)
    assert ws.error is not None


@pytest.mark.parametrize(("code", "reason"), [(1005, "x"), (1006, ""), (999, ""), (1000, "x" * 124)])
def test_section_7_4_close_that_may_not_be_sent_changes_nothing(code: int, reason: str) -> None:
    ws = open_socket()
    with pytest.raises(ValueError, match="close"):
        ws.close(code, reason)
    assert (ws.state, ws.outgoing) == (OPEN, b"")
    assert ws.receive(HELLO) == ["Hello"]


# --- limits, section 10.4


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("limit", [10, 125, 126, 70_000])
def test_section_10_4_message_limit_is_exact(limit: int, opcode: int) -> None:
    at_limit, beyond = masked(opcode, b"x" * limit), masked(opcode, b"x" * (limit + 1))
    assert len(open_socket(max_message=limit).receive(at_limit)) == 1
    assert failure(beyond, open_socket(max_message=limit)) == 1009


def test_section_10_4_oversize_is_known_from_the_header() -> None:
    assert failure(masked(BINARY, b"x" * 1001)[:8], open_socket(max_message=1000)) == 1009
    assert failure(b"\x82\xff\x7f" + b"\xff" * 7 + MASK) == 1009


def test_section_10_4_fragments_are_counted_together() -> None:
    assert open_socket(max_message=10).receive(fragmented(BINARY, b"12345", b"67890")) == [b"1234567890"]
    start = masked(BINARY, b"12345", fin=False)
    assert failure(start + masked(CONTINUATION, b"678901")[:6], open_socket(max_message=10)) == 1009


def test_section_10_4_number_of_fragments_is_limited_even_if_they_are_empty() -> None:
    parts = [b""] * 5
    assert open_socket(max_fragments=5).receive(fragmented(BINARY, *parts)) == [b""]
    assert failure(fragmented(BINARY, *parts, b""), open_socket(max_fragments=5)) == 1009


def test_an_idle_connection_is_small() -> None:
    ws = open_socket()
    ws.receive(masked(TEXT, b"x" * 100_000)[:50_000])
    ws.receive(masked(TEXT, b"x" * 100_000)[50_000:])
    assert sys.getsizeof(ws) < 160
    assert ws._incoming is None
    assert ws._rest == b""


def test_memory_follows_what_was_received_and_not_what_was_announced() -> None:
    ws = open_socket(max_message=100_000_000)
    tracemalloc.start()
    try:
        ws.receive(b"\x82\xff\0\0\0\0\x05\xf5\xe1\0" + MASK + b"x" * 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50_000


def test_small_fragments_take_no_more_than_their_bytes() -> None:
    ws = open_socket(max_fragments=100_000)
    data = masked(BINARY, b"x", fin=False) + masked(CONTINUATION, b"x", fin=False) * 50_000
    tracemalloc.start()
    try:
        ws.receive(data)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert ws.state == OPEN
    assert held < 100_000


def test_a_large_message_in_small_pieces_takes_linear_time() -> None:
    """Quadratic work would be some hundred gigabytes of copies here, far past the time limit of a test."""
    payload = b"x" * 16_000_000
    frame = masked(BINARY, payload)
    ws = open_socket(max_message=16_000_000)
    messages = [m for at in range(0, len(frame), 700) for m in ws.receive(frame[at : at + 700])]
    assert messages == [payload]


# --- compression, RFC 7692


def test_rfc7692_section_6_messages_may_be_compressed() -> None:
    ws = compressing()
    for message in ("Hello", "Hello", "", "x" * 100_000):
        assert ws.receive(masked(TEXT, packed(message.encode()), rsv1=True)) == [message]
    assert ws.receive(masked(BINARY, packed(b"\xff"), rsv1=True)) == [b"\xff"]


def test_rfc7692_section_6_messages_may_stay_uncompressed() -> None:
    ws = compressing()
    assert ws.receive(HELLO + masked(TEXT, packed(b"Hello"), rsv1=True) + HELLO) == ["Hello"] * 3


def test_rfc7692_section_7_2_3_1_only_the_first_fragment_has_rsv1() -> None:
    first, second = bytes.fromhex("f248cd"), bytes.fromhex("c9c90700")
    ws = compressing()
    start = masked(TEXT, first, fin=False, rsv1=True)
    assert ws.receive(start + masked(PING) + masked(CONTINUATION, second)) == ["Hello"]
    assert failure(start + masked(CONTINUATION, second, rsv1=True), compressing()) == 1002


def test_rfc7692_section_6_rsv1_without_agreement_is_1002() -> None:
    assert failure(masked(TEXT, bytes.fromhex("f248cdc9c90700"), rsv1=True)) == 1002


def test_rfc7692_damaged_payload_is_1007() -> None:
    assert failure(masked(TEXT, b"\xff\xff\xff", rsv1=True), compressing()) == 1007


def test_rfc7692_text_is_checked_after_decompression() -> None:
    ws = compressing()
    assert failure(masked(TEXT, packed(b"\xff"), rsv1=True), ws) == 1007


def test_rfc7692_section_8_limit_holds_for_the_decompressed_message() -> None:
    bomb = packed(bytes(1_000_001))
    assert len(bomb) < 2000
    assert failure(masked(BINARY, bomb, rsv1=True), compressing()) == 1009


def test_rfc7692_message_at_the_limit_may_be_longer_in_compressed_form() -> None:
    noise = random.Random(7692).randbytes(100_000)
    ws = WebSocket(max_message=len(noise), inflate=Inflate(Parameters()))
    payload = packed(noise)
    assert len(payload) > len(noise)
    assert ws.receive(masked(BINARY, payload, rsv1=True)) == [noise]
    assert failure(masked(BINARY, b"x" * 113_000, rsv1=True)[:14], ws) == 1009


def test_what_a_few_compressed_bytes_become_is_given_bit_by_bit() -> None:
    ws = compressing()
    bomb = masked(BINARY, packed(bytes(1_000_000)), rsv1=True)
    half = masked(BINARY, packed(bytes(500_000)), rsv1=True)
    given: list[list[int]] = [[len(m) for m in ws.receive(bomb * 2 + half * 3 + HELLO)]]
    while ws.more:
        given.append([len(m) for m in ws.receive(b"")])
    assert given == [[1_000_000], [1_000_000], [500_000, 500_000], [500_000, 5]]
    assert ws.fresh


def test_what_is_held_back_is_not_lost_when_more_comes() -> None:
    ws = compressing()
    bomb = masked(BINARY, packed(bytes(1_000_000)), rsv1=True)
    assert len(ws.receive(bomb + HELLO[:3])) == 1
    assert ws.more
    assert ws.receive(HELLO[3:]) == ["Hello"]
    assert not ws.more


def test_a_message_that_has_begun_is_counted_until_it_is_complete() -> None:
    ws = open_socket()
    assert (ws.fresh, ws.unfinished) == (True, 0)
    last = masked(CONTINUATION, b"d")
    ws.receive(masked(TEXT, b"abc", fin=False) + last[:1])
    assert (ws.fresh, ws.unfinished) == (False, 4)
    assert ws.receive(last[1:]) == ["abcd"]
    assert (ws.fresh, ws.unfinished) == (True, 0)


# --- any bytes, any portions

PAYLOADS = (
    st.binary(max_size=60)
    | st.text(max_size=20).map(str.encode)
    | st.sampled_from([b"\x03\xe8", b"x" * 130, packed(b"x" * 101)])
)
FRAMES = st.builds(
    masked,
    st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, 3]),
    PAYLOADS,
    fin=st.booleans(),
    rsv1=st.sampled_from([False, False, False, True]),
    mask=st.binary(min_size=4, max_size=4),
)
STREAMS = st.lists(FRAMES | FRAMES | st.binary(max_size=20), max_size=8).map(b"".join)
LIMITS = st.sampled_from([100, 300])  # with and without lengths that take three bytes


def outcome(data: bytes, cuts: Iterable[int], deflate: bool, limit: int) -> tuple[object, ...]:
    """Feed the data in portions; whatever it is, what is held stays below the limit."""
    ws = WebSocket(max_message=limit, max_fragments=4, inflate=Inflate(Parameters()) if deflate else None)
    messages: list[str | bytes] = []
    most = limit + (limit >> 3) + 64 if deflate else limit
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        messages += ws.receive(data[start:end])
        while ws.more:
            messages += ws.receive(b"")
        assert ws.unfinished <= most + 14 + 125
    assert all(len(m.encode() if isinstance(m, str) else m) <= limit for m in messages)
    error = ws.error and (ws.error.close_code, ws.error.reason)
    return messages, bytes(ws.outgoing), ws.state, ws.close_code, error


@given(STREAMS, st.lists(st.integers(1, 400), max_size=12), st.booleans(), LIMITS)
@example(fragmented(TEXT, b"\xf0\x9f\x98", b"\x80") + HELLO, list(range(1, 60)), False, 100)
@example(masked(TEXT, b"x" * 130) + masked(BINARY, b"x" * 301) + HELLO, [], False, 300)
def test_any_bytes_in_any_portions_give_the_same_messages_and_the_same_end(
    data: bytes, cuts: list[int], deflate: bool, limit: int
) -> None:
    whole = outcome(data, (), deflate, limit)
    assert outcome(data, cuts, deflate, limit) == whole
    assert outcome(data, range(len(data)), deflate, limit) == whole  # and none of them in the short way
    error = whole[4]
    assert error is None or error[0] in (1002, 1007, 1009)  # type: ignore[index]


MESSAGES = st.lists(st.text(max_size=200) | st.binary(max_size=200) | st.just("to and fro " * 50), max_size=6)


@given(MESSAGES, st.booleans(), st.integers(1, 300))
def test_messages_arrive_as_they_were_sent(messages: list[str | bytes], deflate: bool, portion: int) -> None:
    """What is made for a client this side reads as well, once a client's mask is laid over it."""
    peer = compressing() if deflate else open_socket()
    made = map(Outgoing, messages)
    frames = [remasked(message.deflated(12) if deflate else message.frames) for message in made]
    stream = b"".join(frames)
    received = [m for at in range(0, len(stream), portion) for m in peer.receive(stream[at : at + portion])]
    assert received == messages
    assert peer.state == OPEN


def remasked(frame: bytes) -> bytes:
    head = 2 if frame[1] < 126 else 4
    return masked(frame[0] & 0x0F, frame[head:], rsv1=bool(frame[0] & 0x40))
