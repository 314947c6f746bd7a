"""Live messages become a chain: what is lost, doubled, reordered or foreign, without a server."""

import pytest

from bellwire.brokers.envelope import ALL, stream_of_node
from bellwire.brokers.nats_link import Message
from bellwire.brokers.nats_live import MAX_WAITING, Live
from bellwire.brokers.nats_streams import envelope, opened
from bellwire.core.counters import Counters
from bellwire.delivery.entry import Draft, Entry
from bellwire.delivery.position import START, Point
from tests.brokers.contract import Ears

WHEN = "2026-11-23T14:03:55.5Z"
LATER = "2026-11-23T14:03:55.6Z"


def message(seq: int, last: int, tag: int | None = None, when: str = WHEN) -> Message:
    """The message with number ``seq``, whose tag is that number unless another one is given."""
    body = envelope(Draft(f"m{seq}", seq if tag is None else tag, b"x"))
    return Message({"Nats-Sequence": str(seq), "Nats-Last-Sequence": str(last), "Nats-Time-Stamp": when}, body, "")


def at(seq: int) -> Entry:
    """The entry of `message`."""
    return opened(message(seq, 0), START)


class Bench:
    def __init__(self, top: int | None = 0) -> None:
        self.asked: list[int] = []
        self.counters = Counters()
        self.ears = Ears()
        self.live = Live("room", lambda: "g", lambda live: self.asked.append(live.first), self.counters)
        self.live.listeners[self.ears] = None
        if top is not None:
            self.live.opened(at(top) if top else None)

    def take(self, *messages: Message) -> None:
        for one in messages:
            self.live.take("subject", one)

    def dropped(self, reason: str) -> int:
        return self.counters.get("dropped_total", kind="live", reason=reason, policy="repaired_from_history")

    @property
    def told(self) -> list[tuple[int, int]]:
        """Numbers with those before them; the tags are the numbers."""
        assert all(e.prev.seq == e.prev.tag and e.seq == e.tag for _, _, e in self.ears.entries)
        return [(entry.seq, entry.prev.seq) for _, _, entry in self.ears.entries]


def test_sparse_numbers_make_a_chain() -> None:
    bench = Bench()
    bench.take(message(3, 0), message(7, 3), message(8, 7))
    assert bench.told == [(3, 0), (7, 3), (8, 7)]
    assert not bench.asked


@pytest.mark.parametrize(("stream", "kind"), [("room", "volatile"), (ALL, "node"), (stream_of_node("ab"), "node")])
def test_what_comes_is_counted_by_kind(stream: str, kind: str) -> None:
    bench = Bench()
    bench.live = Live(stream, lambda: "g", lambda live: None, bench.counters)
    bench.take(message(3, 0), Message({}, b"now", ""), message(7, 3))
    assert {kind: bench.counters.get("broker_messages_total", kind=kind) for kind in ("entry", kind)} == {
        "entry": 2,
        kind: 1,
    }


def test_what_waited_for_the_top_is_told_if_it_is_above_it() -> None:
    bench = Bench(None)
    bench.take(message(3, 0), message(5, 3), message(9, 5))
    assert not bench.told
    bench.live.opened(at(5))
    assert bench.told == [(9, 5)]
    assert not bench.asked


def test_behind_a_lost_one_the_point_before_is_asked_for_and_the_rest_waits_in_order() -> None:
    bench = Bench(1)
    bench.take(message(4, 3), message(6, 4))
    assert bench.asked == [4]
    assert not bench.told
    bench.live.bridged(Point(3, 3))
    bench.take(message(7, 6))
    assert bench.told == [(4, 3), (6, 4), (7, 6)]


def test_a_second_gap_among_those_that_wait_is_asked_for_too() -> None:
    bench = Bench(1)
    bench.take(message(4, 3), message(8, 7), message(9, 8))
    bench.live.bridged(Point(3, 3))
    assert bench.asked == [4, 8]
    assert bench.told == [(4, 3)]
    bench.take(message(10, 9))
    bench.live.bridged(Point(7, 7))
    assert bench.told == [(4, 3), (8, 7), (9, 8), (10, 9)]


def test_what_cannot_be_linked_is_dropped_and_counted_and_the_next_asks_again() -> None:
    bench = Bench(1)
    bench.take(message(4, 3), message(6, 4))
    bench.live.give_up()
    assert bench.dropped("unlinked") == 2
    bench.take(message(8, 6))
    assert bench.asked == [4, 8]


def test_a_doubled_one_is_told_once_and_one_of_before_the_subscription_never() -> None:
    bench = Bench(5)
    bench.take(message(3, 1), message(5, 3), message(6, 5), message(6, 5), message(7, 6))
    assert bench.told == [(6, 5), (7, 6)]
    assert not bench.asked


def test_another_entry_under_a_smaller_number_is_asked_for_and_told() -> None:
    bench = Bench(5)
    bench.take(message(6, 5), message(8, 6), message(7, 5, tag=99))
    bench.live.bridged(Point(5, 5))
    assert [(e.seq, e.tag, e.prev) for _, _, e in bench.ears.entries][-1] == (7, 99, Point(5, 5))


