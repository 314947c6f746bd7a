from bellwire.protocol.post import Post
from bellwire.server.latest import NEWEST, NEWEST_BYTES, OF_EACH, Fresh, Latest


def fresh(value: object, name: str = "cursor", stream: str = "r") -> Fresh:
    return Fresh(stream, Post("/", name, (value,), binary=False))


def kept(latest: Latest) -> list[str]:
    return [str(item.stock.parts[0]) for item in latest.items]


def test_they_come_in_the_order_in_which_they_were_emitted() -> None:
    latest = Latest()
    assert latest.put([fresh(1), fresh("a", "typing"), fresh(2)]) == 0
    assert kept(latest) == ['42["cursor",1]', '42["typing","a"]', '42["cursor",2]']
    assert len(latest) == 3


def test_of_an_event_in_a_room_the_oldest_gives_way() -> None:
    latest = Latest()
    latest.put([fresh("a", "typing")])
    assert latest.put(map(fresh, range(OF_EACH + 3))) == 3
    assert kept(latest) == ['42["typing","a"]', *(f'42["cursor",{n}]' for n in range(3, OF_EACH + 3))]


def test_the_same_event_in_another_room_is_another_one() -> None:
    latest = Latest()
    latest.put([fresh(0, stream="quiet")])
    assert latest.put(map(fresh, range(OF_EACH))) == 0
    assert len(latest) == OF_EACH + 1


def test_one_of_each_room_that_a_socket_may_be_in_has_room() -> None:
    latest = Latest()
    assert latest.put(fresh(n, stream=f"room {n}") for n in range(NEWEST)) == 0
    assert latest.put([fresh("more", stream="one more")]) == 1
    assert (len(latest), kept(latest)[0], kept(latest)[-1]) == (NEWEST, '42["cursor",1]', '42["cursor","more"]')


def test_their_bytes_are_bounded_and_the_newest_is_kept_whatever_its_size() -> None:
    latest = Latest()
    assert latest.put([fresh("x" * (NEWEST_BYTES // 2), stream=f"room {n}") for n in range(3)]) == 2
    assert latest.put([fresh(1)]) == 0
    assert latest.put([fresh("x" * 2 * NEWEST_BYTES)]) == 2
    assert len(latest) == 1
    assert latest.put([fresh(2)]) == 1
    assert kept(latest) == ['42["cursor",2]']
