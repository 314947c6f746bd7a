"""Offsets: what a stock client brings back says exactly where it stands, or is refused."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.delivery import offset as module
from bellwire.delivery.offset import CONNECTED, MAX_ENTRIES, MAX_OTHERS, Trail, claimed, decode, mark, stand
from bellwire.delivery.position import Position

STREAMS: Final = [f"{n:016x}" + "0" * 16 for n in range(1, 15)]
ROOM, OTHER, THIRD = STREAMS[:3]


def moved(*steps: tuple[str, int], gen: str = "g", start: Trail = CONNECTED) -> Trail:
    """The trail after events of these streams with these numbers; tags are made of the numbers."""
    for stream, seq in steps:
        start = start.step(mark(stream, gen, seq, seq + 1000))
    return start


def at(seq: int, gen: str = "g") -> Position:
    return Position(gen, seq, seq + 1000)


# --- the string


def test_an_offset_is_these_characters() -> None:
    trail = CONNECTED.step(mark("0123456789abcdef" * 2, "g1", 42, 0x01020304))
    own = bytes.fromhex("0123456789abcdef") + module._hash("g1") + bytes(7) + b"\x2a\x01\x02\x03\x04"
    head = b"\x01" + bytes(8)
    assert trail.offset == (urlsafe_b64encode(own)[:38] + urlsafe_b64encode(head)).decode()
    assert len(trail.offset) == 50
    then = trail.step(mark(ROOM, "g2", 2**63 - 1, 2**32 - 1))
    assert then.offset[38:] == trail.offset[38:] + trail.offset[:38]
    assert urlsafe_b64decode(then.offset[:38] + "==")[-12:] == b"\x7f" + b"\xff" * 11


def test_an_offset_says_what_moved() -> None:
    assert decode(CONNECTED.offset) == (0, {})
    found = decode(moved((ROOM, 1), (OTHER, 5), (ROOM, 2)).offset)
    assert found.checkpoint == 0
    assert {stream: (entry.seq, entry.tag) for stream, entry in found.entries.items()} == {
        ROOM[:16]: (2, 1002),
        OTHER[:16]: (5, 1005),
    }


def test_json_needs_no_escapes_for_it() -> None:
    trail = CONNECTED
    for n, stream in enumerate(STREAMS):
        trail = trail.step(mark(stream, f"g{n}", 2**62 + n, 0xFBFFBFFB))
    assert set(trail.offset) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


# --- sharing


def test_who_stands_alike_shares_a_trail_by_whatever_way_it_came() -> None:
    assert moved((ROOM, 1)) is moved((ROOM, 1))
    assert moved((ROOM, 1), (ROOM, 2)) is moved((ROOM, 2))
    assert moved((ROOM, 1), (OTHER, 1), (THIRD, 1), (ROOM, 2)) is moved((THIRD, 1), (OTHER, 1), (ROOM, 2))
    assert moved((ROOM, 1)) is not moved((ROOM, 1), gen="h")
    assert moved((ROOM, 1), (OTHER, 2)) is not moved((OTHER, 2))
    assert CONNECTED.step(mark(ROOM, "g", 1, 1)) is not CONNECTED.step(mark(ROOM, "g", 1, 2))


def test_trails_that_nobody_has_are_forgotten() -> None:
    trail: Trail | None = moved((ROOM, 77), (OTHER, 78))
    assert trail is not None
    key = Trail, trail.tail
    assert key in module._tails
    trail = None  # nothing refers to itself, so nothing waits for a collection
    assert key not in module._tails


# --- checkpoints


def test_a_checkpoint_is_due_when_too_many_streams_have_moved() -> None:
    trail = moved(*((stream, 1) for stream in STREAMS[: MAX_OTHERS + 1]))
    assert not trail.full
    assert moved(*((stream, 2) for stream in STREAMS[: MAX_OTHERS + 1]), start=trail) is not trail
    assert not moved(*((stream, 2) for stream in STREAMS[: MAX_OTHERS + 1]), start=trail).full
    assert moved((STREAMS[MAX_OTHERS + 1], 1), start=trail).full


def test_what_moved_while_the_checkpoint_was_stored_is_listed_still() -> None:
    trail = moved((ROOM, 1), (OTHER, 1), (THIRD, 1))
    vector = trail.vector({}, STREAMS)
    assert vector == {ROOM: at(1), OTHER: at(1), THIRD: at(1)}
    later = moved((OTHER, 2), (STREAMS[4], 9), (ROOM, 5), start=trail).checkpointed(7, vector)
    assert decode(later.offset).checkpoint == 7
    assert later.moved == {ROOM: at(5), OTHER: at(2), STREAMS[4]: at(9)}
    assert not later.full
    assert decode(later.offset).entries.keys() == {ROOM[:16], OTHER[:16], STREAMS[4][:16]}


def test_a_checkpoint_holds_what_the_one_before_held_of_the_sessions_streams() -> None:
    before = {OTHER: at(3), THIRD: at(4)}
    trail = moved((ROOM, 1)).checkpointed(5, before)
    assert trail.vector(before, [ROOM, OTHER]) == {ROOM: at(1), OTHER: at(3)}
    assert moved((OTHER, 6), start=trail).vector(before, [ROOM, OTHER]) == {ROOM: at(1), OTHER: at(6)}


@pytest.mark.parametrize("number", [0, -1, 2**64])
def test_a_checkpoint_has_a_number(number: int) -> None:
    with pytest.raises(ValueError, match="from 1 to"):
        CONNECTED.checkpointed(number, {})


# --- what comes back


def test_a_client_that_got_nothing_stands_at_its_joins() -> None:
    joined = {ROOM: at(5), OTHER: at(6)}
    for offset in (None, CONNECTED.offset):
        found = stand(offset, joined, {}, {})
        assert (found.positions, found.trail.offset) == (joined, CONNECTED.offset)


def test_nobody_gets_what_was_before_his_join() -> None:
    """Whoever was sent away and let in again does not read what was said meanwhile by naming his old position."""
    found = stand(moved((ROOM, 3), (OTHER, 9)).offset, {ROOM: at(5), OTHER: at(8)}, {}, {})
    assert found.positions == {ROOM: at(5), OTHER: at(9)}
    assert found.trail.moved == {OTHER: at(9)}


def test_streams_that_the_session_does_not_have_are_nothing() -> None:
    found = stand(moved((ROOM, 9), (OTHER, 9)).offset, {ROOM: at(5)}, {}, {})
    assert found.positions == {ROOM: at(9)}


def test_the_checkpoint_is_the_one_that_the_offset_names() -> None:
    """Whoever stores one does not know yet that the client has all of it."""
    joined = {ROOM: at(1), OTHER: at(1)}
    trail = moved((ROOM, 2), (OTHER, 2))
    vectors = {7: {ROOM: at(2), OTHER: at(2)}, 8: {ROOM: at(9), OTHER: at(9)}}
    assert stand(trail.offset, joined, vectors, {}).positions == {ROOM: at(2), OTHER: at(2)}
    assert stand(moved((ROOM, 1)).offset, joined, vectors, {}).positions == {ROOM: at(1), OTHER: at(1)}
    later = moved((ROOM, 3), start=trail.checkpointed(7, vectors[7]))
    assert stand(later.offset, joined, vectors, {}).positions == {ROOM: at(3), OTHER: at(2)}


def test_a_later_join_counts_more_than_the_checkpoint() -> None:
    trail = moved((ROOM, 2), (OTHER, 2)).checkpointed(7, {OTHER: at(2), ROOM: at(2)})
    found = stand(trail.offset, {ROOM: at(4), OTHER: at(1)}, {7: {OTHER: at(2), ROOM: at(2)}}, {})
    assert found.positions == {ROOM: at(4), OTHER: at(2)}


def test_what_a_client_says_of_streams_that_it_is_not_in_any_more_is_read_from_offset_and_checkpoint() -> None:
    vector = {ROOM: Position("g", 5, 1005), OTHER: Position("g", 6, 1006)}
    offset = moved((OTHER, 8), start=CONNECTED.checkpointed(7, vector)).offset
    assert claimed(offset, [ROOM, OTHER, THIRD], {7: vector}) == {
        ROOM: Position("g", 5, 1005),
        OTHER: Position("", 8, 1008),
    }
    assert claimed(None, [ROOM], {7: vector}) == {}


def test_an_offset_from_another_session_is_refused_if_it_counts_from_a_checkpoint() -> None:
    trail = moved((ROOM, 2)).checkpointed(7, {})
    other: list[dict[int, dict[str, Position]]] = [{}, {8: {ROOM: at(1)}}]
    for vectors in other:
        with pytest.raises(ValueError, match="checkpoint that the session does not have"):
            stand(trail.offset, {ROOM: at(1)}, vectors, {})


def test_generations_are_those_of_the_session_or_of_the_log() -> None:
    offset = moved((ROOM, 5), gen="b").offset
    assert stand(offset, {ROOM: at(1, "b")}, {}, {}).positions == {ROOM: at(5, "b")}
    assert stand(offset, {ROOM: at(1, "a")}, {}, {ROOM: "b", OTHER: "a"}).positions == {ROOM: at(5, "b")}
    after = moved((ROOM, 5), gen="b").checkpointed(7, {}).offset
    for vector in ({ROOM: at(2, "b")}, {ROOM: at(2, "c")}):
        assert stand(after, {ROOM: at(1, "b")}, {7: vector}, {ROOM: "d"}).positions == {ROOM: at(5, "b")}


def test_a_generation_that_is_not_known_is_not_proved() -> None:
    with pytest.raises(ValueError, match="generation that is not known"):
        stand(moved((ROOM, 5), gen="b").offset, {ROOM: at(1, "a")}, {}, {ROOM: "c", OTHER: "b"})


def test_a_client_that_came_back_goes_on_with_the_others() -> None:
    trail = moved((ROOM, 5), (OTHER, 6), (THIRD, 7))
    back = stand(trail.offset, {ROOM: at(1), OTHER: at(1), THIRD: at(1)}, {}, {}).trail
    assert back.moved == trail.moved
    assert decode(back.offset) == decode(trail.offset)
    assert moved((ROOM, 8), start=back) is moved((ROOM, 8), start=trail)


# --- what is no offset


def refused(offset: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each has words of its own
        stand(offset, {}, {}, {})
    return str(caught.value)


GOOD: Final = moved((ROOM, 1), (OTHER, 2)).offset


@pytest.mark.parametrize(
    "offset",
    [
        "",
        "hello",
        "Q87MkkS",
        "1526919030474-55",
        GOOD[:-1],
        GOOD + "A",
        GOOD[:38],
        GOOD[:50] + GOOD[:38],  # a stream twice
        GOOD + GOOD[50:],
        GOOD[:38] + "Ag" + GOOD[40:],  # version 2
        GOOD[:50] + "A" * 38,  # nowhere
        GOOD[:37] + chr(ord(GOOD[37]) + 1) + GOOD[38:],  # bits that are not used
        GOOD.replace("A", "+", 1),
        GOOD.replace("A", "=", 1),
        GOOD.replace("A", "é", 1),
        GOOD.replace("A", "\ud800", 1),
        GOOD.replace("A", " ", 1),
        urlsafe_b64encode(bytes(16) + b"\x80" + bytes(11)).decode()[:38] + GOOD[38:50],  # 2^63
        GOOD[:50] + "".join(moved((f"{n:016x}", 1)).offset[:38] for n in range(100, 99 + MAX_ENTRIES + 1)),
    ],
)
def test_what_nobody_can_have_written_is_refused(offset: str) -> None:
    assert refused(offset).startswith("an offset ")


@pytest.mark.parametrize("offset", [1, True, [], {}, b"", 1.5])
def test_an_offset_is_a_string(offset: object) -> None:
    assert refused(offset) == "an offset that is no string"


def test_as_many_entries_come_back_as_are_allowed() -> None:
    trail = moved(*((f"{n:016x}", 1) for n in range(1, MAX_ENTRIES + 1)))
    assert len(decode(trail.offset).entries) == MAX_ENTRIES
    with pytest.raises(ValueError, match="no possible length"):
        decode(moved((f"{MAX_ENTRIES + 1:016x}", 1), start=trail).offset)


@given(
    st.text(max_size=120) | st.text("AQg-_+=", min_size=88, max_size=88) | st.text("AQg-_", min_size=50, max_size=50)
)
@example("A" * 38 + "AQAAAAAAAAAA")
def test_anything_is_an_offset_or_refused(text: str) -> None:
    try:
        checkpoint, entries = decode(text)
    except ValueError:
        return
    assert len(text) in (50 + 38 * len(entries), 12 + 38 * len(entries))
    assert 0 <= checkpoint < 2**64


# --- any session


class Model:
    """A session as its server has it, and a client that gets the strings in their order, until it is cut off."""

    def __init__(self) -> None:
        self.tops = dict.fromkeys(STREAMS, at(1))
        self.joined: dict[str, Position] = {}
        self.stands: dict[str, Position] = {}
        self.trail = CONNECTED
        self.vectors: dict[int, dict[str, Position]] = {}
        self.storing: dict[str, Position] | None = None
        self.sent: list[tuple[str | None, dict[str, Position]]] = [(None, {})]

    def append(self, stream: str) -> None:
        gen, seq, _ = self.tops[stream]
        self.tops[stream] = at(seq + 1, gen)

    def event(self, stream: str) -> None:
        self.advance(stream)
        self.volatile(stream)

    def volatile(self, stream: str) -> None:
        self.sent.append((self.trail.offset, self.stands.copy()))

    def advance(self, stream: str) -> None:
        """Nothing up to the top was for this client, or all was given to it."""
        self.append(stream)
        if stream in self.joined:
            self.stands[stream] = top = self.tops[stream]
            self.trail = self.trail.step(mark(stream, top.gen, top.seq, top.tag))

    def join(self, stream: str) -> None:
        self.append(stream)
        self.joined[stream] = self.stands[stream] = self.tops[stream]

    def leave(self, stream: str) -> None:
        self.joined.pop(stream, None)

    def fail_over(self, stream: str) -> None:
        """Once: between two failovers a generation may be forgotten."""
        _, seq, _ = self.tops[stream]
        self.tops[stream] = at(seq, "h")

    def store(self, stream: str) -> None:
        before = self.vectors.get(self.trail.checkpoint, {})
        if self.storing is None:
            self.storing = self.trail.vector(before, self.joined)

    def stored(self, stream: str) -> None:
        if self.storing is not None:
            number = 1000 + len(self.vectors)
            self.vectors[number], self.storing = self.storing, None
            self.trail = self.trail.checkpointed(number, self.vectors[number])

    def cut(self, lost: int) -> None:
        """The last ``lost`` strings do not arrive; the client comes back, to a server that knows what is stored."""
        del self.sent[max(1, len(self.sent) - lost) :]
        offset, stood = self.sent[-1]
        found = stand(offset, self.joined, self.vectors, {stream: top.gen for stream, top in self.tops.items()})
        for stream, start in self.joined.items():
            expected = stood.get(stream, start)
            assert found.positions[stream].point == max(expected, start, key=lambda p: p.seq).point
            assert found.positions[stream].gen in ("g", self.tops[stream].gen)
        assert found.positions.keys() == self.joined.keys()
        self.stands, self.trail, self.storing = found.positions, found.trail, None


STEPS: Final[list[Callable[[Model, str], None]]] = [
    *[Model.event] * 6,
    Model.advance,
    Model.append,
    Model.volatile,
    Model.join,
    Model.leave,
    Model.fail_over,
    Model.store,
    Model.stored,
]
steps = st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(STREAMS)), max_size=60)


@given(st.sets(st.sampled_from(STREAMS)), st.lists(st.tuples(steps, st.integers(0, 8)), min_size=1, max_size=4))
def test_a_client_stands_exactly_where_its_last_string_was_sent(joined: set[str], lives: list[tuple[Any, int]]) -> None:
    model = Model()
    for stream in joined:
        model.join(stream)
    for life, lost in lives:
        for step, stream in life:
            step(model, stream)
        model.cut(lost)
