"""What waits for a large room: in batches, in order, to exactly those who were members."""

import asyncio

from bellwire.protocol.post import Post
from bellwire.server.backlog import MAX_WAVES, Backlog, Wave
from bellwire.server.socket import Socket
from bellwire.testing.clock import advance
from tests.server.test_fanout import Recorder, group, to

A, B, C = (Post("/", name, (), binary=False) for name in "abc")
SIZE = A.stock.size


def backlog(most: int = 1_000_000, most_volatile: int = 1_000_000) -> Backlog:
    return Backlog(most, most_volatile)


def crowd(count: int) -> list[Recorder]:
    return [Recorder() for _ in range(count)]


def heard(recorders: list[Recorder]) -> list[int]:
    return sorted(len(recorder.parts) for recorder in recorders)


def as_socket(recorder: Recorder) -> Socket:
    (socket,) = group(recorder)
    return socket


def test_a_wave_goes_out_in_batches_and_everyone_gets_it_once() -> None:
    waiting, members = backlog(), crowd(7)
    waiting.add(to(*members), [A], "")
    waiting.hand_out(3)
    assert heard(members) == [0, 0, 0, 0, 1, 1, 1]
    waiting.hand_out(3)
    assert heard(members) == [0, 1, 1, 1, 1, 1, 1]
    assert not waiting.empty
    waiting.hand_out(3)
    assert heard(members) == [1] * 7
    assert waiting.empty


def test_what_comes_meanwhile_leaves_together_after_it() -> None:
    waiting, members = backlog(), crowd(4)
    everyone = to(*members)
    waiting.add(everyone, [A], "")
    waiting.hand_out(2)
    waiting.add(everyone, [B], "")
    waiting.add(everyone, [C], "")
    for _ in range(3):
        waiting.hand_out(2)
    assert waiting.empty
    assert [[message.parts for message in member.given] for member in members] == [
        [('42["a"]',), ('42["b"]', '42["c"]')]
    ] * 4
    assert len({id(member.given[1]) for member in members}) == 1, "joined once for all of them"


def test_who_is_brought_has_all_that_waits_and_nothing_twice() -> None:
    waiting, members = backlog(), crowd(4)
    everyone = to(*members)
    waiting.add(everyone, [A], "")
    waiting.hand_out(1)
    waiting.add(everyone, [B], "")
    one = next(member for member in members if not member.given)
    waiting.bring(as_socket(one))
    assert one.parts == ['42["a"]', '42["b"]']
    waiting.add(everyone, [C], "")
    while not waiting.empty:
        waiting.hand_out(1)
    assert [member.parts for member in members] == [['42["a"]', '42["b"]', '42["c"]']] * 4


def test_who_comes_later_does_not_get_what_waits_and_who_leaves_has_it() -> None:
    waiting, members, newcomer = backlog(), crowd(3), Recorder()
    group_ = set(group(*members))
    everyone = (group_,)
    waiting.add(everyone, [A], "")
    waiting.hand_out(1)
    waiting.add(everyone, [B], "")
    waiting.bring(as_socket(newcomer))
    group_.add(as_socket(newcomer))
    waiting.add(everyone, [C], "")
    leaver = next(member for member in members if not member.given)
    waiting.bring(as_socket(leaver))
    group_.discard(as_socket(leaver))
    while not waiting.empty:
        waiting.hand_out(1)
    assert newcomer.parts == ['42["c"]']
    assert [member.parts for member in members] == [['42["a"]', '42["b"]', '42["c"]']] * 3


def test_a_wave_that_is_fixed_is_for_those_who_were_there() -> None:
    waiting, members, newcomer = backlog(), crowd(2), Recorder()
    group_ = set(group(*members))
    everyone = (group_,)
    waiting.add(everyone, [A], "")
    waiting.fix()
    group_.add(as_socket(newcomer))
    group_.discard(as_socket(members[0]))
    waiting.add(everyone, [B], "")
    for _ in range(2):
        waiting.hand_out(10)
    assert waiting.empty
    assert (members[0].parts, members[1].parts) == (['42["a"]'], ['42["a"]', '42["b"]'])
    assert newcomer.parts == ['42["b"]']


