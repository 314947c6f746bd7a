import pytest
from bench.wire import Counter, framed, split, unmasked

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
        assert split(frame) == [(1, b"x" * size)]
    assert framed(70_000) == 70_010
