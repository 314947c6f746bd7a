"""What leaves is made once, in every variant, and a run is as good as a message."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.protocol.client_websocket import ClientWebSocket
from bellwire.protocol.deflate import Inflate, Parameters
from bellwire.protocol.frames import build_binary, build_text
from bellwire.protocol.outgoing import Message, Outgoing, Run, Single, Stem, join

TEXT = '42["hello"]'
BINARY = ('451-["hello",{"_placeholder":true,"num":0}]', b"\x01\x02\x03\x04")


def test_text_message_in_every_variant() -> None:
    message = Outgoing(TEXT)

    assert message.parts == (TEXT,)
    assert message.base64_parts is message.parts
    assert message.frames == b'\x81\x0b42["hello"]'
    assert message.frames_base64 == b'\x81\x0b42["hello"]'
    assert message.payload == TEXT


def test_binary_message_in_every_variant() -> None:
    message = Outgoing(*BINARY)

    assert message.parts == BINARY
    assert message.base64_parts == (BINARY[0], "bAQIDBA==")
    assert message.frames == build_text(BINARY[0]) + b"\x82\x04\x01\x02\x03\x04"
    assert message.frames_base64 == build_text(BINARY[0]) + build_text("bAQIDBA==")
    assert message.payload == BINARY[0] + "\x1ebAQIDBA=="


@pytest.mark.parametrize("message", [Outgoing(TEXT), Outgoing(*BINARY), join([Outgoing(TEXT), Outgoing(*BINARY)])])
def test_every_variant_is_made_once(message: Message) -> None:
    assert message.base64_parts is message.base64_parts
    assert message.frames is message.frames
    assert message.frames_base64 is message.frames_base64
    assert message.payload is message.payload
    assert message.deflated(12) is message.deflated(12)
    assert message.deflated(12, base64=True) is message.deflated(12, base64=True)


def test_text_message_has_the_same_frames_for_a_client_that_asked_for_base64() -> None:
    message = Outgoing(TEXT)

    assert message.frames_base64 is message.frames


def test_run_is_its_messages_in_their_order() -> None:
    first, second = Outgoing(TEXT), Outgoing(*BINARY)
    run = join([first, second])

    assert run.parts == (TEXT, *BINARY)
    assert run.base64_parts == (TEXT, BINARY[0], "bAQIDBA==")
    assert run.frames == first.frames + second.frames
    assert run.frames_base64 == first.frames_base64 + second.frames_base64
    assert run.payload == f"{first.payload}\x1e{second.payload}"
    assert run.size == first.size + second.size


@given(st.text() | st.sampled_from(["x" * 125, "é" * 63, "x" * 65_535, "x" * 65_536]))
def test_text_for_one_recipient_is_as_any_other_in_every_variant(text: str) -> None:
    variants = ("parts", "base64_parts", "frames", "frames_base64", "payload", "size")
    for variant in variants:  # whichever is the first that is asked for
        assert getattr(Single(text.encode()), variant) == getattr(Outgoing(text), variant)
    assert repr(Single(b"4a")) == "Outgoing('4a')"


def test_run_of_one_message_is_that_message() -> None:
    message = Outgoing(TEXT)

    assert join([message]) is message


def test_run_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no message"):
        join([])


def test_runs_can_be_joined() -> None:
    run = join([join([Outgoing("4a"), Outgoing("4b")]), Outgoing("4c")])

    assert run.payload == "4a\x1e4b\x1e4c"


def test_messages_are_shown_for_debugging() -> None:
    assert repr(Outgoing("4a", b"b")) == "Outgoing('4a', b'b')"
    assert repr(Run([Outgoing("4a")])) == "Run([Outgoing('4a')])"


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_size_is_that_of_the_frames_at_every_length_of_head(length: int) -> None:
    for message in (Outgoing("x" * length), Outgoing(b"x" * length), Outgoing("x" * length, b"x" * length)):
        assert message.size == len(message.frames)


# --- compressed

LONG = "".join(f'{{"sensor":"temp-{n}","value":{n * 7919 % 1000 / 10},"unit":"C"}},' for n in range(40))


def read(frames: bytes) -> list[str | bytes]:
    """What a client reads that keeps no context."""
    ws = ClientWebSocket(max_message=1_000_000)
    ws._inflate = Inflate(Parameters(client_no_context_takeover=True))
    found = ws.receive(frames)
    assert (ws.error, ws.fresh) == (None, True)
    return found


def test_a_long_message_is_compressed_and_a_short_one_is_not() -> None:
    assert Outgoing("x" * 255).deflated(12) == Outgoing("x" * 255).frames
    assert len(Outgoing("x" * 256).deflated(12)) < 20
    message = Outgoing(LONG, LONG.encode(), b"short")
    assert len(message.deflated(12)) < message.size / 2
    assert read(message.deflated(12)) == [LONG, LONG.encode(), b"short"]
    assert [message.deflated(12)[0], message.deflated(12)[-7]] == [0xC1, 0x82]


def test_what_would_be_longer_for_it_stays_as_it_is() -> None:
    noise = random.Random(7692).randbytes(4_000)
    assert Outgoing(noise).deflated(12) == Outgoing(noise).frames


def test_each_window_has_frames_of_its_own() -> None:
    far = LONG + "".join(map(chr, range(32, 127))) * 3 + LONG
    message = Outgoing(far)
    sizes = [len(message.deflated(bits)) for bits in range(8, 13)]
    assert sizes == sorted(sizes, reverse=True)
    assert {read(message.deflated(bits))[0] for bits in range(8, 13)} == {far}


def test_a_run_is_what_its_messages_are_compressed_one_by_one() -> None:
    first, second = Outgoing(LONG), Outgoing("4short")
    assert join([first, second]).deflated(12) == first.deflated(12) + second.deflated(12)


def test_a_client_without_binary_gets_base64_compressed() -> None:
    message = Outgoing(TEXT, LONG.encode())
    assert read(message.deflated(12, base64=True)) == list(message.base64_parts)
    assert join([message, message]).deflated(12, base64=True) == message.deflated(12, base64=True) * 2
    assert read(Stem(LONG, (b"data",)).end("]").deflated(12, base64=True)) == [LONG + "]", "bZGF0YQ=="]


def test_a_text_for_one_is_compressed_as_any_other() -> None:
    for text in ("short", LONG):
        assert Single(text.encode()).deflated(12) == Outgoing(text).deflated(12)


def test_what_has_a_stem_shares_its_compression() -> None:
    stem = Stem(LONG, (LONG.encode(),))
    first, second = stem.end('"abc"]').deflated(12), stem.end('"defgh"]').deflated(12)
    assert read(first + second) == [LONG + '"abc"]', LONG.encode(), LONG + '"defgh"]', LONG.encode()]
    assert stem.packed(12) is stem.packed(12)
    assert first[4:100] == second[4:100]
    assert Stem("short").end("]").deflated(12) == Outgoing("short]").frames


parts = st.text(st.characters(codec="utf-8")) | st.binary()
messages = st.lists(parts, min_size=1, max_size=4).map(lambda found: Outgoing(*found))


@given(st.lists(messages, min_size=1, max_size=4))
def test_size_and_frames_of_any_messages(sent: list[Outgoing]) -> None:
    run = join(sent)
    frames = [
        build_text(part) if isinstance(part, str) else build_binary(part) for message in sent for part in message.parts
    ]

    assert run.frames == b"".join(frames)
    assert run.size == len(run.frames)


@pytest.mark.parametrize("attachments", [(), (b"\x01\x02",), (b"\x01" * 200, "text")])
@given(start=st.text(st.characters(exclude_categories=["Cs"]), max_size=130), end=st.text("Aa]", max_size=9))
def test_a_message_with_a_stem_is_as_any_other(start: str, end: str, attachments: tuple[str | bytes, ...]) -> None:
    message, other = Stem(start, attachments).end(end), Outgoing(start + end, *attachments)

    assert message.parts == other.parts
    assert message.size == other.size == len(message.frames)
    assert message.frames == other.frames
    assert message.base64_parts == other.base64_parts
    assert message.frames_base64 == other.frames_base64
    assert message.payload == other.payload


@pytest.mark.parametrize("length", [60, 125, 126, 65_535, 65_536])
def test_messages_with_one_stem_are_framed_apart(length: int) -> None:
    stem = Stem("é" + "x" * (length - 4))

    assert stem.end("ab").frames == build_text("é" + "x" * (length - 4) + "ab")
    assert stem.end("c").frames == build_text("é" + "x" * (length - 4) + "c")
    assert join([stem.end("ab"), stem.end("c")]).size == stem.end("ab").size + stem.end("c").size
