import asyncio
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, cast

from bellwire import Event, Server
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.protocol.outgoing import Message, join
from bellwire.protocol.post import Delivery, Post
from bellwire.server.backlog import Audience
from bellwire.server.dialects import STOCK, Dialect, Item, Stock, embedded, raw
from bellwire.server.fanout import BETWEEN, Fanout
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
        self.asked: set[int] = set()  # behind how many messages
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

    @property
    def outlet(self) -> int:  # type: ignore[override]  # where others have a number
        self.asked.add(len(self.given))
        return -1

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
    return Fanout(Tick(asyncio.get_running_loop()), Counters(), Config())


def post(name: str) -> Post:
    return Post("/", name, (), binary=False)


def delivery(name: str) -> Delivery:
    return Delivery(post(name), "r7", 6, "g", (1, 10), 2, 20, "m", named=False)


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
    assert bound[0].parts == ['42["a",{"bellwire":["s",6,2,20,1,10,"m"]}]', '42["b"]']
    assert raws[0].parts == ['["s",6,2,20,1,10,"m","a",[]]', '["e","/","b",[]]']


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
    fanout.cast(everyone, C, room="r", volatile=True)
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
    fanout.cast(audience, B, room="r", volatile=True)
    fanout.cast(audience, C)
    fanout.settle()
    assert slow.parts == ['42["a"]', '42["c"]']
    assert slow.latest is not None
    assert slow.latest.items == [B]


async def test_volatile_messages_of_two_streams_are_not_joined() -> None:
    fanout = make_fanout()
    one = Recorder()
    audience = to(one)
    fanout.cast(audience, A, room="r", volatile=True)
    fanout.cast(audience, B, room="s", volatile=True)
    fanout.settle()
    assert len(one.given) == 2


async def test_a_volatile_message_is_kept_for_those_without_room_as_one_object() -> None:
    fanout = make_fanout()
    slow, other, quick = Recorder(writable=False), Recorder(writable=False), Recorder()
    audience: Audience = (group(slow, quick), group(other))
    fanout.cast(audience, A, room="r", volatile=True)
    fanout.cast(audience, B, room="r", volatile=True)
    fanout.settle()
    assert (slow.parts, other.parts, quick.parts) == ([], [], ['42["a"]', '42["b"]'])
    assert slow.latest is not None
    assert other.latest is not None
    assert slow.latest._kept[0] is other.latest._kept[0]


async def test_what_was_kept_goes_before_what_is_newer() -> None:
    fanout = make_fanout()
    one = Recorder(writable=False)
    audience = to(one)
    fanout.cast(audience, A, room="r", volatile=True)
    fanout.settle()
    one.full = False
    fanout.cast(audience, B, room="r", volatile=True)
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
    fanout = Fanout(tick, Counters(), Config())
    recorders = [Recorder(tick) for _ in range(10)]
    all_of_them, some = to(*recorders), to(*recorders[:5])
    for item in (A, B, C):
        fanout.cast(all_of_them, item)
        fanout.cast(some, item)
    await advance()
    assert {recorder.flushes for recorder in recorders} == {1}


async def test_only_what_ends_a_tick_may_be_written_at_once() -> None:
    """A member of several rooms has one write, whatever they all were sent."""
    fanout = make_fanout()
    both, other = Recorder(), Recorder()
    fanout.cast(to(both), A)
    fanout.settle()
    fanout.cast(to(both), B)
    fanout.cast(to(both, other), C)
    assert not both.asked
    await advance()
    assert (both.asked, other.asked) == ({2}, {0})
    assert both.parts == ['42["a"]', '42["b"]', '42["c"]']


async def test_small_rooms_are_written_at_once_where_nobody_is_in_two_of_them() -> None:
    fanout = make_fanout()
    one, two, three = Recorder(), Recorder(), Recorder()
    fanout.cast(to(one), A)
    fanout.cast(to(two), B)
    await advance()
    assert (one.asked, two.asked) == ({0}, {0})
    fanout.cast(to(one), A)
    fanout.cast(to(two, three), B)
    fanout.cast(to(two), C)
    await advance()
    assert (one.asked, two.asked, three.asked) == ({0}, {0, 2}, set())


