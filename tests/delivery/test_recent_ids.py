from hypothesis import given
from hypothesis import strategies as st

from bellwire.delivery.recent_ids import FEW, SLICES, Known, RecentIds

WINDOW = 80.0


def standing(at: float, number: int = 1) -> Known:
    return at, "g", number, 0, 0, 0


def test_an_id_is_found_where_it_stood_last() -> None:
    ids = RecentIds()
    ids.add("m", standing(1.0, 1), WINDOW)
    ids.add("m", standing(2.0, 2), WINDOW)
    assert ids.find("m") == standing(2.0, 2)
    assert ids.find("other") is None
    assert len(ids) == 1


def test_ids_are_forgotten_by_the_slice_once_the_last_of_it_is_too_old() -> None:
    ids = RecentIds()
    for number in range(1_000):
        ids.add(f"m{number}", standing(float(number)), WINDOW)
        ids.forget(number - WINDOW)
        kept = [other for other in range(number + 1) if ids.find(f"m{other}")]
        assert kept == list(range(kept[0], number + 1))
        assert min(number + 1, WINDOW + 1) <= len(kept) == len(ids) <= WINDOW + max(FEW, WINDOW / SLICES) + 1
    assert ids.oldest is not None
    ids.forget(2_000.0)
    assert len(ids) == 0
    assert ids.find("m999") is None


def test_a_quiet_stream_has_one_slice_which_its_newest_id_keeps() -> None:
    ids = RecentIds()
    for number in range(1, FEW):
        ids.add(f"m{number}", standing(number * WINDOW), WINDOW)
    assert ids.oldest == (FEW - 1) * WINDOW
    ids.add("m1", standing(FEW * WINDOW), WINDOW)
    assert ids.oldest == FEW * WINDOW, "also if it was there before"


def test_an_id_can_be_discarded() -> None:
    ids = RecentIds()
    ids.add("a", standing(1.0), WINDOW)
    ids.add("b", standing(2.0), WINDOW)
    ids.discard("a")
    ids.discard("unknown")
    assert (ids.find("a"), ids.find("b")) == (None, standing(2.0))
    ids.discard("b")
    assert len(ids) == 0
    assert ids.oldest is None
    ids.add("c", standing(3.0), WINDOW)
    ids.clear()
    assert len(ids) == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 30))))
def test_within_the_window_it_knows_what_a_dictionary_would(said: list[tuple[int, float]]) -> None:
    ids, model, now = RecentIds(), dict[str, float](), 0.0
    for number, passed in said:
        now += passed
        ids.forget(now - WINDOW)
        for mid, at in model.items():
            if at >= now - WINDOW:
                assert ids.find(mid) == standing(at)
        model[f"m{number}"] = now
        ids.add(f"m{number}", standing(now), WINDOW)
