"""Fan-out against a small server, which is right or wrong as a test wants it."""

import asyncio
from typing import Any

import pytest

from bellwire.load.clients.base import Client, LoadError, Manner
from bellwire.load.clients.socketio import Recovering, Stock
from bellwire.load.clients.v1 import V1
from bellwire.load.fanout import fanout
from bellwire.load.result import Result
from tests.load.server import FakeServer, RecoveringServer, V1Server, running


def fan_out(port: int, *, connections: int, client: type[Client] = Stock, **more: Any) -> list[Result]:
    return fanout(("127.0.0.1", port), connections, lambda _: client(Manner()), **more)


def test_fanout_counts_every_delivery() -> None:
    with running() as (port, _):
        one, many = fan_out(port, connections=5, size=64, windows=[1, 8], seconds=0.05)
    assert one.shape == ("fanout", 5, 64, 1, "")
    assert many.shape.window == 8
    for result in (one, many):
        assert result.messages > 0
        assert result.rate == pytest.approx(result.messages * 5 / result.seconds)
        assert 0 < result.p50 <= result.p99 <= result.seconds * 1e3


def test_pings_are_answered_and_not_counted() -> None:
    events = [0, 0, 0]

    def with_pings(number: int, packet: Any) -> list[Any]:
        events[number] += packet.startswith("42")
        return ["2", "2", packet] if events[number] == 25 else [packet]  # after the verifying pass

    with running(with_pings) as (port, fake):
        (result,) = fan_out(port, connections=3, size=8, windows=[4], seconds=0.05)
        assert fake.left.wait(10)
    assert result.messages > 0
    assert fake.pongs == 6


def test_pings_do_not_stand_for_what_is_late() -> None:
    fakes: list[FakeServer] = []
    events = [0, 0, 0]

    def late(number: int, packet: Any) -> list[Any]:
        if not packet.startswith("42"):
            return [packet]
        events[number] += 1
        pings = ["2"] * 4 if events[number] == 25 else []  # of all three together, more than one message
        if number < 2:
            return [*pings, packet]
        asyncio.get_running_loop().call_later(0.01, fakes[0].write, number, packet)
        return pings

    with running(late) as (port, fake):
        fakes.append(fake)
        (result,) = fan_out(port, connections=3, size=8, windows=[1], seconds=0.1)
    assert result.messages > 0


def test_bytes_that_nobody_sent_for_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bellwire.load.swarm.PATIENCE", 0.2)
    count = 0

    def doubled(number: int, packet: Any) -> list[Any]:
        nonlocal count
        count += number == 1 and packet.startswith("42")
        return [packet, packet] if count == 25 and number == 1 else [packet]

    with running(doubled) as (port, _), pytest.raises(LoadError, match=r"bytes too many|not what was"):
        fan_out(port, connections=3, size=64, windows=[1], seconds=0.05)


def test_a_message_that_comes_again_late_is_found() -> None:
    measured = False

    def again(number: int, packet: Any) -> list[Any]:
        nonlocal measured
        measured |= "00000000" in packet
        return [packet.replace("1", "0"), packet] if measured and "00000001" in packet else [packet]

    with running(again) as (port, _), pytest.raises(LoadError, match="not what was published"):
        fan_out(port, connections=2, size=64, windows=[1], seconds=0.02)


def test_a_wrong_order_is_found() -> None:
    held: list[str] = []

    def swapped(number: int, packet: Any) -> list[Any]:
        if number != 2 or not packet.startswith("42"):
            return [packet]
        held.append(packet)
        return [] if len(held) == 1 else [packet, held.pop(0)] if len(held) == 2 else [packet]

    with (
        running(swapped) as (port, _),
        pytest.raises(LoadError, match="not what was published, in that order"),
    ):
        fan_out(port, connections=3, size=64, windows=[1], seconds=0.02)


def test_a_message_that_never_comes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bellwire.load.swarm.PATIENCE", 0.2)
    count = 0

    def leaky(number: int, packet: Any) -> list[Any]:
        nonlocal count
        if number != 2 or not packet.startswith("42"):
            return [packet]
        count += 1
        return [] if count == 25 else [packet]  # after the 20 messages of the verifying pass

    with (
        running(leaky) as (port, _),
        pytest.raises(LoadError, match=r"stalled: 1 of \d+ messages"),
    ):
        fan_out(port, connections=3, size=64, windows=[1], seconds=0.2)


@pytest.mark.parametrize(("client", "kind"), [(Recovering, RecoveringServer), (V1, V1Server)])
def test_clients_that_can_come_back_are_counted_too(client: type[Client], kind: type[FakeServer]) -> None:
    with running(kind=kind) as (port, _):
        one, many = fan_out(port, connections=4, size=64, windows=[1, 8], seconds=0.05, client=client)
    assert one.messages > 0
    assert many.messages > 60, "so many that the numbers have become longer on the way"


def test_an_offset_that_does_not_go_on_is_found() -> None:
    class Stuck(RecoveringServer):
        def event(self, packet: str) -> str:
            self.seq -= self.seq == 25
            return super().event(packet)

    with running(kind=Stuck) as (port, _), pytest.raises(LoadError, match="event 25 came behind event 25"):
        fan_out(port, connections=2, size=64, windows=[4], seconds=0.2, client=Recovering)


def test_a_hole_in_a_stream_is_found() -> None:
    class Holed(V1Server):
        def entry(self, stream: str, text: str) -> Any:
            if self.points[stream][0] == 69 + 25:
                self.points[stream] = (69 + 26, 7)
            return super().entry(stream, text)

    with running(kind=Holed) as (port, _), pytest.raises(LoadError, match=r"follows on \(95, 7\) came behind \(94, "):
        fan_out(port, connections=2, size=64, windows=[4], seconds=0.2, client=V1)


def test_an_event_without_an_offset_is_found() -> None:
    def bare(_: int, packet: Any) -> list[Any]:
        return [packet.partition(',"c3')[0] + "]" if packet.startswith("42") else packet]

    with running(bare, RecoveringServer) as (port, _), pytest.raises(LoadError, match="event without an offset"):
        fan_out(port, connections=2, size=64, windows=[4], seconds=0.02, client=Recovering)


def test_a_server_that_recovers_nobody_is_found() -> None:
    with running() as (port, _), pytest.raises(LoadError, match="add --connection-state-recovery"):
        fan_out(port, connections=2, size=64, windows=[4], seconds=0.02, client=Recovering)


def test_pings_of_bellwire_v1_are_answered() -> None:
    events = [0, 0]

    def with_pings(number: int, message: Any) -> list[Any]:
        events[number] += message[0] == "s"
        return [["ping"], message] if events[number] == 25 else [message]

    with running(with_pings, V1Server) as (port, fake):
        (result,) = fan_out(port, connections=2, size=64, windows=[4], seconds=0.05, client=V1)
        assert fake.left.wait(10)
    assert result.messages > 5
    assert fake.pongs == 2
