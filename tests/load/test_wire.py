import zlib

import pytest

from bellwire.load.wire import BINARY, Counter, framed, split, unmasked

SIZES = [1, 125, 126, 300, 65_535]


@pytest.mark.parametrize("piece", [1, 2, 3, 127, 100_000])
def test_frames_are_counted_in_whatever_pieces_they_come(piece: int) -> None:
    frames = [unmasked(b"x" * size) for size in SIZES]
    data, counter = b"".join(frames), Counter(small=1)
    ends = [sum(map(len, frames[: number + 1])) for number in range(1, len(frames))]
    counted = 0
    for at in range(0, len(data), piece):
        counted += counter.feed(data[at : at + piece])
        assert counted == sum(end <= at + piece for end in ends)
    assert counted == 4, "all but the small one"


def test_a_frame_is_as_long_as_it_says() -> None:
    for size in SIZES:
        frame = bytearray(unmasked(b"x" * size))
        assert framed(size) == len(frame)
        assert split(frame) == [(1, b"x" * size, framed(size))]
    assert framed(70_000) == 70_010


def test_frames_of_one_kind_are_counted() -> None:
    counter = Counter(1, BINARY)
    data = unmasked(b"announced") + unmasked(b"bytes", BINARY) + unmasked(b"2") + unmasked(b"more", BINARY)
    assert sum(counter.feed(data[at : at + 1]) for at in range(len(data))) == 2


def test_compressed_frames_are_inflated() -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    squeezed = (deflate.compress(b"x" * 1000) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    frame = bytearray(unmasked(squeezed))
    frame[0] |= 0x40
    assert split(frame) == [(1, b"x" * 1000, framed(len(squeezed)))]
