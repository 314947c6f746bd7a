"""RFC 6455, section 5: what holds for one frame. Examples are those of section 5.7 where there is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import WebSocketError
from bellwire.protocol.frames import (
    BINARY,
    CLOSE_CODES,
    CONTINUATION,
    PING,
    TEXT,
    build_binary,
    build_close,
    build_frame,
    build_text,
    parse_close,
    parse_header,
    unmask,
)

MASK = bytes.fromhex("37fa213d")


def header_of(data: bytes) -> tuple[int, int]:
    return parse_header(data, 0, len(data))


def test_section_5_7_examples_are_built_byte_for_byte() -> None:
    assert build_text("Hello") == bytes.fromhex("810548656c6c6f")
    assert build_frame(TEXT, b"Hel", fin=False) == bytes.fromhex("010348656c")
    assert build_frame(CONTINUATION, b"lo") == bytes.fromhex("80026c6f")
    assert build_frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert build_binary(bytes(256)) == bytes.fromhex("827e0100") + bytes(256)
    assert build_binary(bytes(65536)) == bytes.fromhex("827f0000000000010000") + bytes(65536)


@pytest.mark.parametrize(
    ("size", "length"),
    [(0, "00"), (125, "7d"), (126, "7e007e"), (65535, "7effff"), (65536, "7f0000000000010000")],
)
def test_section_5_2_length_is_written_in_the_shortest_form(size: int, length: str) -> None:
    assert build_text("x" * size) == bytes.fromhex("81" + length) + b"x" * size
    assert build_frame(BINARY, b"x" * size) == bytes.fromhex("82" + length) + b"x" * size


def test_text_is_measured_in_bytes_of_utf8() -> None:
    assert build_text("é" * 63) == b"\x81\x7e\x00\x7e" + "é".encode() * 63


def test_a_lone_surrogate_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        build_text("\ud800")


def test_rfc7692_section_6_first_frame_of_a_compressed_message_has_rsv1() -> None:
    assert build_frame(TEXT, b"", rsv1=True) == b"\xc1\x00"
    assert build_frame(TEXT, b"", fin=False, rsv1=True) == b"\x41\x00"


def test_section_5_5_1_close_frame_holds_code_and_reason() -> None:
    assert build_close(1000) == b"\x88\x02\x03\xe8"
    assert build_close(4999, "grün") == b"\x88\x07\x13\x87" + "grün".encode()
    assert build_close(1005) == b"\x88\x00"


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536])
def test_section_7_4_code_that_may_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="may not be sent"):
        build_close(code)


def test_section_5_5_close_frame_holds_at_most_125_bytes() -> None:
    assert len(build_close(1000, "x" * 123)) == 127
    with pytest.raises(ValueError, match="124 bytes"):
        build_close(1000, "x" * 124)


def test_section_7_1_5_close_without_code_is_1005() -> None:
    assert parse_close(b"") == 1005


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1011, 1012, 1014, 3000, 4999])
def test_section_7_4_codes_a_peer_may_send(code: int) -> None:
    assert parse_close(code.to_bytes(2, "big") + "grün".encode()) == code


@pytest.mark.parametrize("code", sorted({0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535}))
def test_section_7_4_other_codes_from_a_peer_are_1002(code: int) -> None:
    with pytest.raises(WebSocketError) as caught:
        parse_close(code.to_bytes(2, "big"))
    assert caught.value.close_code == 1002


def test_section_5_5_1_half_a_code_is_1002_and_a_reason_must_be_utf8() -> None:
    for payload, code in ((b"\x03", 1002), (b"\x03\xe8\xff", 1007), (b"\x03\xe8\xed\xa0\x80", 1007)):
        with pytest.raises(WebSocketError) as caught:
            parse_close(payload)
        assert caught.value.close_code == code


@given(st.sampled_from(sorted(CLOSE_CODES)), st.text(max_size=30))
def test_close_frames_read_as_they_were_written(code: int, reason: str) -> None:
    frame = build_close(code, reason)
    assert parse_close(frame[2:]) == code
    assert frame[4:].decode() == reason


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("", (2, 0)),
        ("81", (2, 0)),
        ("8185", (6, 5)),
        ("81fe", (8, 0)),
        ("81fe0100", (8, 0)),
        ("81fe010000000000", (8, 256)),
        ("82ff", (14, 0)),
        ("82ff000000000001000000000000", (14, 65536)),
        ("82ff7fffffffffffffff00000000", (14, 2**63 - 1)),
    ],
)
def test_section_5_2_header_tells_its_own_length_and_the_payloads(head: str, expected: tuple[int, int]) -> None:
    assert header_of(bytes.fromhex(head)) == expected


def test_header_is_read_where_it_stands_and_not_beyond_the_end() -> None:
    data = b"xx" + bytes.fromhex("81fe0100") + MASK
    assert parse_header(data, 2, len(data)) == (8, 256)
    assert parse_header(data, 2, 5) == (8, 0)
    assert parse_header(data, 2, 3) == (2, 0)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("8105", id="section 5.1: a client's frame is masked"),
        pytest.param("a180", id="section 5.2: RSV2"),
        pytest.param("9180", id="section 5.2: RSV3"),
        pytest.param("8380", id="section 5.2: opcode 3"),
        pytest.param("8780", id="section 5.2: opcode 7"),
        pytest.param("8b80", id="section 5.2: opcode 11"),
        pytest.param("8f80", id="section 5.2: opcode 15"),
        pytest.param("82ff8000000000000000" + "00000000", id="section 5.2: highest bit of the length"),
        pytest.param("0980", id="section 5.5: fragmented ping"),
        pytest.param("89fe", id="section 5.5: ping longer than 125 bytes"),
        pytest.param("88ff", id="section 5.5: close longer than 125 bytes"),
        pytest.param("c980", id="RFC 7692 section 6.1: compressed ping"),
    ],
)
def test_malformed_header_is_1002(head: str) -> None:
    with pytest.raises(WebSocketError) as caught:
        header_of(bytes.fromhex(head))
    assert caught.value.close_code == 1002


@given(st.binary(max_size=16), st.integers(0, 16))
def test_any_header_is_read_or_refused_and_never_shrinks(data: bytes, cut: int) -> None:
    try:
        header, size = header_of(data)
    except WebSocketError:
        return
    early_header, early_size = parse_header(data, 0, min(cut, len(data)))
    assert early_header + early_size <= header + size
    assert header in (2, 6, 8, 14)


def test_section_5_7_masked_hello() -> None:
    assert unmask(bytes.fromhex("7f9f4d5158"), MASK) == b"Hello"


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 599, 600, 601, 602, 603, 70_001])
def test_section_5_3_every_byte_is_masked_by_its_place(size: int) -> None:
    payload = bytes(place * 7 & 0xFF for place in range(size))
    assert unmask(payload, MASK) == bytes(byte ^ MASK[place & 3] for place, byte in enumerate(payload))


@given(st.binary(max_size=2000), st.binary(min_size=4, max_size=4))
def test_section_5_3_masking_twice_changes_nothing(payload: bytes, mask: bytes) -> None:
    assert unmask(unmask(payload, mask), mask) == payload
