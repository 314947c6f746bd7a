from bellwire.server.runs import Runs
from tests.server.test_fanout import A, B, Counting, Recorder, group


def test_events_are_joined_once_for_each_dialect() -> None:
    one, two = Recorder(), Recorder()
    Runs([A, B]).hand(group(one, two))
    assert one.parts == ['42["a"]', '42["b"]']
    assert one.given[0] is two.given[0]


def test_who_shares_a_state_goes_on_in_the_same_next_one() -> None:
    shared = Counting(5)
    one, two, stock = Recorder(dialect=shared), Recorder(dialect=shared), Recorder()
    Runs([A, B]).hand(group(one, two, stock))
    assert one.parts == ['42["behind 5"]', '42["a"]', '42["b"]']
    assert one.dialect is two.dialect is not shared
    assert stock.parts == ['42["a"]', '42["b"]']


def test_volatile_events_are_kept_for_those_without_room_as_one_object() -> None:
    slow, other, quick = Recorder(writable=False), Recorder(writable=False), Recorder()
    runs = Runs([A, B], "r")
    runs.hand(group(slow, quick))
    runs.hand(group(other))
    assert (slow.parts, other.parts, quick.parts) == ([], [], ['42["a"]', '42["b"]'])
    assert slow.latest is not None
    assert other.latest is not None
    assert slow.latest._kept[0] is other.latest._kept[0]
    slow.full = False
    runs.hand(group(slow))
    assert slow.parts == ['42["a"]', '42["b"]'] * 2, "what was kept goes first"
