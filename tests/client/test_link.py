"""The way of a link, row by row, and what a hostile server can do to it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.client.link import (
    JOIN_SECONDS,
    OPEN_SECONDS,
    Action,
    Answered,
    Ended,
    Joined,
    Link,
    Phase,
    Received,
    Refused,
    Send,
)
from bellwire.core.errors import PacketError

OPEN = '0{"sid":"e","upgrades":[],"pingInterval":25000,"pingTimeout":30000,"maxPayload":1000000}'
WELCOME = '40{"sid":"s"}'


def opened(namespace: str = "/", auth: dict[str, Any] | None = None) -> Link:
    link = Link(namespace, auth, 0.0)
    link.receive(OPEN, 1.0)
    return link


def joined() -> Link:
    link = opened()
    assert link.receive(WELCOME, 2.0) == Joined("s")
    return link


def parts(action: Action | None) -> tuple[str | bytes, ...]:
    assert isinstance(action, Send)
    return action.message.parts


def test_open_is_answered_with_connect() -> None:
    link = Link("/", None, 0.0)
    assert parts(link.receive(OPEN, 1.0)) == ("40",)
    link = Link("/chat", {"token": "x"}, 0.0)
    assert parts(link.receive(OPEN, 1.0)) == ('40/chat,{"token":"x"}',)
    assert link.phase is Phase.JOINING


def test_connect_joins() -> None:
    link = opened("/chat")
    assert link.receive('40/chat,{"sid":"abc","pid":"private"}', 2.0) == Joined("abc")
    assert link.phase is Phase.JOINED


def test_connect_error_refuses() -> None:
    link = opened()
    assert link.receive('44{"message":"no","data":{"code":1}}', 2.0) == Refused("no", {"code": 1})
    assert link.phase is Phase.OVER


def test_events_and_acknowledgements() -> None:
    link = joined()
    received = link.receive('421["say","hi"]', 3.0)
    assert isinstance(received, Received)
    assert (received.packet.id, received.packet.payload, received.objects) == (1, '["say","hi"]', None)
    answered = link.receive("437[1]", 3.0)
    assert isinstance(answered, Answered)
    assert (answered.packet.id, answered.objects) == (7, None)


def test_attachments_come_before_the_event_is_told() -> None:
    link = joined()
    head = '452-["blob",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]'
    assert link.receive(head, 3.0) is None
    assert link.receive(b"zero", 3.0) is None
    assert parts(link.receive("2", 3.0)) == ("3",)  # the heartbeat is below Socket.IO and may come between
    received = link.receive(b"one", 3.0)
    assert isinstance(received, Received)
    assert received.objects == ["blob", b"one", b"zero"]
    answered = link.receive('461-9[{"_placeholder":true,"num":0}]', 3.0) or link.receive(b"x", 3.0)
    assert isinstance(answered, Answered)
    assert answered.objects == [b"x"]


def test_a_ping_is_answered() -> None:
    assert parts(joined().receive("2", 3.0)) == ("3",)
    assert parts(opened().receive("2", 3.0)) == ("3",)


def test_the_server_ends_it() -> None:
    for packet, reason in (("41", "io server disconnect"), ("1", "transport close")):
        link = joined()
        assert link.receive(packet, 3.0) == Ended(reason)
        assert link.phase is Phase.OVER
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
    link = Link("/", None, 0.0)
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
    link = Link("/", None, 5.0)
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
    ]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=12), st.binary(max_size=8)), max_size=12), st.booleans())
def test_any_packets_are_actions_or_one_declared_error(packets: list[str | bytes], begun: bool) -> None:
    link = joined() if begun else Link("/", None, 0.0)
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
