"""RFC 7692: which offers are accepted, and what goes through the two compressors."""

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.errors import WebSocketError
from bellwire.protocol.deflate import Inflate, Parameters, compress, extend, negotiate

TEXT = b"to and fro and to and fro, " * 20


def answer(offer: str, *, max_window_bits: int = 15) -> str | None:
    """What is answered beside that no message of ours refers to another."""
    agreed = negotiate(offer, max_window_bits=max_window_bits)
    if agreed is None:
        return None
    name, unasked, *more = agreed[1].split("; ")
    assert (name, unasked) == ("permessage-deflate", "server_no_context_takeover")
    return "; ".join([name, *more])


def agreed_on(offer: str) -> Inflate:
    agreed = negotiate(offer, max_window_bits=15)
    assert agreed is not None
    return agreed[0]


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def final_stream(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush(zlib.Z_FINISH)


def close_code_of(inflate: Inflate, payload: bytes, limit: int) -> int:
    with pytest.raises(WebSocketError) as caught:
        inflate.decompress(payload, limit)
    return caught.value.close_code


# --- negotiation


def test_no_offer_and_other_extensions_are_no_agreement() -> None:
    assert negotiate(None) is None
    assert answer("") is None
    assert answer("x-webkit-deflate-frame, permessage-bzip2; a=b") is None


def test_section_7_1_offer_without_parameters_is_accepted_as_it_is() -> None:
    assert answer("permessage-deflate") == "permessage-deflate"


def test_the_default_windows_are_of_4_kib() -> None:
    assert answer("permessage-deflate; client_max_window_bits", max_window_bits=12) == (
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    )
    agreed = negotiate("permessage-deflate; client_max_window_bits")
    assert agreed is not None
    assert agreed[0].parameters == Parameters(server_max_window_bits=12, client_max_window_bits=12)


def test_section_7_1_1_1_our_messages_refer_to_no_other_asked_or_unasked() -> None:
    for offer in ("permessage-deflate", "permessage-deflate; server_no_context_takeover"):
        assert negotiate(offer, max_window_bits=15) is not None
        assert answer(offer) == "permessage-deflate"


def test_section_7_1_1_2_a_client_that_starts_each_message_afresh_is_told_so() -> None:
    offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
    assert answer(offer) == "permessage-deflate; client_no_context_takeover"


@pytest.mark.parametrize(
    ("asked", "ours", "agreed"), [("10", 15, "10"), ("15", 15, "15"), ("15", 9, "9"), ("8", 12, "8")]
)
def test_section_7_1_2_windows_are_the_smaller_of_the_two_wishes(asked: str, ours: int, agreed: str) -> None:
    offer = f"permessage-deflate; server_max_window_bits={asked}; client_max_window_bits={asked}"
    assert (
        answer(offer, max_window_bits=ours)
        == f"permessage-deflate; server_max_window_bits={agreed}; client_max_window_bits={agreed}"
    )


def test_section_7_1_2_2_clients_window_is_not_named_if_it_did_not_name_it() -> None:
    assert answer("permessage-deflate", max_window_bits=10) == "permessage-deflate; server_max_window_bits=10"
    agreed = negotiate("permessage-deflate", max_window_bits=10)
    assert agreed is not None
    assert agreed[0].parameters.client_max_window_bits == 15


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param("server_max_window_bits=7", id="bits below 8"),
        pytest.param("server_max_window_bits=16", id="bits above 15"),
        pytest.param("server_max_window_bits=09", id="leading zero"),
        pytest.param("client_max_window_bits=١٢", id="digits of another script"),
        pytest.param("client_max_window_bits=x", id="no number"),
        pytest.param("client_max_window_bits=", id="no value behind the sign"),
        pytest.param("server_max_window_bits", id="value missing"),
        pytest.param("server_no_context_takeover=1", id="value that must not be"),
        pytest.param("client_no_context_takeover; client_no_context_takeover", id="twice"),
        pytest.param("client_max_window_bits; client_max_window_bits=9", id="twice, with and without value"),
        pytest.param("x", id="unknown"),
        pytest.param("", id="empty"),
        pytest.param('client_max_window_bits="10', id="quote left open"),
        pytest.param("client max", id="two words"),
    ],
)
def test_section_7_1_impossible_offer_is_declined_and_the_next_considered(parameters: str) -> None:
    offer = f"permessage-deflate; {parameters}"
    assert answer(offer) is None
    assert answer(f"{offer}, permessage-deflate") == "permessage-deflate"


def test_section_5_first_acceptable_offer_wins() -> None:
    offer = (
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10, "
        "permessage-deflate; client_max_window_bits"
    )
    assert answer(offer) == "permessage-deflate; server_max_window_bits=10"


def test_rfc6455_section_9_1_values_may_be_quoted_and_spaced() -> None:
    offer = 'permessage-deflate ;\tclient_max_window_bits = "10" ; server_no_context_takeover'
    assert answer(offer) == "permessage-deflate; client_max_window_bits=10"


@given(st.text(alphabet='permssag-dflt;,="_ cvowinbx0189\t', max_size=80))
def test_any_field_is_accepted_or_declined(tail: str) -> None:
    agreed = negotiate("permessage-deflate" + tail)
    assert agreed is None or agreed[1].startswith("permessage-deflate")


# --- compression