async def test_small_rooms_with_more_members_than_a_batch_are_not_all_written_at_once() -> None:
    """What their members are sent is for the tick to write, which spreads it over several turns of the loop."""
    fanout = Fanout(Tick(asyncio.get_running_loop()), Counters(), Config(fanout_batch=2))
    recorders = [Recorder() for _ in range(3)]
    for recorder in recorders:
        fanout.cast(to(recorder), A)
    await advance()
    assert [recorder.asked for recorder in recorders] == [set(), set(), {0}]
    for recorder in recorders[:2]:
        fanout.cast(to(recorder), A)
    await advance()
    assert [recorder.asked for recorder in recorders[:2]] == [{1}, {1}]


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


# --- more members than a batch


class Crowd:
    """A fan-out with a small batch, and a loop that turns when the test says so."""

    def __init__(self, **settings: Any) -> None:
        self.counters = Counters()
        self.tick = Tick(asyncio.get_running_loop())
        self.fanout = Fanout(self.tick, self.counters, Config(**{"fanout_batch": 2, **settings}))

    def make(self, count: int) -> list[Recorder]:
        return [Recorder(self.tick) for _ in range(count)]


async def turn() -> None:
    """Let it get to the next batch."""
    for _ in range(BETWEEN + 1):
        await asyncio.sleep(0)


def count(recorders: list[Recorder]) -> int:
    return sum(len(recorder.parts) for recorder in recorders)


async def test_a_large_room_gets_a_batch_in_each_turn_of_the_loop() -> None:
    crowd = Crowd()
    members = crowd.make(5)
    crowd.fanout.cast(to(*members), A)
    assert count(members) == 0
    for expected in (2, 4, 5, 5):
        await turn()
        assert count(members) == expected


async def test_between_two_batches_the_loop_turns_several_times() -> None:
    crowd = Crowd()
    members = crowd.make(4)
    crowd.fanout.cast(to(*members), A)
    served = []
    for _ in range(BETWEEN + 2):
        await asyncio.sleep(0)
        served.append(count(members))
    assert served == [2] * (BETWEEN + 1) + [4]


async def test_a_room_of_one_batch_is_served_in_one_turn() -> None:
    crowd = Crowd()
    members = crowd.make(2)
    crowd.fanout.cast(to(*members), A)
    await turn()
    assert count(members) == 2


async def test_small_rooms_do_not_wait_for_a_large_one() -> None:
    crowd = Crowd()
    members, others = crowd.make(9), crowd.make(2)
    crowd.fanout.cast(to(*members), A)
    await turn()
    crowd.fanout.cast(to(*others), B)
    await turn()
    assert (count(members), count(others)) == (4, 2)


async def test_large_rooms_take_turns_whatever_waits_for_one() -> None:
    crowd = Crowd()
    busy, other = crowd.make(6), crowd.make(4)
    for item in (A, B, C):
        crowd.fanout.cast(to(*busy), item, room="busy")
    crowd.fanout.cast(to(*other), A, room="other")
    for expected in ((2, 0), (2, 2), (4, 2), (4, 4)):
        await turn()
        assert (count(busy), count(other)) == expected


async def test_several_rooms_may_have_a_batch_in_one_turn() -> None:
    crowd = Crowd(fanout_concurrency=2)
    rooms = [crowd.make(4) for _ in range(3)]
    for number, members in enumerate(rooms):
        crowd.fanout.cast(to(*members), A, room=str(number))
    for expected in ([2, 2, 0], [4, 2, 2], [4, 4, 4]):
        await turn()
        assert [count(members) for members in rooms] == expected


async def test_what_goes_to_one_socket_first_brings_what_waits_for_it() -> None:
    crowd = Crowd()
    members = crowd.make(5)
    crowd.fanout.cast(to(*members), A)
    crowd.fanout.cast(to(members[4]), B)
    await advance()
    assert members[4].parts == ['42["a"]', '42["b"]']
    assert {tuple(member.parts) for member in members[:4]} == {('42["a"]',)}


async def test_after_settling_a_large_room_may_change_as_a_whole() -> None:
    crowd = Crowd()
    members, newcomer = crowd.make(5), Recorder()
    room = set(group(*members))
    crowd.fanout.cast((room,), A)
    await turn()
    crowd.fanout.cast((room,), B)
    crowd.fanout.settle()
    room.clear()
    room.update(group(newcomer))
    await advance()
    assert {tuple(member.parts) for member in members} == {('42["a"]', '42["b"]')}
    assert newcomer.parts == []


