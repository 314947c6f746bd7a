"""Round trips against a small server, which is right or wrong as a test wants it."""

from typing import Any

import pytest

from bellwire.load.clients.base import ECHO, NUMBERED, RELAY, Client, LoadError, Manner, RefusedError
from bellwire.load.clients.socketio import Stock
from bellwire.load.clients.v1 import V1
from bellwire.load.result import Result
from bellwire.load.roundtrips import roundtrips
from tests.load.server import V1Server, running


def round_trips(
    port: int, *, connections: int, client: type[Client] = Stock, kind: str = ECHO, **more: Any
) -> list[Result]:
    return roundtrips(("127.0.0.1", port), connections, lambda _: client(Manner(kind)), **more)


def test_roundtrips_counts_every_reply() -> None:
    with running() as (port, _):
        (result,) = round_trips(port, connections=3, size=200, seconds=0.05)
    assert result.shape == ("echo", 3, 200, 1, "")
    assert result.messages >= 3
    assert result.rate == pytest.approx(result.messages / result.seconds)
    assert 0 < result.p50 <= result.p99


def test_replies_with_pings_between_them_are_replies() -> None:
    with running(lambda _, packet: ["2", packet]) as (port, _):
        (result,) = round_trips(port, connections=2, size=64, seconds=0.02)
    assert result.messages > 0


def test_json_with_other_spaces_is_the_same_reply() -> None:
    with running(lambda _, packet: [packet.replace('["', '[ "')]) as (port, _):
        (result,) = round_trips(port, connections=1, size=64, seconds=0.02)
    assert result.messages > 0


def test_a_reply_to_another_request_is_found() -> None:
    with (
        running(lambda _, packet: [packet.replace("43100", "43101")]) as (port, _),
        pytest.raises(LoadError, match="not the reply to request 100"),
    ):
        round_trips(port, connections=1, size=64, seconds=0.02)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('44{"message":"no","data":{"code":7}}', "'no'"),
        ('44"no"', "'no'"),
        ('44{"message":7}', "b'44{\"message\":7}'"),
        ("41", "b'41'"),
    ],
)
def test_a_refused_namespace_is_told_with_what_the_server_says(answer: str, told: str) -> None:
    def refuse(_: int, packet: Any) -> list[Any]:
        return [answer] if packet.startswith("40") else [packet]

    with running(refuse) as (port, _), pytest.raises(RefusedError) as raised:
        round_trips(port, connections=1, size=64, seconds=0.02)
    assert str(raised.value) == f"the server refused the namespace: {told}"


@pytest.mark.parametrize("kind", [ECHO, NUMBERED, RELAY])
def test_all_kinds_of_round_trips_are_counted(kind: str) -> None:
    with running(kind=V1Server) as (port, _):
        (result,) = round_trips(port, connections=3, size=64, seconds=0.05, client=V1, kind=kind)
    assert result.shape.work == kind
    assert result.messages > 3


def test_a_relay_that_emits_nothing_is_found() -> None:
    def silent(_: int, message: Any) -> list[Any]:
        return [] if message[0] == "s" else [message]

    with running(silent, V1Server) as (port, _), pytest.raises(LoadError, match="not the reply to request 1"):
        round_trips(port, connections=1, size=64, seconds=0.02, client=V1, kind=RELAY)