def test_section_7_2_3_1_hello_is_compressed_as_in_the_example_every_time() -> None:
    assert compress(b"Hello", 15) == compress(b"Hello", 12) == bytes.fromhex("f248cdc9c90700")


def test_section_7_2_3_6_empty_message_is_one_byte() -> None:
    assert compress(b"", 12) == b"\0"


@given(st.binary(max_size=300), st.binary(max_size=300) | st.just(os.urandom(70_000)))
def test_section_7_2_3_5_a_message_goes_on_in_stored_blocks(begin: bytes, rest: bytes) -> None:
    extended = extend(compress(begin, 12), rest)
    assert agreed_on("permessage-deflate").decompress(extended, len(begin + rest)) == begin + rest


@pytest.mark.parametrize("bits", range(8, 16))
def test_section_7_1_2_1_no_reference_reaches_behind_the_window(bits: int) -> None:
    """Taken out byte by byte, zlib refuses a reference that its own window does not hold."""
    block = os.urandom(2**bits + 20)
    message = block[:100] * 2 + block + block + b"a" * 600
    rest = compress(message, bits) + b"\0\0\xff\xff"
    decompressor = zlib.decompressobj(wbits=-bits)
    parts = []
    while rest:
        parts.append(decompressor.decompress(rest, 1))
        rest = decompressor.unconsumed_tail
    parts.append(decompressor.flush())
    assert b"".join(parts) == message


# --- decompression


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("f248cdc9c90700", id="section 7.2.3.1: one block"),
        pytest.param("000500faff48656c6c6f00", id="section 7.2.3.3: a block without compression"),
        pytest.param("f348cdc9c9070000", id="section 7.2.3.4: a final block"),
        pytest.param("f248050000 00ffffcac9c90700", id="section 7.2.3.5: two blocks"),
    ],
)
def test_section_7_2_3_examples_are_hello(payload: str) -> None:
    assert agreed_on("permessage-deflate").decompress(bytes.fromhex(payload), 5) == b"Hello"


def test_section_7_2_3_2_context_of_the_peer_is_kept() -> None:
    deflate = agreed_on("permessage-deflate")
    assert deflate.decompress(bytes.fromhex("f248cdc9c90700"), 5) == b"Hello"
    assert deflate.decompress(bytes.fromhex("f200110000"), 5) == b"Hello"


def test_section_7_1_1_2_without_context_a_reference_to_it_is_1007() -> None:
    deflate = agreed_on("permessage-deflate; client_no_context_takeover")
    assert deflate.decompress(bytes.fromhex("f248cdc9c90700"), 5) == b"Hello"
    assert close_code_of(deflate, bytes.fromhex("f200110000"), 5) == 1007


def test_section_7_2_3_4_messages_go_on_after_a_final_block() -> None:
    deflate = agreed_on("permessage-deflate")
    two_streams = final_stream(b"Hel") + final_stream(b"lo") + b"\0"
    assert deflate.decompress(two_streams, 5) == b"Hello"
    assert deflate.decompress(raw_deflate(b"and on"), 6) == b"and on"


def test_a_message_of_final_blocks_alone_is_refused_in_linear_time() -> None:
    endless = b"\x03\x00" * 500_000  # each an empty final block
    assert close_code_of(agreed_on("permessage-deflate"), endless, 1_000_000) == 1007


def test_bytes_that_are_no_deflate_are_1007() -> None:
    assert close_code_of(agreed_on("permessage-deflate"), b"\xff\xff\xff\xff", 100) == 1007


def test_limit_is_exact() -> None:
    payload = raw_deflate(TEXT)
    assert agreed_on("permessage-deflate").decompress(payload, len(TEXT)) == TEXT
    assert close_code_of(agreed_on("permessage-deflate"), payload, len(TEXT) - 1) == 1009


def test_limit_holds_across_final_blocks() -> None:
    streams = final_stream(b"x" * 60) * 2 + b"\0"
    assert agreed_on("permessage-deflate").decompress(streams, 120) == b"x" * 120
    assert close_code_of(agreed_on("permessage-deflate"), streams, 119) == 1009
    assert close_code_of(agreed_on("permessage-deflate"), streams, 59) == 1009


def test_section_8_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = raw_deflate(bytes(50_000_000))
    deflate = agreed_on("permessage-deflate")
    tracemalloc.start()
    try:
        assert close_code_of(deflate, bomb, 100_000) == 1009
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@given(st.integers(8, 15), st.lists(st.binary(max_size=300) | st.just(TEXT * 30), max_size=6))
def test_messages_come_out_as_they_went_in(bits: int, messages: list[bytes]) -> None:
    peers = [Inflate(Parameters()), Inflate(Parameters(client_no_context_takeover=True))]
    for message in messages:
        packed = compress(message, bits)
        assert [peer.decompress(packed, len(message)) for peer in peers] == [message] * 2


@given(st.lists(st.binary(max_size=100), max_size=4), st.integers(0, 200))
def test_any_payload_gives_a_message_within_the_limit_or_one_error(payloads: list[bytes], limit: int) -> None:
    deflate = agreed_on("permessage-deflate")
    error = None
    for payload in payloads:
        try:
            message = deflate.decompress(payload, limit)
        except WebSocketError as caught:
            error = caught
            break
        assert len(message) <= limit
    assert error is None or error.close_code in (1007, 1009)
