"""S23, S24: who never reads, and one who makes the server say everything to everybody."""

from tests.attacks.peer import Ended, frame
from tests.attacks.target import Target

MIB = 1024 * 1024


def test_s23_who_never_reads_is_made_to_go(target: Target) -> None:
    with target.grows_by_at_most(16 * MIB):
        sluggards = [target.join() for _ in range(4)]
        for sluggard in sluggards:
            sluggard.say('42["flood",20000]')
        target.until(lambda: target.vitals()["sessions"] == 1)
    assert target.counted('reason="slow_consumer"') >= 4


def test_s23_pings_that_are_not_read_are_answered_to_an_end(target: Target) -> None:
    with target.grows_by_at_most(16 * MIB):
        sluggard = target.join()
        sluggard.offer(frame(9, b"x" * 125) * 200_000)
        target.until(lambda: target.vitals()["sessions"] == 1)


def test_s24_one_client_does_not_flood_a_large_room(target: Target) -> None:
    members = [target.join() for _ in range(100)]
    for member in members:
        assert member.call("join", "large") is True
    attacker = target.join()
    before = target.counted("rate_limited")
    attacker.offer(b"".join([frame(1, f'42{n}["say","large","all of you"]'.encode()) for n in range(3_000)]))
    target.serves()
    assert attacker.ends() == 1008
    assert target.counted("rate") > before
    heard = 0
    try:
        while members[0].listen(0.5):
            heard += members[0].text().startswith('42["said"')
    except Ended:
        pass
    assert 100 <= heard <= 1_000
