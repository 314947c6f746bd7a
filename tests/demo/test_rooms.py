import pytest

from bellwire.core.errors import EventRefused
from bellwire.demo.events import ChatMessage, Person, Presence
from bellwire.demo.rooms import MAX_HISTORY, MAX_ROOMS, MAX_ROOMS_PER_VISIT, Rooms

ADA = Person("a1", "Ada")
GRACE = Person("b2", "Grace")


def message(number: int) -> ChatMessage:
    return ChatMessage(str(number), "lobby", ADA, "hello", at=number, ref="")


def test_the_tabs_of_one_person_are_one_presence() -> None:
    rooms = Rooms(["lobby"])
    assert rooms.enter("lobby", ADA, "tab-1") == 1
    assert rooms.enter("lobby", GRACE, "tab-2") == 1
    assert rooms.enter("lobby", ADA, "tab-3") == 2
    assert rooms["lobby"].presence() == [Presence(ADA, 2), Presence(GRACE, 1)]
    assert rooms.leave("lobby", ADA, "tab-1") == 1
    assert rooms.leave("lobby", ADA, "tab-3") == 0
    assert rooms["lobby"].presence() == [Presence(GRACE, 1)]


def test_entering_twice_is_one_visit() -> None:
    rooms = Rooms(["lobby"])
    rooms.enter("lobby", ADA, "tab-1")
    assert rooms.enter("lobby", ADA, "tab-1") == 1
    assert rooms.leave("lobby", ADA, "tab-1") == 0


def test_leaving_a_room_that_one_is_not_in_is_told() -> None:
    rooms = Rooms(["lobby"])
    assert rooms.leave("lobby", ADA, "tab-1") is None
    assert rooms.leave("nowhere", ADA, "tab-1") is None


def test_an_emptied_room_is_forgotten_with_its_messages() -> None:
    rooms = Rooms(["lobby"])
    rooms.enter("tea", ADA, "tab-1")
    rooms["tea"].messages.append(message(1))
    assert rooms.names() == ["lobby", "tea"]
    rooms.leave("tea", ADA, "tab-1")
    assert "tea" not in rooms
    rooms.enter("tea", ADA, "tab-1")
    assert list(rooms["tea"].messages) == []


def test_a_given_room_stays_with_its_messages() -> None:
    rooms = Rooms(["lobby"])
    rooms.enter("lobby", ADA, "tab-1")
    rooms["lobby"].messages.append(message(1))
    rooms.leave("lobby", ADA, "tab-1")
    assert list(rooms["lobby"].messages) == [message(1)]


def test_a_room_remembers_its_last_messages() -> None:
    rooms = Rooms(["lobby"])
    rooms["lobby"].messages.extend(message(number) for number in range(MAX_HISTORY + 5))
    assert [m.at for m in rooms["lobby"].messages] == list(range(5, MAX_HISTORY + 5))


def test_the_number_of_rooms_is_bounded() -> None:
    rooms = Rooms(["lobby"])
    for number in range(MAX_ROOMS - 1):
        rooms.enter(f"room {number}", ADA, f"tab-{number}")
    with pytest.raises(EventRefused, match="rooms are open") as refusal:
        rooms.enter("one more", ADA, "tab")
    assert (refusal.value.code, refusal.value.path) == ("rooms_full", "$.room")
    assert "one more" not in rooms
    assert rooms.of("tab") == ()
    rooms.enter("room 1", GRACE, "tab")
    rooms.leave("room 0", ADA, "tab-0")
    rooms.enter("one more", ADA, "tab")


def test_the_rooms_of_one_visit_are_bounded() -> None:
    rooms = Rooms(["lobby"])
    for number in range(MAX_ROOMS_PER_VISIT):
        rooms.enter(f"room {number}", ADA, "tab")
    with pytest.raises(EventRefused, match="leave one first") as refusal:
        rooms.enter("lobby", ADA, "tab")
    assert refusal.value.code == "too_many_rooms"
    assert rooms["lobby"].presence() == []
    assert rooms.enter("room 0", ADA, "tab") == 1, "a room that one is in can be entered again"


def test_nothing_is_left_of_a_visit_that_has_left_all_its_rooms() -> None:
    rooms = Rooms(["lobby"])
    rooms.enter("lobby", ADA, "tab")
    rooms.enter("tea", ADA, "tab")
    for name in rooms.of("tab"):
        rooms.leave(name, ADA, "tab")
    assert rooms.of("tab") == ()
    assert rooms.names() == ["lobby"]
    assert rooms["lobby"].presence() == []
