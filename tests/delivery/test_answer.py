"""What a log answers: the words that clients are told, and the rest of a page that was read for another."""

from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.answer import Page, Reason
from bellwire.delivery.entry import Draft
from bellwire.delivery.log import DEFAULT_LIMITS, Log, dense
from bellwire.delivery.position import Position


def test_a_reason_is_the_word_that_the_wire_carries() -> None:
    assert [str(reason) for reason in Reason] == [
        "truncated",
        "generation",
        "diverged",
        "too_far",
        "forbidden",
        "session_lost",
    ]


def filled(count: int) -> Log:
    log = Log("1.a", DEFAULT_LIMITS, dense, 0.0)
    for number in range(1, count + 1):
        log.append(Draft(f"m{number}", number * 7, b"x"), 0.0)
    return log


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.booleans())
def test_the_rest_of_a_page_is_what_the_log_would_answer(first: int, behind: int, messages: int, gone: bool) -> None:
    log = filled(12)
    page = log.read(Position("1.a", first, first * 7), messages)
    assert isinstance(page, Page)
    at = Position("1.a", behind, behind * 7 + gone)
    rest = page.behind(at)
    if rest is None:
        return
    answer = log.read(at, len(rest.entries))
    assert isinstance(answer, Page)
    assert (rest.entries, rest.top, rest.more) == (answer.entries, answer.top, page.more)
    assert rest.entries


def test_the_rest_of_a_page_is_for_who_stands_in_it() -> None:
    page = filled(12).read(Position("1.a", 2, 14), 8)
    assert isinstance(page, Page)
    rest = page.behind(Position("1.a", 5, 35))
    assert rest is not None
    assert [entry.seq for entry in rest.entries] == [6, 7, 8, 9, 10]
    for at in (
        Position("1.a", 2, 14),  # before it
        Position("1.a", 10, 70),  # at its end
        Position("1.a", 11, 77),  # behind it
        Position("1.a", 5, 36),  # at a place that was taken back
        Position("0.a", 5, 35),  # in a former log
    ):
        assert page.behind(at) is None
