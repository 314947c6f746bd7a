from typing import Any, cast

from bellwire.core.counters import Counters
from bellwire.server.fanout import Fanout
from bellwire.server.hub import Hub, User
from bellwire.server.socket import Socket
from bellwire.transports.tick import Tick

NONE: frozenset[Any] = frozenset()


class Member:
    """As much of a socket as the hub needs."""

    def __init__(self, name: str, user: str | None = None) -> None:
        self.id = name
        self.user = user
        self.rooms: set[str] = set()


def make_hub() -> Hub:
    return Hub("/", Fanout(Tick(cast("Any", None)), Counters()))  # nothing is cast: no loop is needed


def enter(hub: Hub, *members: Member) -> None:
    for member in members:
        hub.add(cast("Socket", member))


def join(hub: Hub, member: Member, *rooms: str) -> None:
    for room in rooms:
        member.rooms.add(room)
        hub.join(cast("Socket", member), room)


def leave(hub: Hub, member: Member) -> None:
    hub.remove(cast("Socket", member), member.rooms)


def ids(hub: Hub, keys: frozenset[Any] = NONE, excluded: frozenset[Any] = NONE) -> list[str]:
    return sorted(socket.id for socket in hub.select(keys, excluded))


def test_nobody_is_meant_by_an_empty_namespace_or_an_unknown_room() -> None:
    hub = make_hub()
    assert ids(hub) == []
    assert ids(hub, frozenset({"r"})) == []
    assert ids(hub, frozenset({User("u")})) == []


def test_everyone_is_meant_where_no_room_is_named() -> None:
    hub = make_hub()
    enter(hub, Member("a"), Member("b"))
    assert ids(hub) == ["a", "b"]


def test_everyone_is_the_same_audience_each_time() -> None:
    hub = make_hub()
    assert hub.select(NONE, NONE) is hub.select(NONE, NONE)


def test_a_member_of_several_rooms_is_meant_once() -> None:
    hub = make_hub()
    a, b, c = Member("a"), Member("b"), Member("c")
    enter(hub, a, b, c)
    join(hub, a, "r", "s")
    join(hub, b, "s")
    found = [socket.id for socket in hub.select(frozenset({"r", "s"}), NONE)]
    assert sorted(found) == ["a", "b"]


def test_what_is_excluded_by_room_by_id_or_by_user_is_taken_away() -> None:
    hub = make_hub()
    a, b, c = Member("a", "ann"), Member("b", "bob"), Member("c")
    enter(hub, a, b, c)
    join(hub, b, "r")
    assert ids(hub, NONE, frozenset({"r"})) == ["a", "c"]
    assert ids(hub, NONE, frozenset({"c"})) == ["a", "b"]
    assert ids(hub, NONE, frozenset({User("ann"), "c"})) == ["b"]
    assert ids(hub, frozenset({"r"}), frozenset({"b"})) == []


def test_a_users_sockets_are_found_and_no_room_of_that_name_is() -> None:
    hub = make_hub()
    a, b, c = Member("a", "ann"), Member("b", "ann"), Member("c")
    enter(hub, a, b, c)
    join(hub, c, "ann")
    assert ids(hub, frozenset({User("ann")})) == ["a", "b"]
    assert ids(hub, frozenset({"ann"})) == ["c"]


def test_an_id_still_means_its_socket_when_others_join_a_room_of_that_name() -> None:
    hub = make_hub()
    a, b = Member("a"), Member("b")
    enter(hub, a, b)
    join(hub, b, "a")
    assert ids(hub, frozenset({"a"})) == ["a", "b"]
    leave(hub, b)
    assert ids(hub, frozenset({"a"})) == ["a"]


def test_nothing_is_kept_of_those_who_left() -> None:
    hub = make_hub()
    a, b = Member("a", "ann"), Member("b")
    enter(hub, a, b)
    join(hub, a, "r", "s")
    join(hub, b, "s")
    leave(hub, a)
    assert (ids(hub), hub.rooms) == (["b"], ["s"])
    leave(hub, b)
    assert (hub.sockets, hub.rooms, hub._groups) == ({}, [], {})


def test_one_who_never_entered_may_leave() -> None:
    hub = make_hub()
    leave(hub, Member("a", "ann"))
    assert hub.sockets == {}


def test_leaving_touches_the_own_rooms_only() -> None:
    """A hub of 10,000 rooms is left in as many steps as the socket has rooms."""
    hub = make_hub()
    touched: list[Any] = []

    class Watched(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            touched.append(key)
            return super().get(key, default)

        def __iter__(self) -> Any:
            raise AssertionError("somebody goes through all rooms")

    a, b = Member("a", "ann"), Member("b")
    enter(hub, a, b)
    join(hub, b, *(f"room {n}" for n in range(10_000)))
    join(hub, a, "r", "room 7")
    hub._groups = Watched(hub._groups)
    leave(hub, a)
    assert sorted(touched, key=str) == sorted(["r", "room 7", User("ann")], key=str)


def test_the_numbers_of_acknowledgements_are_never_given_twice() -> None:
    hub = make_hub()
    assert [hub.next_ack() for _ in range(3)] == [0, 1, 2]
