"""S17, S18: rooms that are not open, and more of everything than one client needs."""

import statistics
import time
from typing import Any

import pytest

from tests.attacks.peer import Ended, Peer, frame
from tests.attacks.target import Target

MIB = 1024 * 1024


# --- S17: rooms


def test_s17_no_packet_joins_a_room(target: Target) -> None:
    """Socket.IO has none that does; a client gets into a room where the application's handler puts it."""
    spy, speaker = target.join(), target.join()
    for attempt in ('42["join","secret"]', '42["subscribe","open"]', '42["room:join","open"]', '42["joined","open"]'):
        spy.say(attempt)
    assert speaker.call("join", "open") is True
    assert speaker.call("say", "open", "among ourselves") is True
    assert speaker.call("say", "secret", "among ourselves") is True
    spy.say('429["echo","the last"]')
    assert spy.text() == '439["the last"]'


def test_s17_who_may_not_join_is_not_told_whether_there_is_such_a_room(target: Target) -> None:
    client = target.join()
    answers = [client.call("join", f"secret-{number}") for number in range(20)]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["error"]["code"] == "forbidden"


def test_s17_time_tells_nothing_either(target: Target) -> None:
    """The check comes before anything that depends on whether there is somebody in the room."""
    host, client = target.join(), target.join()
    host.call("join", "populated")
    times: dict[str, list[float]] = {"secret-populated": [], "secret-empty": []}
    for _ in range(40):
        for room, measured in times.items():
            began = time.perf_counter()
            client.call("join", room)
            measured.append(time.perf_counter() - began)
    one, other = (statistics.median(measured) for measured in times.values())
    assert abs(one - other) < 0.5 * min(one, other) + 0.001


@pytest.mark.parametrize("room", ["", "r" * 256, "r" * 100_000])
def test_s18_names_of_rooms_are_bounded(target: Target, room: str) -> None:
    client = target.join()
    assert client.call("join", room)["error"]["code"] == "room_limit"


def test_s17_the_room_that_a_socket_is_cannot_be_joined(target: Target) -> None:
    victim = target.open().say("40")
    sid = victim.text().partition('"sid":"')[2][:20]
    spy = target.join()
    assert spy.call("join", sid)["error"]["code"] == "room_limit"


# --- S18: exhaustion


def test_s18_a_socket_is_in_128_rooms_at_most(target: Target) -> None:
    client = target.join()
    for number in range(128):
        assert patiently(client, "join", f"room-{number}") is True
    assert patiently(client, "join", "one more")["error"]["code"] == "room_limit"


def test_s18_rooms_that_everybody_has_left_are_gone(target: Target) -> None:
    def one_round(number: int) -> None:
        client = target.join()
        for place in range(100):
            client.call("join", f"passing-{number}-{place}")
        client.close()

    for number in range(5):
        one_round(number)
    objects = target.objects()
    with target.grows_by_at_most(8 * MIB):
        for number in range(5, 30):
            one_round(number)
    target.until(lambda: target.objects() < objects + 2_000)


def test_s18_namespaces_that_are_not_there_leave_nothing_behind(target: Target) -> None:
    objects = target.objects()
    with target.grows_by_at_most(8 * MIB):
        for start in range(0, 20_000, 2_000):
            client = target.join()
            client.offer(
                b"".join([frame(1, f"40/nowhere-{number},".encode()) for number in range(start, start + 2_000)])
            )
            assert "Invalid namespace" in client.text()
            assert client.ends() == 1008  # who asks for so many is made to go
    target.until(lambda: target.objects() < objects + 2_000)


@pytest.mark.parametrize("size", [16_384, 900_000])
def test_s18_what_comes_with_connect_is_bounded(target: Target, size: int) -> None:
    client = target.open()
    with target.grows_by_at_most(8 * MIB):
        for _ in range(5):
            client.say('40/members,{"a":"' + "x" * size + '"}')
            assert client.text().startswith('44/members,{"message":"auth is larger')


def patiently(client: Peer, event: str, *args: Any) -> Any:
    """Call as often as it takes until it does not come too soon."""
    while True:
        answer = client.call(event, *args)
        if answer is True or answer["error"]["code"] != "rate_limited":
            return answer
        client.listen(answer["error"]["retry_after"])


def test_s18_joining_and_leaving_again_and_again(target: Target) -> None:
    client = target.open()
    objects = target.objects()
    try:
        for _ in range(100):
            client.say("40")
            client.text()
            client.say("41")
    except (Ended, OSError):
        pass
    client.close()
    target.until(lambda: target.objects() < objects + 2_000)
