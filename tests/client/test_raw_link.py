"""The way of a link that speaks bellwire.v1, row by row, in both encodings."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire import Event
from bellwire.client.codec import RawCodec
from bellwire.client.link import (
    JOIN_SECONDS,
    OPEN_SECONDS,
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
from bellwire.client.raw_link import ANSWER_SECONDS, QUIET_SECONDS, RawLink
from bellwire.core.errors import PacketError
from bellwire.delivery.position import Point
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol import wire
from bellwire.protocol.embedding import Hello

PRODUCER = "0123456789abcdef" * 2
CURSOR = wire.Cursor("r", "g", 3, 7)
HELLO = Hello(1, "instance", PRODUCER, "secret", (CURSOR,))
CONNECTED = wire.Connected("/chat", "s", 65_536, "next", True, wire.Greeting(PRODUCER, 4, "9f"))

SAY = Event("say", str)
BLOB = Event("blob", bytes, reply=bytes)

both = pytest.mark.parametrize("msgpack", [True, False])


def new(msgpack: bool = False, auth: dict[str, Any] | None = None, hello: Hello | None = None) -> RawLink:
    return RawLink(RawCodec("/chat", wire.MSGPACK if msgpack else wire.JSON), auth, lambda: hello, 0.0)


def joined(msgpack: bool = False) -> RawLink:
    link = new(msgpack)
    link.opened(1.0)
    assert link.receive(wire.encode(CONNECTED, msgpack=msgpack), 2.0) == Joined(
        Welcome("s", "next", True, CONNECTED.producer, 65_536)
    )
    return link


def said(action: object) -> wire.ClientMessage:
    """What a server reads."""
    assert isinstance(action, Send)
    return wire.parse(action.message.parts[0])


def args(*values: Any, msgpack: bool) -> msgspec.Raw:
    return wire.encode_args(values, msgpack=msgpack)


@both
def test_an_open_websocket_is_told_who_wants_in(msgpack: bool) -> None:
    assert said(new(msgpack).opened(1.0)) == wire.Connect("/chat")
    assert said(new(msgpack, {"token": "x"}, HELLO).opened(1.0)) == wire.Connect(
        "/chat", {"token": "x"}, "instance", PRODUCER, "secret", (CURSOR,)
    )
    assert joined(msgpack).phase is Phase.JOINED


@both
def test_the_server_refuses(msgpack: bool) -> None:
    link = new(msgpack)
    link.opened(1.0)
    refused = wire.Refused("/chat", "no", {"code": 1})
    assert link.receive(wire.encode(refused, msgpack=msgpack), 2.0) == Refused("no", {"code": 1})
    assert link.phase is Phase.OVER


@both
def test_events_and_replies(msgpack: bool) -> None:
    link = joined(msgpack)
    blob = wire.ServerEvent("/chat", "blob", args(b"x", msgpack=msgpack), 3, wire.After("u", 5, 9))
    received = link.receive(wire.encode(blob, msgpack=msgpack), 3.0)
    assert isinstance(received, Received)
    assert (received.parcel.name, received.ack, received.after) == ("blob", 3, wire.After("u", 5, 9))
    assert received.parcel.read(PayloadReader(BLOB)) == (b"x",)
    nothing = wire.ServerEvent("/chat", "poke", args(msgpack=msgpack))
    received = link.receive(wire.encode(nothing, msgpack=msgpack), 3.0)
    assert isinstance(received, Received)
    assert received.parcel.read(PayloadReader(Event("poke"))) == ()
    reply = wire.Reply("/chat", 5, args(b"y", msgpack=msgpack))
    answered = link.receive(wire.encode(reply, msgpack=msgpack), 3.0)
    assert isinstance(answered, Answered)
    assert (answered.ack, answered.answer.read(ReplyReader(BLOB))) == (5, b"y")


@both
def test_events_of_a_stream_and_outcomes(msgpack: bool) -> None:
    link = joined(msgpack)
    event = wire.StreamEvent(6, 5, 9, 2, 7, "m", "say", args("hi", msgpack=msgpack), "g2")
    placed = link.receive(wire.encode(event, msgpack=msgpack), 3.0)
    assert isinstance(placed, Placed)
    assert placed[:3] == (6, "g2", Point(3, 7))
    assert (placed.entry.point, placed.entry.mid) == (Point(5, 9), "m")
    assert placed.entry.parcel is not None
    assert placed.entry.parcel.read(PayloadReader(SAY)) == ("hi",)
    outcome = wire.Outcome("/chat", 5, args(b"x", msgpack=msgpack))
    settled = link.receive(wire.encode(outcome, msgpack=msgpack), 3.0)
    assert isinstance(settled, Settled)
    assert (settled.number, settled.answer.read(ReplyReader(BLOB))) == (5, b"x")


@both
@pytest.mark.parametrize(
    "message",
    [
        wire.Open("/chat", "r", 6, "g", 3, 7),
        wire.Close("r"),
        wire.Advance("r", 3, 7, "g", 5, 9),
        wire.Proved("r", 6, "g", 3, 7),
        wire.Reset("r", 6, "truncated", "g", 3, 7),
        wire.Nack("/chat", 2, 1, "g", 1.5),
        wire.Skipped("/chat", 2),
        wire.Drain(2.5),
    ],
)
def test_other_messages_are_told_as_they_are(msgpack: bool, message: wire.ServerMessage) -> None:
    assert joined(msgpack).receive(wire.encode(message, msgpack=msgpack), 3.0) == message


@both
def test_a_ping_is_answered_and_a_pong_is_life(msgpack: bool) -> None:
    link = joined(msgpack)
    assert said(link.receive(wire.encode(wire.Ping(), msgpack=msgpack), 3.0)) == wire.Pong()
    assert link.receive(wire.encode(wire.Pong(), msgpack=msgpack), 3.0) is None


def test_the_server_ends_it() -> None:
    link = joined()
    assert link.receive('["disconnect","/chat","bye"]', 3.0) == Ended("io server disconnect", final=True)
    assert link.phase is Phase.OVER


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (None, Ended("transport close")),
        (1001, Ended("transport close")),
        (1005, Ended("transport close")),
        (1006, Ended("transport close")),
        (1012, Ended("transport close")),
        (4000, Ended("transport close")),
        (4002, Ended("transport close")),
        (1000, Ended("closed by the server: 1000", final=True)),
        (1009, Ended("closed by the server: 1009", final=True)),
        (4500, Ended("closed by the server: malformed", final=True)),
        (4501, Ended("closed by the server: replaced", final=True)),
    ],
)
def test_the_code_says_whether_to_come_back(code: int | None, ended: Ended) -> None:
    assert joined().closed(code) == ended


@pytest.mark.parametrize(
    "message",
    ['["disconnect","/chat"]', '["s",6,5,9,2,7,"m","say",[]]', '["open","/chat","r",6,"g",3,7]', '["r","/chat",0,[]]'],
)
def test_what_may_not_come_before_connected(message: str) -> None:
    link = new()
    link.opened(1.0)
    with pytest.raises(PacketError, match="before the answer"):
        link.receive(message, 2.0)
    assert link.phase is Phase.OVER


@pytest.mark.parametrize(
    "message",
    [
        "",
        "nonsense",
        "[]",
        '["?"]',
        b"\x91\xa4ping",
        '["connected","/chat","s",65536]',
        '["refused","/chat","no"]',
        '["e","/other","say",["hi"]]',
        '["disconnect","/other"]',
        '["e","/chat","say",5]',
        '["e","/chat","say","args"]',
        '["r","/chat",5,{}]',
        '["connect","/chat"]',
        '["ask","r","g",3,7]',
    ],
)
def test_what_may_not_come_at_all(message: str | bytes) -> None:
    link = joined()
    with pytest.raises(PacketError):
        link.receive(message, 2.0)
    assert link.phase is Phase.OVER


def test_args_that_are_no_array_in_msgpack() -> None:
    for message in (
        wire.ServerEvent("/chat", "say", msgspec.Raw(msgspec.msgpack.encode({}))),
        wire.Reply("/chat", 1, msgspec.Raw(msgspec.msgpack.encode("x"))),
    ):
        with pytest.raises(PacketError, match="not an array"):
            joined(msgpack=True).receive(wire.encode(message, msgpack=True), 2.0)


def test_white_space_around_arguments() -> None:
    link = joined()
    received = link.receive('["e", "/chat", "say", [ "hi" ] ]', 3.0)
    assert isinstance(received, Received)
    assert received.parcel.read(PayloadReader(SAY)) == ("hi",)
    received = link.receive('["e","/chat","poke",[ ]]', 3.0)
    assert isinstance(received, Received)
    assert received.parcel.read(PayloadReader(Event("poke"))) == ()
    answered = link.receive('["r","/chat",1,[ ]]', 3.0)
    assert isinstance(answered, Answered)
    assert answered.answer.read(ReplyReader(SAY)) is None


# --- silence


def test_a_connection_that_does_not_open() -> None:
    link = new()
    link.heard(10.0)
    assert link.tick(OPEN_SECONDS - 0.1) is None
    assert link.tick(OPEN_SECONDS) == Ended("connect timeout")


def test_the_answer_to_connect_is_waited_for() -> None:
    link = new()
    link.opened(1.0)
    link.heard(30.0)
    assert link.deadline == 1.0 + JOIN_SECONDS
    assert link.tick(link.deadline) == Ended("connect timeout")
    assert link.tick(1000.0) is None


def test_a_silent_server_is_asked_and_then_given_up() -> None:
    link = joined()
    assert link.deadline == 2.0 + QUIET_SECONDS
    link.heard(10.0)
    assert link.tick(10.0 + QUIET_SECONDS - 0.1) is None
    assert said(link.tick(10.0 + QUIET_SECONDS)) == wire.Ping()
    link.heard(50.0)
    assert link.deadline == 50.0 + QUIET_SECONDS
    assert said(link.tick(link.deadline)) == wire.Ping()
    assert link.deadline == 50.0 + QUIET_SECONDS + ANSWER_SECONDS
    assert link.tick(link.deadline - 0.1) is None
    assert link.tick(link.deadline) == Ended("ping timeout")
    assert link.phase is Phase.OVER


@given(st.lists(st.one_of(st.text(max_size=30), st.binary(max_size=30)), max_size=6), st.booleans(), st.booleans())
def test_any_messages_are_actions_or_one_declared_error(
    messages: list[str | bytes], begun: bool, msgpack: bool
) -> None:
    link = joined(msgpack) if begun else new(msgpack)
    if not begun:
        link.opened(1.0)
    for message in messages:
        try:
            link.receive(message, 1.0)
        except PacketError:
            assert link.phase is Phase.OVER
            return