def test_an_audience_that_is_no_set_is_copied_at_once() -> None:
    waiting, members = backlog(), crowd(2)
    sockets = list(group(*members))
    waiting.add((sockets,), [A], "")
    sockets.clear()
    waiting.hand_out(10)
    assert heard(members) == [1, 1]


def test_old_volatile_events_give_way_to_the_newest() -> None:
    waiting, members = backlog(most_volatile=SIZE), crowd(4)
    everyone = to(*members)
    assert waiting.add(everyone, [A], "") == 0
    assert waiting.add(everyone, [A], "r") == 0
    waiting.bring(as_socket(members[0]))
    assert waiting.add(everyone, [B], "r") == 3, "one of the four has it"
    assert waiting.add(everyone, [C], "r") == 4
    while not waiting.empty:
        waiting.hand_out(3)
    assert members[0].parts == ['42["a"]', '42["a"]', '42["c"]']
    assert [member.parts for member in members[1:]] == [['42["a"]', '42["c"]']] * 3


def test_a_volatile_wave_that_some_have_got_goes_on() -> None:
    waiting, members = backlog(most_volatile=0), crowd(2)
    everyone = to(*members)
    waiting.add(everyone, [A], "r")
    waiting.hand_out(1)
    assert waiting.add(everyone, [B], "r") == 0
    while not waiting.empty:
        waiting.hand_out(1)
    assert [member.parts for member in members] == [['42["a"]', '42["b"]']] * 2


async def test_it_is_full_by_bytes_and_whoever_waits_goes_on_when_it_is_not() -> None:
    waiting, members = backlog(most=2 * SIZE), crowd(3)
    everyone = to(*members)
    waiting.add(everyone, [A], "")
    waiting.hand_out(1)
    assert not waiting.full
    waiting.add(everyone, [B], "")
    assert waiting.full
    waiters = [asyncio.ensure_future(waiting.room_for(SIZE)) for _ in range(3)]
    await advance()
    waiting.hand_out(1)
    await advance()
    assert not any(waiter.done() for waiter in waiters)
    waiters.pop(0).cancel()
    waiting.hand_out(1)
    await advance()
    assert [waiter.done() for waiter in waiters] == [True, False], "there is room for one of them"
    assert waiting.full, "whoever comes now does not go before the other one"
    waiting.hand_out(3)
    await advance()
    assert waiters[1].done()
    assert not waiting.full


async def test_it_is_kept_for_those_who_wait_though_what_they_were_let_in_for_never_came() -> None:
    waiting, members = backlog(most=SIZE), crowd(2)
    waiting.add(to(*members), [A], "")
    waiters = [asyncio.ensure_future(waiting.room_for(SIZE)) for _ in range(2)]
    await advance()
    waiting.hand_out(2)
    assert not waiting.empty
    waiting.hand_out(2)
    await advance()
    assert [waiter.done() for waiter in waiters] == [True, True]
    assert waiting.empty


def test_it_is_full_by_the_copies_of_its_members() -> None:
    waiting, members = backlog(), crowd(2)
    for _ in range(MAX_WAVES):
        assert not waiting.full
        waiting.add(to(*members), [A], "")
    assert waiting.full


def test_what_could_not_wait_has_the_oldest_leave_at_once() -> None:
    waiting, members = backlog(most=SIZE), crowd(3)
    audiences = [to(*members), to(*members), to(*members)]
    waiting.add(audiences[0], [A], "")
    assert heard(members) == [0, 0, 0]
    waiting.add(audiences[1], [B], "")
    assert heard(members) == [1, 1, 1], "two events are twice what may wait"
    waiting.add(audiences[2], [C], "")
    assert [member.parts for member in members] == [['42["a"]', '42["b"]']] * 3


def test_what_is_owed_is_counted_for_each_socket() -> None:
    one, two, stranger = crowd(3)
    wave = Wave(to(one, two), [A], "")
    wave.bring(as_socket(one))
    wave.bring(as_socket(stranger))
    wave.add([B])
    assert wave.owed == 3
    wave.fix()
    assert wave.owed == 3
    assert stranger.given == []
