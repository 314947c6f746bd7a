import asyncio
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, cast

from bellwire import Event, Server
from bellwire.protocol.outgoing import Message, join
from bellwire.protocol.post import Delivery, Post
from bellwire.server.dialects import STOCK, Dialect, Item, Stock, embedded, raw
from bellwire.server.fanout import Audience, Fanout
from bellwire.server.latest import Fresh, Latest
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

    def __init__(self, tick: Tick | None = None, *, writable: bool = True, dialect: Dialect = STOCK) -> None:
        self.sink = self
        self.dialect = dialect
        self.given: list[Message] = []
        self.flushes = 0
        self.full = not writable
        self.latest: Latest | None = None
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

    def keep(self, news: Sequence[Fresh]) -> None:
        self.latest = self.latest or Latest()
        self.latest.put(news)

    def send_latest(self) -> None:
        latest, self.latest = self.latest, None
        if latest is not None:
            self.send(join([item.stock for item in latest.items]))

    def flush(self) -> None:
        self.flushes += 1

    def close(self, code: int = 1000) -> None: ...
    def abort(self) -> None: ...
    def set_reading(self, reading: bool) -> None: ...


def group(*recorders: Recorder) -> Collection[Socket]:
    return cast("Collection[Socket]", set(recorders))


def to(*recorders: Recorder) -> Audience:
    return (group(*recorders),)


def make_fanout() -> Fanout:
    return Fanout(Tick(asyncio.get_running_loop()))


def post(name: str) -> Post:
    return Post("/", name, (), binary=False)


def delivery(name: str) -> Delivery:
    return Delivery(post(name), "r7", "g", (1, 10), 2, 20, "m", named=False)


A, B, C = post("a"), post("b"), post("c")


async def test_messages_leave_at_the_end_of_the_tick_in_order() -> None:
    fanout = make_fanout()
    one, two = Recorder(), Recorder()
    both, first = to(one, two), to(one)
    fanout.cast(both, A)
    fanout.cast(first, B)
    fanout.cast(both, C)
    assert one.given == []
    await advance()
    assert one.parts == ['42["a"]', '42["b"]', '42["c"]']
    assert two.parts == ['42["a"]', '42["c"]']


async def test_neighbours_to_one_audience_are_joined_once_for_all_of_it() -> None:
    fanout = make_fanout()
    one, two = Recorder(), Recorder()
    both = to(one, two)
    fanout.cast(both, A)
    fanout.cast(both, B)
    await advance()
    (run,) = one.given
    assert two.given == [run]
    assert two.given[0] is run
    assert run.parts == ('42["a"]', '42["b"]')


async def test_what_goes_to_others_in_between_keeps_its_place() -> None:
    fanout = make_fanout()
    one = Recorder()
    lasting, other = to(one), to(one)
    for audience, item in ((lasting, A), (other, B), (lasting, C)):
        fanout.cast(audience, item)
    await advance()
    assert [message.parts for message in one.given] == [('42["a"]',), ('42["b"]',), ('42["c"]',)]


async def test_a_single_message_is_handed_on_as_it_is() -> None:
    fanout = make_fanout()
    one = Recorder()
    fanout.cast(to(one), A)
    await advance()
    assert one.given[0] is A.stock


async def test_each_dialect_is_rendered_and_joined_once() -> None:
    fanout = make_fanout()
    v1 = raw(msgpack=False, streams=True)
    stock, bound, raws = ([Recorder(dialect=d) for _ in range(2)] for d in (STOCK, embedded("/"), v1))
    audience: Audience = (group(*stock, *bound), group(*raws))
    fanout.cast(audience, delivery("a"))
    fanout.cast(audience, B)
    await advance()
    for one, two in (stock, bound, raws):
        assert len(one.given) == 1
        assert two.given[0] is one.given[0]
    assert stock[0].parts == ['42["a"]', '42["b"]']
    assert bound[0].parts == ['42["a",{"bellwire":["s","r7",1,10,2,20,"m"]}]', '42["b"]']
    assert raws[0].parts == ['["s","r7",1,10,2,20,"m","a",[]]', '["e","/","b",[]]']


class Counting(Stock):
    """A dialect with a state: what is sent says how much was sent before."""

    def __init__(self, sent: int) -> None:
        self.sent = sent

    def deliver(self, items: Sequence[Item]) -> tuple[Message, Dialect]:
        before = post(f"behind {self.sent}").stock
        return join([before, *[item.stock for item in items]]), Counting(self.sent + len(items))


async def test_a_dialect_with_a_state_goes_on_in_the_next_one() -> None:
    fanout = make_fanout()
    shared = Counting(5)
    one, two, other = Recorder(dialect=shared), Recorder(dialect=shared), Recorder()
    everyone = to(one, two, other)
    fanout.cast(everyone, A)
    fanout.cast(everyone, B)
    fanout.settle()
    fanout.cast(everyone, C, volatile="r")
    fanout.settle()
    assert one.parts == ['42["behind 5"]', '42["a"]', '42["b"]', '42["behind 7"]', '42["c"]']
    assert two.given[1] is one.given[1]  # they share their states, and so what is made in them
    assert other.parts == ['42["a"]', '42["b"]', '42["c"]']
    assert other.dialect is STOCK


async def test_volatile_and_reliable_messages_are_not_joined() -> None:
    fanout = make_fanout()
    slow = Recorder(writable=False)
    audience = to(slow)
    fanout.cast(audience, A)
    fanout.cast(audience, B, volatile="r")
    fanout.cast(audience, C)
    fanout.settle()
    assert slow.parts == ['42["a"]', '42["c"]']
    assert slow.latest is not None
    assert slow.latest.items == [B]


async def test_volatile_messages_of_two_streams_are_not_joined() -> None:
    fanout = make_fanout()
    one = Recorder()
    audience = to(one)
    fanout.cast(audience, A, volatile="r")
    fanout.cast(audience, B, volatile="s")
    fanout.settle()
    assert len(one.given) == 2


async def test_a_volatile_message_is_kept_for_those_without_room_as_one_object() -> None:
    fanout = make_fanout()
    slow, other, quick = Recorder(writable=False), Recorder(writable=False), Recorder()
    audience: Audience = (group(slow, quick), group(other))
    fanout.cast(audience, A, volatile="r")
    fanout.cast(audience, B, volatile="r")
    fanout.settle()
    assert (slow.parts, other.parts, quick.parts) == ([], [], ['42["a"]', '42["b"]'])
    assert slow.latest is not None
    assert other.latest is not None
    assert slow.latest._kept[0] is other.latest._kept[0]


async def test_what_was_kept_goes_before_what_is_newer() -> None:
    fanout = make_fanout()
    one = Recorder(writable=False)
    audience = to(one)
    fanout.cast(audience, A, volatile="r")
    fanout.settle()
    one.full = False
    fanout.cast(audience, B, volatile="r")
    fanout.settle()
    assert one.parts == ['42["a"]', '42["b"]']


async def test_settling_again_sends_nothing_twice() -> None:
    fanout = make_fanout()
    one = Recorder()
    fanout.cast(to(one), A)
    fanout.settle()
    fanout.settle()
    await advance()
    assert one.parts == ['42["a"]']


async def test_one_write_per_connection_and_tick() -> None:
    loop = asyncio.get_running_loop()
    tick = Tick(loop)
    fanout = Fanout(tick)
    recorders = [Recorder(tick) for _ in range(10)]
    all_of_them, some = to(*recorders), to(*recorders[:5])
    for item in (A, B, C):
        fanout.cast(all_of_them, item)
        fanout.cast(some, item)
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
