import asyncio
from collections.abc import Collection
from typing import Any, ClassVar, cast

from bellwire import Event, Server
from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Message, Outgoing
from bellwire.server.fanout import Fanout
from bellwire.server.socket import Socket
from bellwire.testing import connect
from bellwire.testing.clock import advance
from bellwire.transports.base import Carrier
from bellwire.transports.tick import Tick
from tests.server.house import SAY


class Recorder(Carrier):
    """A carrier that keeps what it is given, and a socket that has it."""

    name: ClassVar[str] = "websocket"
    buffered = 0

    def __init__(self, tick: Tick | None = None, *, writable: bool = True) -> None:
        self.sink = self
        self.given: list[Message] = []
        self.flushes = 0
        self.full = not writable
        self._tick = tick

    @property
    def parts(self) -> list[str | bytes]:
        return [part for message in self.given for part in message.parts]

    @property
    def writable(self) -> bool:
        return not self.full

    def send(self, message: Message) -> None:
        self.given.append(message)
        if self._tick is not None and len(self.given) == 1:
            self._tick.touch(self)

    def flush(self) -> None:
        self.flushes += 1

    def close(self, code: int = 1000) -> None: ...
    def abort(self) -> None: ...
    def set_reading(self, reading: bool) -> None: ...


def group(*recorders: Recorder) -> Collection[Socket]:
    return cast("Collection[Socket]", set(recorders))


def make_fanout() -> tuple[Fanout, Counters]:
    counters = Counters()
    return Fanout(Tick(asyncio.get_running_loop()), counters), counters


A, B, C = Outgoing('42["a"]'), Outgoing('42["b"]'), Outgoing('42["c"]')


async def test_messages_leave_at_the_end_of_the_tick_in_order() -> None:
    fanout, _ = make_fanout()
    one, two = Recorder(), Recorder()
    both, first = group(one, two), group(one)
    fanout.cast(both, A)
    fanout.cast(first, B)
    fanout.cast(both, C)
    assert one.given == []
    await advance()
    assert one.parts == ['42["a"]', '42["b"]', '42["c"]']
    assert two.parts == ['42["a"]', '42["c"]']


async def test_neighbours_to_one_audience_are_joined_once_for_all_of_it() -> None:
    fanout, _ = make_fanout()
    one, two = Recorder(), Recorder()
    both = group(one, two)
    fanout.cast(both, A)
    fanout.cast(both, B)
    await advance()
    (run,) = one.given
    assert two.given == [run]
    assert two.given[0] is run
    assert run.parts == ('42["a"]', '42["b"]')


async def test_a_single_message_is_handed_on_as_it_is() -> None:
    fanout, _ = make_fanout()
    one = Recorder()
    fanout.cast(group(one), A)
    await advance()
    assert one.given[0] is A


async def test_volatile_and_reliable_messages_are_not_joined() -> None:
    fanout, counters = make_fanout()
    slow = Recorder(writable=False)
    audience = group(slow)
    fanout.cast(audience, A)
    fanout.cast(audience, B, volatile=True)
    fanout.cast(audience, C)
    fanout.settle()
    assert slow.parts == ['42["a"]', '42["c"]']
    assert counters.get("dropped_total", kind="volatile", reason="buffer_full", policy="oldest_kept") == 1


async def test_every_dropped_volatile_message_is_counted_per_recipient() -> None:
    fanout, counters = make_fanout()
    slow, other, quick = Recorder(writable=False), Recorder(writable=False), Recorder()
    audience = group(slow, other, quick)
    fanout.cast(audience, A, volatile=True)
    fanout.cast(audience, B, volatile=True)
    fanout.settle()
    assert (slow.parts, other.parts, quick.parts) == ([], [], ['42["a"]', '42["b"]'])
    assert counters.get("dropped_total", kind="volatile", reason="buffer_full", policy="oldest_kept") == 4


async def test_settling_again_sends_nothing_twice() -> None:
    fanout, _ = make_fanout()
    one = Recorder()
    fanout.cast(group(one), A)
    fanout.settle()
    fanout.settle()
    await advance()
    assert one.parts == ['42["a"]']


async def test_one_write_per_connection_and_tick() -> None:
    loop = asyncio.get_running_loop()
    tick = Tick(loop)
    fanout = Fanout(tick, Counters())
    recorders = [Recorder(tick) for _ in range(10)]
    all_of_them, some = group(*recorders), group(*recorders[:5])
    for message in (A, B, C):
        fanout.cast(all_of_them, message)
        fanout.cast(some, message)
    await advance()
    assert {recorder.flushes for recorder in recorders} == {1}


async def test_a_message_is_framed_once_however_many_receive_it() -> None:
    """Every recipient is given the same object, also by the server as a whole."""
    server = Server()
    root = server.namespace("/")
    seen: list[Message] = []
    async with connect(server) as one, connect(server) as two:
        for client in (one, two):
            carrier: Any = client.carrier

            def watch(message: Message, send: Any = carrier.send) -> None:
                seen.append(message)
                send(message)

            root._hubs["/"].sockets[client.id].sink = cast("Carrier", _Watched(watch))
        await root.emit(SAY, "x")
        await root.emit(SAY, "y")
        await advance()
        first, second = seen
        assert first is second
        assert first.parts == ('42["say","x"]', '42["say","y"]')


class _Watched(Recorder):
    def __init__(self, send: Any) -> None:
        super().__init__()
        self._watch = send

    def send(self, message: Message) -> None:
        self._watch(message)


async def test_a_broadcast_is_encoded_when_it_is_sent() -> None:
    server = Server()
    root = server.namespace("/")
    event: Event[None, dict[str, int]] = Event("d", dict[str, int])
    async with connect(server) as one, connect(server) as two:
        payload = {"n": 1}
        await root.emit(event, payload)
        payload["n"] = 2  # encoded already
        assert await one.receive(event) == {"n": 1}
        assert await two.receive(event) == {"n": 1}
