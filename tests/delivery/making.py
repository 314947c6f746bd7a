"""Entries for tests: ``line(3)`` is m1, m2, m3 with tags of a branch of their own."""

from bellwire.delivery.entry import Draft, Entry, enter
from bellwire.delivery.position import START, Point

GEN = "g"


def make(seq: int, prev: Point, branch: int = 1, *, body: bytes = b"", excluded: tuple[str, ...] = ()) -> Entry:
    return enter(Draft(f"m{seq}", branch * 1000 + seq, body, excluded), seq, prev, 0.0)


def line(count: int, after: Point = START, branch: int = 1, *, body: bytes = b"") -> list[Entry]:
    entries: list[Entry] = []
    for _ in range(count):
        entries.append(make(after.seq + 1, after, branch, body=body))
        after = entries[-1].point
    return entries
