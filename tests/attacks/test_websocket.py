"""S4, S5, S6: frames that no client sends, compression bombs, and floods of fragments."""

import zlib
from collections.abc import Iterator
from functools import cache

import pytest

from bellwire.protocol.frames import BINARY, CONTINUATION, PING, TEXT
from tests.attacks.peer import frame
from tests.attacks.target import Target, running

LIMIT = 1_000_000
"""Bytes of a message, `Config.max_message_bytes`."""

MIB = 1024 * 1024


# --- S4: what has ended the processes of others


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1\x80\0\0\0\0",  # RSV1 without compression
        b"\xa1\x80\0\0\0\0",
        b"\x91\x80\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0",  # 2^63 bytes
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",  # 2^64 - 1
        b"\x81\x05hello",  # no mask
        b"\x83\x80\0\0\0\0",
        b"\x8f\x80\0\0\0\0",
        b"\x09\x80\0\0\0\0",  # a fragmented ping
        b"\x89\xfe\x00\x7e" + bytes(130),  # a ping of 126 bytes
        b"\x80\x80\0\0\0\0",
        b"\x81\x82\0\0\0\0\xc3\x28",
        b"\x88\x81\0\0\0\0\x03",
        b"\x88\x82\0\0\0\0\x03\xed",  # 1005 on the wire
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: data[:4].hex(),
)
def test_s4_frames_that_no_client_sends_end_their_connection(target: Target, data: bytes) -> None:
    attacker = target.join().offer(data)
    assert attacker.ends() in (1002, 1007)


@pytest.mark.parametrize("length", [LIMIT + 1, 2**31, 2**32, 2**62])
def test_s4_a_length_that_is_announced_is_not_allocated(target: Target, length: int) -> None:
    with target.grows_by_at_most(4 * MIB):
        attacker = target.join().send(b"\x82\xff" + length.to_bytes(8, "big") + bytes(4))
        assert attacker.ends() == 1009


@pytest.mark.parametrize("name", ["error", "connect_error", "disconnect", "newListener", "__proto__"])
def test_s4_the_names_that_servers_use_themselves_are_no_events(target: Target, name: str) -> None:
    attacker = target.join().say(f'420["{name}",{{}}]')
    if name in ("error", "__proto__"):
        assert attacker.reply(0)["error"]["code"] == "unknown_event"
        attacker.close()
    else:
        assert attacker.ends() == 1000


# --- S5: compression bombs

COMPRESSED = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"


def compressed(data: bytes, times: int = 1) -> bytes:
    """A message, compressed."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join([compressor.compress(data) for _ in range(times)])
    return packed + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


@cache
def bomb() -> bytes:
    """Half a gibibyte in a message that is half as long as it may be."""
    return compressed(b"4" * MIB, 512)


@pytest.fixture(scope="module")
def compressing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp("deflate") / "log", "--per-message-deflate") as target:
        yield target


def test_s5_compression_is_off_by_default(target: Target) -> None:
    attacker = target.dial()
    attacker.opened(COMPRESSED)
    assert attacker.offer(frame(TEXT, compressed(b"4"), rsv1=True)).ends() == 1002


@pytest.mark.parametrize("joined", [True, False], ids=["joined", "before it is known who it is"])
@pytest.mark.parametrize("parts", [1, 50], ids=["whole", "in fragments"])
def test_s5_a_bomb_of_half_a_gibibyte_is_not_inflated(compressing: Target, parts: int, joined: bool) -> None:
    packed = bomb()
    assert len(packed) < LIMIT
    size = -(-len(packed) // parts)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    with compressing.is_as_before():
        attacker = compressing.join(COMPRESSED) if joined else compressing.open(COMPRESSED)
        with compressing.grows_by_at_most(8 * LIMIT):
            for place, piece in enumerate(pieces):
                last = place == len(pieces) - 1
                attacker.offer(frame(CONTINUATION if place else TEXT, piece, fin=last, rsv1=not place))
            assert attacker.ends() == 1009


def test_s5_many_small_bombs_are_inflated_one_by_one(compressing: Target) -> None:
    """Each is as long as a message may be, and refused: what is at stake is how many there are at a time."""
    small = frame(TEXT, compressed(b'42["count","' + b"a" * (LIMIT - 20) + b'"]'), rsv1=True)
    with compressing.is_as_before():
        attacker = compressing.join(COMPRESSED)
        with compressing.grows_by_at_most(16 * LIMIT):
            attacker.offer(small * 200)
            compressing.serves()
        attacker.close()


# --- S6: floods of fragments and of control frames


@pytest.mark.parametrize("size", [0, 1], ids=["empty fragments", "fragments of a byte"])
def test_s6_fragments_are_counted_though_they_be_empty(target: Target, size: int) -> None:
    with target.grows_by_at_most(4 * MIB):
        attacker = target.join()
        attacker.offer(frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"x" * size, fin=False) * 131_000)
        assert attacker.ends() == 1009


def test_s6_pings_between_fragments_are_answered_and_kept_nowhere(target: Target) -> None:
    attacker = target.join()
    attacker.send(frame(TEXT, b'42["echo",', fin=False))
    with target.grows_by_at_most(4 * MIB):
        for _ in range(1_000):
            attacker.send(frame(PING, b"x"))
            assert attacker.next_frame() == (PING + 1, b"x")
    attacker.send(frame(CONTINUATION, b'"x"]'))
    assert attacker.call("echo", "y") == "y"
