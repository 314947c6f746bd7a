"""Going round the keys of a dictionary, a few at a time."""

from bellwire.core.rounds import Rounds


def test_each_has_its_turn_in_every_round_and_nobody_two() -> None:
    things = dict.fromkeys("abcde")
    rounds = Rounds(things)
    assert [list(rounds.next(2)) for _ in range(5)] == [["a", "b"], ["c", "d"], ["e", "a"], ["b", "c"], ["d", "e"]]


def test_who_came_has_its_turn_in_the_next_round_and_who_left_has_none() -> None:
    things = dict.fromkeys("abc")
    rounds = Rounds(things)
    assert list(rounds.next(1)) == ["a"]
    del things["b"]
    things["d"] = None
    assert list(rounds.next(2)) == ["c"]
    assert list(rounds.next(3)) == ["a", "c", "d"]


def test_there_are_no_more_than_there_are() -> None:
    assert list(Rounds({}).next(2)) == []
    assert list(Rounds({"a": None}).next(2)) == ["a"]


def test_one_may_be_taken_out_in_its_turn() -> None:
    things = dict.fromkeys("abc")
    for key in Rounds(things).next(3):
        del things[key]
    assert things == {}


def test_when_most_have_gone_the_others_do_not_wait_for_their_turns() -> None:
    things = dict.fromkeys(range(1_000))
    rounds = Rounds(things)
    assert list(rounds.next(1)) == [0]
    for key in range(990):
        del things[key]
    assert list(rounds.next(2)) == [990, 991]
    things.clear()
    assert list(rounds.next(2)) == []
    assert rounds._left == []