def test_a_log_that_was_restored_gives_numbers_out_again_and_none_is_taken_for_another() -> None:
    bench = Bench(8)
    bench.take(message(6, 5, tag=66, when=LATER))  # not above where the subscription began, and later than that
    assert bench.asked == [6]
    bench.live.bridged(Point(5, 5))
    bench.take(message(8, 6, tag=88, when=LATER), message(9, 8, when=LATER))
    assert [(e.point, e.prev) for _, _, e in bench.ears.entries] == [
        (Point(6, 66), Point(5, 5)),
        (Point(8, 88), Point(6, 66)),
        (Point(9, 9), Point(8, 88)),
    ]


def test_another_one_under_the_number_that_was_told_last_is_told_behind_what_was_read() -> None:
    bench = Bench(8)
    bench.take(message(8, 5, tag=88, when=LATER), message(9, 8, when=LATER))
    assert bench.asked == [8]
    bench.live.bridged(Point(5, 5))
    assert [(e.point, e.prev) for _, _, e in bench.ears.entries][-1] == (Point(9, 9), Point(8, 88))


@pytest.mark.parametrize("newest", [message(5, 3), None])
def test_a_newest_below_what_was_told_moves_the_chain_back(newest: Message | None) -> None:
    bench, top = Bench(8), Point(5, 5) if newest else START
    bench.live.subscribing()
    bench.live.wake(newest)
    assert not bench.asked
    bench.take(message(8, top.seq, tag=88))
    assert [(e.point, e.prev) for _, _, e in bench.ears.entries] == [(Point(8, 88), top)]


def test_a_newest_that_was_read_before_what_was_heard_since_moves_nothing() -> None:
    bench = Bench(5)
    bench.live.subscribing()
    bench.take(message(9, 5), message(11, 9))
    bench.live.wake(message(9, 8))
    bench.take(message(12, 11))
    assert bench.told == [(9, 5), (11, 9), (12, 11)]


def test_a_newest_that_bellwire_did_not_write_is_dropped_and_counted() -> None:
    bench = Bench(5)
    bench.live.wake(message(9, 5)._replace(data=b"foreign"))
    assert bench.dropped("malformed") == 1


def test_the_newest_under_the_number_that_was_told_last_is_told_if_it_is_another() -> None:
    bench = Bench(8)
    bench.live.subscribing()
    bench.live.wake(message(8, 5))
    assert not bench.asked
    bench.live.wake(message(8, 5, tag=88))
    assert bench.asked == [8]


def test_the_newest_after_a_reconnection_wakes_once() -> None:
    bench = Bench(5)
    newest = message(9, 8)
    bench.live.wake(newest)
    bench.take(message(9, 8), message(11, 9))
    bench.live.wake(newest)
    assert bench.asked == [9]
    bench.live.bridged(Point(8, 8))
    bench.live.wake(newest)
    assert bench.told == [(9, 8), (11, 9)]
    assert bench.asked == [9]


def test_a_newest_without_the_number_before_it_is_told_behind_what_was_read() -> None:
    bench = Bench(5)
    newest = message(9, 8)
    del newest.headers["Nats-Last-Sequence"]  # a direct get of one message has none
    bench.live.wake(newest)
    bench.live.bridged(Point(8, 8))
    assert bench.told == [(9, 8)]


def test_not_more_than_so_many_wait() -> None:
    bench = Bench(None)
    bench.take(*(message(n, n - 1) for n in range(1, MAX_WAITING + 11)))
    assert bench.dropped("buffer_full") == 10
    bench.live.opened(None)
    assert len(bench.told) == MAX_WAITING


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Sequence": "x"},
        {"Nats-Sequence": "6"},
        {"Nats-Sequence": "6", "Nats-Last-Sequence": "-"},
        {"Nats-Sequence": "6", "Nats-Last-Sequence": "5"},
        {"Nats-Sequence": "6", "Nats-Last-Sequence": "5", "Nats-Time-Stamp": "yesterday"},
    ],
)
@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02\x90", b"\x01\x93\xa1m\x01", b"{}", b"\x01" + b"\x91" * 5_000])
def test_what_bellwire_did_not_write_is_dropped_and_counted(headers: dict[str, str], data: bytes) -> None:
    bench = Bench(5)
    bench.take(Message(headers, data, ""), message(6, 5))
    assert bench.told == [(6, 5)]
    assert bench.dropped("malformed") == 1


def test_a_foreign_one_behind_a_gap_is_dropped_too() -> None:
    bench = Bench(5)
    bench.take(Message({"Nats-Sequence": "9", "Nats-Last-Sequence": "8"}, b"foreign", ""))
    bench.live.bridged(Point(8, 8))
    assert bench.dropped("malformed") == 1
    bench.take(message(6, 5))
    assert bench.told == [(6, 5)]


def test_what_has_no_number_is_volatile_and_passes_those_that_wait() -> None:
    bench = Bench(None)
    bench.take(Message({}, b"now", ""))
    assert bench.ears.bodies == [("room", b"now")]


def test_the_points_before_own_appends_are_kept_while_one_waits() -> None:
    bench = Bench(5)
    bench.take(message(6, 5))
    assert bench.live.prev_of(6) is None
    bench.live.own += 2
    bench.take(message(8, 6))
    bench.live.settle()
    assert bench.live.prev_of(8) == Point(6, 6)
    bench.live.settle()
    assert bench.live.prev_of(8) is None