async def test_of_a_large_room_the_newest_volatile_event_is_kept_and_the_others_are_counted() -> None:
    crowd = Crowd(volatile_buffer_bytes=0)
    members = crowd.make(5)
    everyone = to(*members)
    crowd.fanout.cast(everyone, A, room="r")
    await turn()
    for item in (A, B, C):
        crowd.fanout.cast(everyone, item, room="r", volatile=True)
        crowd.fanout.settle()
    await advance()
    assert {tuple(member.parts) for member in members} == {('42["a"]', '42["c"]')}
    assert crowd.counters.get("dropped_total", kind="volatile", reason="room_full", policy="newest_kept") == 10


async def test_whoever_emits_to_a_full_room_waits_for_that_room_only() -> None:
    crowd = Crowd(send_buffer_bytes=1000, volatile_buffer_bytes=1000)
    members = crowd.make(5)
    crowd.fanout.cast(to(*members), Post("/", "long", ("x" * 2000,), binary=False), room="large")
    await turn()
    assert crowd.fanout.full(["small", "large"])
    assert not crowd.fanout.full(["small"])
    await asyncio.wait_for(crowd.fanout.room_in(["small"], 1), 1)
    await asyncio.wait_for(crowd.fanout.room_in(["small", "large"], 1), 1)
    assert count(members) == 5
    assert not crowd.fanout.full(["large"])


async def test_a_room_is_filled_by_what_is_emitted_in_one_tick_too() -> None:
    crowd = Crowd(send_buffer_bytes=1000, volatile_buffer_bytes=1000)
    members = crowd.make(5)
    everyone = to(*members)
    said = [Post("/", str(number), ("x" * 400,), binary=False) for number in range(12)]

    async def emit(item: Post) -> None:
        if crowd.fanout.full(["large"]):
            await crowd.fanout.room_in(["large"], len(item.body))
        crowd.fanout.cast(everyone, item, room="large")

    await asyncio.wait_for(asyncio.gather(*map(emit, said)), 1)
    await advance()
    for member in members:
        assert member.parts == [item.stock.parts[0] for item in said]
        assert max(message.size for message in member.given) < 2000


async def test_those_who_wait_for_a_full_room_do_not_fill_it_all_at_once() -> None:
    crowd = Crowd(send_buffer_bytes=1000, volatile_buffer_bytes=1000)
    members = crowd.make(5)
    everyone = to(*members)
    said = [Post("/", str(number), ("x" * 400,), binary=False) for number in range(12)]
    crowd.fanout.cast(everyone, Post("/", "long", ("x" * 2000,), binary=False), room="large")
    await turn()

    async def emit(item: Post) -> None:
        await crowd.fanout.room_in(["large"], len(item.body))
        crowd.fanout.cast(everyone, item, room="large")

    await asyncio.wait_for(asyncio.gather(*map(emit, said)), 1)
    await advance()
    for member in members:
        assert member.parts[1:] == [item.stock.parts[0] for item in said]
        assert max(message.size for message in member.given[1:]) < 2000, "what one client may have waiting, and a bit"
    assert not crowd.fanout.full(["large"])


async def test_what_no_broker_could_carry_waits_for_a_large_audience_as_well() -> None:
    crowd = Crowd()
    members, other = crowd.make(5), Recorder()
    crowd.fanout.cast((list(group(*members)),), Post("/", "call", (2**70,), binary=False, id=1))
    crowd.fanout.cast(to(other), A)
    await advance()
    assert {tuple(member.parts) for member in members} == {(f'421["call",{2**70}]',)}
    assert other.parts == ['42["a"]'], "it is nobody else's loss"


class _Broken(Stock):
    def render(self, item: Item) -> Message:
        raise RuntimeError("a fault of ours")


async def test_a_fault_in_one_broadcast_is_not_the_loss_of_the_others() -> None:
    loop, faults = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    crowd = Crowd()
    broken = [Recorder(crowd.tick, dialect=_Broken()) for _ in range(5)]
    first, last, large = Recorder(crowd.tick), Recorder(crowd.tick), crowd.make(5)
    crowd.fanout.cast(to(first), A)
    crowd.fanout.cast(to(*broken), A, room="broken")
    crowd.fanout.cast(to(*broken[:1]), A)
    crowd.fanout.cast(to(last), B)
    crowd.fanout.cast(to(*large), C, room="large")
    await advance()
    assert set(faults) == {"a fault of ours"}
    assert (first.parts, first.flushes) == (['42["a"]'], 1)
    assert (last.parts, last.flushes) == (['42["b"]'], 1)
    assert {tuple(member.parts) for member in large} == {('42["c"]',)}
    assert all(member.flushes for member in large)
