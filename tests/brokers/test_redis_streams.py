"""What lies in Redis and how it is read: places, records, the answers of scripts."""

import pytest

from bellwire.brokers.redis_link import Refused
from bellwire.brokers.redis_slots import slot_of
from bellwire.brokers.redis_streams import Scripts, answered, appended, did_nothing, opened, place_of
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.log import Appended
from bellwire.delivery.position import START, Point, Position
from tests.brokers.making import record


def test_all_of_a_stream_lies_in_one_slot_and_its_name_is_no_part_of_it() -> None:
    place = place_of("app", "room:{a}*\n")
    parts = place.log, place.meta, place.mids, place.channel, place.key
    assert {slot_of(part.partition(b"{")[2].partition(b"}")[0]) for part in parts} == {place.slot}
    assert all(part.startswith(b"app:{") and b"room" not in part for part in parts)
    assert len(set(parts)) == 5
    assert place_of("app", "room:{a}* \n").log != place.log
    assert place_of("other", "room:{a}*\n").log != place.log


def test_a_name_may_hold_what_is_no_unicode() -> None:
    assert place_of("app", "\ud800") != place_of("app", "\ud801")


def test_each_script_says_by_its_first_line_what_it_may_do() -> None:
    first_lines = {name: script.source.partition("\n")[0] for name, script in Scripts()._asdict().items()}
    taking = {name for name, line in first_lines.items() if line == "#!lua"}
    assert taking == {"append", "put"}
    assert {line for name, line in first_lines.items() if name not in taking} == {"#!lua flags=allow-oom"}


def test_a_record_is_an_entry() -> None:
    entry = opened(record(7, Point(5, 6), at=1.25))
    assert (entry.seq, entry.tag, entry.prev, entry.mid, entry.body, entry.at) == (7, 77, (5, 6), "m7", b"body", 1.25)


@pytest.mark.parametrize(
    "foreign", [b"", b"1 2 3", b"a b c d e f\n\x01", b"1 11 0 0 1 70\n\x09", b"1 11 0 0 1 70\n\x01\x90"]
)
def test_what_bellwire_did_not_write_is_told(foreign: bytes) -> None:
    with pytest.raises(BrokerUnavailable):
        opened(foreign)


def test_an_entry_whose_two_tags_differ_is_told() -> None:
    with pytest.raises(BrokerUnavailable, match="two tags"):
        opened(record(1).replace(b"1 11 ", b"1 12 ", 1))


def test_the_answers_to_an_append() -> None:
    assert appended([b"new", b"g", b"6", b"5", b"9"], 7) == Appended("g", Point(6, 7), Point(5, 9), duplicate=False)
    known = [b"known", b"f", b"6", b"8", b"5", b"9"]
    assert appended(known, 7) == Appended("f", Point(6, 8), Point(5, 9), duplicate=True)
    with pytest.raises(BrokerUnavailable, match="deadline"):
        appended([b"late", b"1"], 7)


def test_the_answers_to_a_read() -> None:
    top = Position("g", 2, 22)
    page = answered([b"page", b"g", b"2", b"22", b"1", record(1)])
    assert page == Page([opened(record(1))], top, more=True, confirmed=True)
    assert page.entries[0].prev == START
    for reason in (Reason.GENERATION, Reason.DIVERGED, Reason.TRUNCATED):
        answer = answered([reason.value.encode(), b"g", b"2", b"22", b"1", b"11"])
        assert answer == Unproved(reason, Position("g", 1, 11), top, confirmed=True)


@pytest.mark.parametrize(
    ("text", "nothing"),
    [("READONLY You can't", True), ("OOM command", True), ("NOREPLICAS Not", True), ("ERR what", False), ("", False)],
)
def test_only_what_is_refused_before_it_runs_did_nothing(text: str, nothing: bool) -> None:
    assert did_nothing(Refused(text)) is nothing
