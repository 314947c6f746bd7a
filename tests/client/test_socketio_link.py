"""The way of a link, row by row, and what a hostile server can do to it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire import Event
from bellwire.client.codec import SocketIOCodec
from bellwire.client.link import (
    JOIN_SECONDS,
    OPEN_SECONDS,
    Action,
    Answered,
    Ended,
    Joined,
    Phase,
    Placed,
    Received,
    Refused,
    Send,
    Settled,
    Welcome,
)
from bellwire.client.socketio_link import SocketIOLink
from bellwire.core.errors import EventRefused, PacketError
from bellwire.delivery.position import Point
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol import wire
from bellwire.protocol.embedding import Hello

PRODUCER = "0123456789abcdef" * 2
HELLO = Hello(1, "instance", PRODUCER, "secret", (wire.Cursor("r", "g", 3, 7),))

OPEN = '0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":30000,"maxPayload":1000000}'
WELCOME = '40{"sid":"s"}'


def new(
    namespace: str = "/", auth: dict[str, Any] | None = None, hello: Hello | None = None, now: float = 0.0
) -> SocketIOLink:
    return SocketIOLink(SocketIOCodec(namespace), auth, lambda: hello, now)


def opened(namespace: str = "/", auth: dict[str, Any] | None = None, hello: Hello | None = None) -> SocketIOLink:
    link = new(namespace, auth, hello)
    link.receive(OPEN, 1.0)
    return link


def joined() -> SocketIOLink:
    link = opened()
    assert link.receive(WELCOME, 2.0) == Joined(Welcome("s", limit=1_000_000))
    return link


def negotiated() -> SocketIOLink:
    link = opened("/chat", None, HELLO)
    answer = f'40/chat,{{"sid":"s","bellwire":{{"session":"next","resumed":true,"producer":["{PRODUCER}",4,"9f"]}}}}'
    greeting = wire.Greeting(PRODUCER, 4, "9f")
    assert link.receive(answer, 2.0) == Joined(Welcome("s", "next", True, greeting, 1_000_000))
    return link


def parts(action: Action | None) -> tuple[str | bytes, ...]:
    assert isinstance(action, Send)
    return action.message.parts


def test_open_is_answered_with_connect() -> None:
    link = new()
    assert parts(link.receive(OPEN, 1.0)) == ("40",)
    link = new("/chat", {"token": "x"})
    assert parts(link.receive(OPEN, 1.0)) == ('40/chat,{"token":"x"}',)
    assert link.phase is Phase.JOINING


def test_connect_joins() -> None:
    link = opened("/chat")
    assert link.receive('40/chat,{"sid":"abc","pid":"private"}', 2.0) == Joined(Welcome("abc", limit=1_000_000))
    assert link.phase is Phase.JOINED


def test_a_server_may_not_say_how_much_it_takes() -> None:
    link = new()
    link.receive(OPEN.replace(',"maxPayload":1000000', ""), 1.0)
    assert link.receive(WELCOME, 2.0) == Joined(Welcome("s"))


def test_connect_error_refuses() -> None:
    link = opened()
    assert link.receive('44{"message":"no","data":{"code":1}}', 2.0) == Refused("no", {"code": 1})
    assert link.phase is Phase.OVER


def event(action: Action | None, declared: Event[Any, *tuple[Any, ...]]) -> tuple[Any, ...]:
    """The payload of an event, its acknowledgement, and what it comes after."""
    assert isinstance(action, Received)
    assert action.parcel.name == declared.name
    return *action.parcel.read(PayloadReader(declared)), action.ack, action.after


def reply(action: Action | None, declared: Event[Any, *tuple[Any, ...]]) -> tuple[int, Any]:
    assert isinstance(action, Answered)
    return action.ack, action.answer.read(ReplyReader(declared))


SAY = Event("say", str)
COUNT = Event("count", reply=int)
BLOB = Event("blob", bytes, bytes, reply=bytes)


def test_events_and_acknowledgements() -> None:
    link = joined()
    assert event(link.receive('421["say","hi"]', 3.0), SAY) == ("hi", 1, None)
    assert event(link.receive('42["say","hi"]', 3.0), SAY) == ("hi", None, None)
    assert reply(link.receive("437[1]", 3.0), COUNT) == (7, 1)
    assert link.receive("43[1]", 3.0) is None  # it answers nothing


def test_attachments_come_before_the_event_is_told() -> None:
    link = joined()
    head = '452-["blob",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]'
    assert link.receive(head, 3.0) is None
    assert link.receive(b"zero", 3.0) is None
    assert parts(link.receive("2", 3.0)) == ("3",)  # the heartbeat is below Socket.IO and may come between
    assert event(link.receive(b"one", 3.0), BLOB) == (b"one", b"zero", None, None)
    answered = link.receive('461-9[{"_placeholder":true,"num":0}]', 3.0) or link.receive(b"x", 3.0)
    assert reply(answered, BLOB) == (9, b"x")


# --- bellwire.v1 inside


def test_the_client_says_where_it_stands_and_is_told_who_it_is() -> None:
    link = new("/chat", {"token": "x"}, HELLO)
    (connect,) = parts(link.receive(OPEN, 1.0))
    assert connect == (
        f'40/chat,{{"token":"x","bellwire":{{"version":1,"instance":"instance","producer":"{PRODUCER}",'
        '"session":"secret","cursors":[["r","g",3,7]]}}'
    )
    negotiated()


def test_an_event_of_a_stream_is_told_without_its_trailer() -> None:
    link = negotiated()
    placed = link.receive('42/chat,["say","hi",{"bellwire":["s",6,5,9,2,7,"m","g2"]}]', 3.0)
    assert isinstance(placed, Placed)
    assert placed[:3] == (6, "g2", Point(3, 7))
    assert (placed.entry.point, placed.entry.mid, placed.entry.prev) == (Point(5, 9), "m", Point(3, 7))
    assert placed.entry.parcel is not None
    assert placed.entry.parcel.read(PayloadReader(SAY)) == ("hi",)
    assert placed.entry.size == 64 + 1 + len('["say","hi"]')


def test_a_binary_event_of_a_stream_is_told_without_its_trailer() -> None:
    link = negotiated()
    one, two = '{"_placeholder":true,"num":0}', '{"_placeholder":true,"num":1}'
    link.receive(f'452-/chat,["blob",{one},{two},{{"bellwire":["s",6,5,9,2,7,"m"]}}]', 3.0)
    link.receive(b"1", 3.0)
    placed = link.receive(b"2", 3.0)
    assert isinstance(placed, Placed)
    assert placed.gen is None
    assert placed.entry.parcel is not None
    assert placed.entry.parcel.read(PayloadReader(BLOB)) == (b"1", b"2")


def test_an_event_may_come_after_a_position() -> None:
    action = negotiated().receive('42/chat,3["say","hi",{"bellwire":["e",["u",5,9]]}]', 3.0)
    assert event(action, SAY) == ("hi", 3, wire.After("u", 5, 9))


def test_an_event_in_no_stream_is_as_ever() -> None:
    assert event(negotiated().receive('42/chat,["say","hi"]', 3.0), SAY) == ("hi", None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["open","/chat","r",6,"g",3,7]', wire.Open("/chat", "r", 6, "g", 3, 7)),
        ('["close","r","forbidden"]', wire.Close("r", "forbidden")),
        ('["advance","r",3,7,"g",5,9]', wire.Advance("r", 3, 7, "g", 5, 9)),
        ('["proved","r",6,"g",3,7]', wire.Proved("r", 6, "g", 3, 7)),
        ('["reset","r",6,"truncated","g",3,7]', wire.Reset("r", 6, "truncated", "g", 3, 7)),
        ('["nack","/chat",2,1,"g",1.5]', wire.Nack("/chat", 2, 1, "g", 1.5)),
        ('["skipped","/chat",2]', wire.Skipped("/chat", 2)),
        ('["drain",2.5]', wire.Drain(2.5)),
    ],
)
def test_other_messages_are_told_as_they_are(text: str, message: object) -> None:
    assert negotiated().receive(f'42/chat,["bellwire",{text}]', 3.0) == message


def test_an_outcome_is_read_as_a_reply() -> None:
    link = negotiated()
    settled = link.receive('42/chat,["bellwire",["n","/chat",5,[3]]]', 3.0)
    assert isinstance(settled, Settled)
    assert (settled.number, settled.answer.read(ReplyReader(COUNT))) == (5, 3)
    settled = link.receive('42/chat,["bellwire",["n","/chat",6,["AAE="]]]', 3.0)
    assert isinstance(settled, Settled)
    assert settled.answer.read(ReplyReader(BLOB)) == b"\0\1"
    refused = link.receive('42/chat,["bellwire",["n","/chat",7,[{"error":{"code":"no","message":"x"}}]]]', 3.0)
    assert isinstance(refused, Settled)
    with pytest.raises(EventRefused, match="no: x"):
        refused.answer.read(ReplyReader(COUNT))
    nothing = link.receive('42/chat,["bellwire",["n","/chat",8,[]]]', 3.0)
    assert isinstance(nothing, Settled)
    assert nothing.answer.read(ReplyReader(SAY)) is None


@pytest.mark.parametrize(
    "packet",
    [
        '42/chat,["bellwire"]',
        '42/chat,["bellwire",["open"]]',
        '42/chat,["bellwire",["ask","r","g",3,7]]',
        '42/chat,["bellwire",["nack","/other",2,1]]',
        '42/chat,5["bellwire",["drain",1]]',
        '42/chat,["bellwire",["n","/chat",5,{}]]',
        '42/chat,["say",{"bellwire":["s"]}]',
        '42/chat,5["say",{"bellwire":["s",6,5,9,2,7,"m"]}]',
    ],
)
def test_a_server_that_does_not_keep_to_it(packet: str) -> None:
    with pytest.raises(PacketError):
        negotiated().receive(packet, 3.0)


def test_a_server_that_did_not_negotiate_may_have_such_events() -> None:
    link = opened("/", None, HELLO)
    link.receive(WELCOME, 2.0)
    action = link.receive('42["say","hi",{"bellwire":["s",6,5,9,2,7,"m"]}]', 3.0)
    assert event(action, Event("say", str, Any)) == ("hi", {"bellwire": ["s", 6, 5, 9, 2, 7, "m"]}, None, None)
    own = link.receive('42["bellwire",["drain",1]]', 3.0)
    assert isinstance(own, Received)
    assert own.parcel.name == "bellwire"


# --- the heartbeat, and the end


def test_a_ping_is_answered() -> None:
    assert parts(joined().receive("2", 3.0)) == ("3",)
    assert parts(opened().receive("2", 3.0)) == ("3",)


def test_the_server_ends_it() -> None:
    for packet, ended in (("41", Ended("io server disconnect", final=True)), ("1", Ended("transport close"))):
        link = joined()
        assert link.receive(packet, 3.0) == ended
        assert link.phase is Phase.OVER
    assert joined().closed(1000) == joined().closed(None) == Ended("transport close")
    assert joined().receive("6", 3.0) is None


@pytest.mark.parametrize(
    "packet",
    [
        "2",
        "40",
        "42[]",
        WELCOME,
        "",
        "3",
        "x",
        b"",
        "0",
        "0{}",
        OPEN.replace("25000", "0"),
        OPEN.replace("30000", "-1"),
    ],
)
def test_what_may_not_come_first(packet: str | bytes) -> None:
    link = new()
    with pytest.raises(PacketError):
        link.receive(packet, 1.0)
    assert link.phase is Phase.OVER


@pytest.mark.parametrize(
    "packet",
    [OPEN, '42["a"]', "41", "43[]", "40", "40{}", '40{"sid":1}', '40/b,{"sid":"s"}', "44", "44{}", "44[]", b"x", "3"],
)
def test_what_may_not_come_before_connect(packet: str | bytes) -> None:
    link = opened()
    with pytest.raises(PacketError):
        link.receive(packet, 1.0)
    assert link.phase is Phase.OVER


@pytest.mark.parametrize(
    "packet",
    [
        OPEN,
        WELCOME,
        '44{"message":"x"}',
        '42/other,["a"]',
        "41/other",
        b"x",
        "3",
        "5",
        "9",
        "4",
        "4x",
        '4511-["a"]',
    ],
)
def test_what_may_not_come_later(packet: str | bytes) -> None:
    with pytest.raises(PacketError):
        joined().receive(packet, 1.0)


def test_nothing_comes_between_a_packet_and_its_attachments() -> None:
    link = joined()
    link.receive('451-["blob",{"_placeholder":true,"num":0}]', 3.0)
    with pytest.raises(PacketError, match="among the attachments"):
        link.receive('42["a"]', 3.0)


# --- silence


def test_the_open_packet_is_waited_for() -> None:
    link = new(now=5.0)
    link.heard(20.0)  # bytes of the HTTP response, say: no reason to wait longer
    assert link.deadline == 5.0 + OPEN_SECONDS
    assert link.tick(link.deadline - 0.1) is None
    assert link.tick(link.deadline) == Ended("connect timeout")
    assert link.tick(1000.0) is None


def test_the_answer_to_connect_is_waited_for() -> None:
    link = opened()
    link.receive("2", 30.0)
    link.heard(30.0)
    assert link.deadline == 1.0 + JOIN_SECONDS
    assert link.tick(link.deadline) == Ended("connect timeout")


def test_the_server_may_be_silent_for_interval_and_timeout_together() -> None:
    link = joined()
    assert link.deadline == 2.0 + 55.0
    assert link.tick(56.9) is None
    link.heard(50.0)
    assert link.tick(57.0) is None
    assert link.tick(105.0) == Ended("ping timeout")
    assert link.phase is Phase.OVER


# --- hostile servers

PIECES = st.sampled_from(
    [
        OPEN,
        WELCOME,
        "2",
        "6",
        "41",
        '42["a"]',
        '451-["a",{"_placeholder":true,"num":0}]',
        "43[1]",
        '44{"message":"x"}',
        b"x",
        '42/chat,["bellwire",["n","/chat",5,[3]]]',
        '42/chat,["bellwire",["close","r"]]',
        '42/chat,["say","hi",{"bellwire":["s",6,5,9,2,7,"m"]}]',
        '451-/chat,["a",{"_placeholder":true,"num":0},{"bellwire":["s",6,5,9,2,7,"m"]}]',
    ]
)


@given(
    st.lists(st.one_of(PIECES, st.text(max_size=12), st.binary(max_size=8)), max_size=12),
    st.sampled_from([new, joined, negotiated]),
)
def test_any_packets_are_actions_or_one_declared_error(
    packets: list[str | bytes], begin: Callable[[], SocketIOLink]
) -> None:
    link = begin()
    for packet in packets:
        try:
            action = link.receive(packet, 1.0)
        except PacketError:
            assert link.phase is Phase.OVER
            return
        if isinstance(action, Ended | Refused):
            assert link.phase is Phase.OVER
            return


def test_attachments_are_bounded() -> None:
    link = joined()
    link.receive('4510-["a"]', 3.0)
    megabytes = bytes(4 * 1024 * 1024)
    assert [link.receive(megabytes, 3.0) for _ in range(4)] == [None] * 4
    with pytest.raises(PacketError, match="too large"):
        link.receive(b"x", 3.0)
