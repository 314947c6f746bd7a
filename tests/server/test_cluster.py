import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from bellwire.brokers.envelope import ALL, MAX_BYTES, Answer, Question, seal, stream_of_node
from bellwire.brokers.memory import MemoryBroker
from bellwire.core.clock import Wheel
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, MessageTooLarge
from bellwire.server.cluster import MAX_ASKED, Asked, Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.peers import BEAT_SECONDS, LEASE_SECONDS
from bellwire.server.register import Register
from bellwire.testing.clock import advance
from tests.server.nodes import away, start


class Party:
    """A node that keeps what it is told."""

    def __init__(self, broker: MemoryBroker) -> None:
        loop = asyncio.get_running_loop()
        self.counters = Counters()
        self.dispatcher = Dispatcher(loop)
        self.cluster = Cluster(broker, Wheel(loop), self.dispatcher, self.counters)
        self.cluster.watch(self)
        self.cluster.remind(self.speak)
        self.news: list[tuple[str, str]] = []
        self.taken: list[tuple[str, bytes]] = []
        self.renewals = 0

    @property
    def id(self) -> str:
        return self.cluster.node

    def node_joined(self, node: str) -> None:
        self.news.append(("joined", node))

    def node_left(self, node: str) -> None:
        self.news.append(("left", node))

    def speak(self) -> None:
        self.renewals += 1

    async def ask(self, kind: str, body: bytes = b"", *nodes: str, within: float = 5.0) -> tuple[str, ...]:
        self.taken.clear()
        return await self.cluster.ask(
            kind,
            body,
            lambda *part: self.taken.append(part),
            timeout=within,
            nodes=frozenset(nodes) or self.cluster.peers.ids,
        )

    async def die(self) -> None:
        """Be killed: it says nothing."""
        await self.dispatcher.close()


@asynccontextmanager
async def parties(count: int) -> AsyncIterator[tuple[MemoryBroker, list[Party]]]:
    broker = await start()
    found = [Party(broker) for _ in range(count)]
    for party in found:
        await party.cluster.start()
    try:
        yield broker, found
    finally:
        for party in found:
            await party.dispatcher.close()
            await party.cluster.close(1)


async def echo(asked: Asked) -> None:
    await asked.answer(b"you said " + asked.body)


# --- who is there


async def test_nodes_know_each_other_and_hear_who_comes_and_goes() -> None:
    async with parties(3) as (_, (one, two, three)):
        assert one.cluster.peers.ids == {two.id, three.id}
        assert three.cluster.peers.ids == {one.id, two.id}
        await two.cluster.close(1)
        assert one.news == [("joined", two.id), ("joined", three.id), ("left", two.id)]
        await advance(3 * LEASE_SECONDS)
        assert one.cluster.peers.ids == {three.id}


async def test_a_killed_node_leaves_when_its_lease_is_over_and_is_tidied_away() -> None:
    async with parties(3) as (broker, (one, two, three)):
        await two.die()
        await advance(LEASE_SECONDS - BEAT_SECONDS)
        assert two.id in one.cluster.peers
        await advance(3 * BEAT_SECONDS)
        assert ("left", two.id) in one.news
        assert ("left", two.id) in three.news
        assert await Register(broker).add(one.id) == {one.id, three.id}


async def test_a_node_knows_those_who_were_there_before_it_heard_them() -> None:
    async with parties(2) as (broker, (one, two)):
        await two.die()
        late = Party(broker)
        await late.cluster.start()
        assert late.cluster.peers.ids == {one.id, two.id}
        await advance(LEASE_SECONDS + 2 * BEAT_SECONDS)
        assert late.cluster.peers.ids == {one.id}
        await late.dispatcher.close()


async def test_a_node_that_stood_still_is_known_again_to_those_who_missed_it_and_to_those_who_start() -> None:
    async with parties(2) as (broker, (one, two)):
        assert two.cluster._timer is not None
        two.cluster._timer.cancel()
        await advance(LEASE_SECONDS + 2 * BEAT_SECONDS)
        assert await Register(broker).add(one.id) == {one.id}
        two.cluster._begin_beat()
        await advance(BEAT_SECONDS)
        assert one.news == [("joined", two.id), ("left", two.id), ("joined", two.id)]
        assert await Register(broker).add(one.id) == {one.id, two.id}


async def test_nobody_is_given_up_while_the_broker_is_away() -> None:
    async with parties(2) as (broker, (one, two)):
        with away(broker):
            await advance(3 * LEASE_SECONDS)
        await advance(3 * BEAT_SECONDS)
        assert one.news == [("joined", two.id)]


async def test_who_starts_while_the_broker_is_away_is_told() -> None:
    broker = await start()
    with away(broker), pytest.raises(BrokerUnavailable):
        await Party(broker).cluster.start()


# --- questions


async def test_all_are_asked_and_each_answers_in_parts() -> None:
    async def twice(asked: Asked) -> None:
        await asked.answer(b"1")
        await asked.answer(b"2")

    async with parties(3) as (_, (one, two, three)):
        two.cluster.serve("count", twice)
        three.cluster.serve("count", twice)
        assert await one.ask("count") == ()
        assert sorted(one.taken) == sorted([(two.id, b"1"), (two.id, b"2"), (three.id, b"1"), (three.id, b"2")])


async def test_only_those_who_are_named_are_asked() -> None:
    async with parties(3) as (_, (one, two, three)):
        two.cluster.serve("echo", echo)
        assert await one.ask("echo", b"x", two.id) == ()
        assert one.taken == [(two.id, b"you said x")]
        assert not three.counters.snapshot()


async def test_nobody_else_there_is_no_question() -> None:
    async with parties(1) as (_, (one,)):
        assert await one.ask("echo") == ()


async def test_a_dead_node_is_named_at_once_and_a_silent_one_when_time_is_over() -> None:
    async def never(asked: Asked) -> None:
        await asyncio.get_running_loop().create_future()

    async with parties(2) as (_, (one, two)):
        two.cluster.serve("wait", never)
        assert await one.ask("wait", b"", "0badcafe") == ("0badcafe",)
        asking = asyncio.ensure_future(one.ask("wait", within=3.0))
        await advance(2.9)
        assert not asking.done()
        await advance(0.2)
        assert asking.result() == (two.id,)


async def test_a_node_that_dies_meanwhile_ends_the_wait() -> None:
    async def never(asked: Asked) -> None:
        await asyncio.get_running_loop().create_future()

    async with parties(2) as (_, (one, two)):
        two.cluster.serve("wait", never)
        asking = asyncio.ensure_future(one.ask("wait", within=600.0))
        await advance(0)
        await two.die()
        await advance(LEASE_SECONDS + 2 * BEAT_SECONDS)
        assert asking.result() == (two.id,)


async def never_withdrawn(asked: Asked) -> None:
    """Answer when nobody waits any longer."""
    over = asyncio.get_running_loop().create_future()
    asked.withdrawn = lambda: over.set_result(None)
    await over
    await asked.answer(b"too late")


@pytest.mark.parametrize("how", ["cancelled", "closed", "killed"])
async def test_those_who_answer_are_told_that_nobody_waits(how: str) -> None:
    async with parties(3) as (_, (one, two, three)):
        for party in (two, three):
            party.cluster.serve("wait", never_withdrawn)
        asking = asyncio.ensure_future(one.ask("wait", within=600.0))
        await advance(0)
        assert len(two.cluster._answering) == len(three.cluster._answering) == 1
        if how == "cancelled":
            asking.cancel()
        elif how == "closed":
            await one.cluster.close(1)
        else:
            await one.die()
        await advance(LEASE_SECONDS + 2 * BEAT_SECONDS)
        for party in (two, three):
            assert (party.cluster._asked, party.cluster._answering) == (0, {})
        assert one.taken == []
        await asyncio.wait((asking,))


async def test_a_question_that_reached_only_some_is_taken_back() -> None:
    async with parties(3) as (broker, (one, two, three)):
        for party in (two, three):
            party.cluster.serve("wait", never_withdrawn)
        late = Party(broker)
        await late.cluster.start()
        asking = asyncio.ensure_future(one.ask("wait", b"", two.id, three.id, within=600.0))
        await advance(0)
        asking.cancel()
        await advance(0)
        assert (two.cluster._asked, three.cluster._asked, late.counters.snapshot()) == (0, 0, {})
        await late.dispatcher.close()
        await late.cluster.close(1)


async def test_a_question_may_wait_for_days() -> None:
    async with parties(2) as (_, (one, two)):
        two.cluster.serve("echo", echo)
        assert await one.ask("echo", b"x", within=10**20) == ()
        assert one.taken == [(two.id, b"you said x")]


async def test_a_part_that_was_too_large_can_be_replaced() -> None:
    async def large(asked: Asked) -> None:
        with pytest.raises(MessageTooLarge):
            await asked.answer(b"x" * (MAX_BYTES + 1))
        await asked.answer(b"less")

    async with parties(2) as (_, (one, two)):
        two.cluster.serve("large", large)
        assert await one.ask("large") == ()
        assert one.taken == [(two.id, b"less")]


async def test_a_node_whose_answer_cannot_be_read_has_not_answered() -> None:
    async with parties(2) as (_, (one, two)):
        two.cluster.serve("echo", echo)

        def read(node: str, part: bytes) -> None:
            msgspec.msgpack.decode(part, type=int)

        asking = one.cluster.ask("echo", b"x", read, timeout=5.0, nodes=frozenset({two.id}))
        assert await asking == (two.id,)
        assert one.counters.get("dropped_total", kind="answer", reason="malformed", policy="node_unreachable") == 1


async def test_a_lost_part_makes_the_answer_incomplete() -> None:
    async with parties(2) as (broker, (one, two)):

        async def lossy(asked: Asked) -> None:
            await asked.answer(b"1")
            for place in (2, 3):
                await broker.publish(stream_of_node(one.id), seal(Answer(two.id, 1, place, b"x")))

        two.cluster.serve("count", lossy)
        assert await one.ask("count") == (two.id,)
        assert one.taken == [(two.id, b"1")]


async def test_what_a_node_does_not_know_or_fails_at_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(asked: Asked) -> None:
        raise ValueError("as it is meant to")

    async with parties(2) as (_, (one, two)):
        two.cluster.serve("fail", fails)
        assert await one.ask("fail") == (two.id,)
        assert "as it is meant to" in caplog.text
        assert await one.ask("unheard of") == (two.id,)
        assert two.counters.get("dropped_total", kind="question", reason="unknown_kind", policy="failed") == 1


async def test_a_node_answers_no_more_questions_at_a_time_than_it_can() -> None:
    gate = asyncio.get_running_loop().create_future()

    async def wait(asked: Asked) -> None:
        await gate

    async with parties(2) as (_, (one, two)):
        two.cluster.serve("wait", wait)
        for _ in range(MAX_ASKED):
            await one.cluster.tell("wait", b"", two.id)
        assert await one.ask("wait") == (two.id,)
        assert two.counters.get("dropped_total", kind="question", reason="too_many", policy="failed") == 1
        heard: list[tuple[str, bytes]] = []
        two.cluster.hear("note", lambda *told: heard.append(told))
        await one.cluster.tell("note", b"at once", two.id)
        assert heard == [(one.id, b"at once")]  # it takes no time, so there is no end to how many
        gate.set_result(None)
        await advance(0)
        assert await one.ask("wait") == ()


async def test_a_question_that_cannot_be_asked_raises() -> None:
    async with parties(2) as (broker, (one, _)):
        with away(broker), pytest.raises(BrokerUnavailable):
            await one.ask("echo")


async def test_what_is_told_wants_no_answer() -> None:
    heard: list[bytes] = []

    async def note(asked: Asked) -> None:
        heard.append(asked.body)
        await asked.answer(b"nobody hears it")

    async with parties(3) as (_, (one, two, three)):
        two.cluster.serve("note", note)
        three.cluster.serve("note", note)
        await one.cluster.tell("note", b"all")
        await one.cluster.tell("note", b"two", two.id)
        assert heard == [b"all", b"all", b"two"]


async def test_a_closing_node_gives_its_questions_up() -> None:
    async def never(asked: Asked) -> None:
        await asyncio.get_running_loop().create_future()

    async with parties(2) as (_, (one, two)):
        two.cluster.serve("wait", never)
        asking = asyncio.ensure_future(one.ask("wait", within=600.0))
        await advance(0)
        await one.cluster.close(1)
        assert await asking == (two.id,)


# --- what else is on the bus


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02\x91", b"\x01\x91\xa5other", b"\x80\x04K\x01.", b"\x01" * 100])
async def test_garbage_is_ignored_and_counted(data: bytes) -> None:
    async with parties(2) as (broker, (one, two)):
        await broker.publish(stream_of_node(one.id), data)
        await broker.publish(ALL, data)
        ignored = {series: n for series, n in one.counters.snapshot().items() if 'kind="envelope"' in series}
        assert sum(ignored.values()) == 2
        assert one.cluster.peers.ids == {two.id}


async def test_answers_that_nobody_asked_for_change_nothing() -> None:
    async with parties(2) as (broker, (one, two)):
        two.cluster.serve("echo", echo)
        for forged in (Answer(two.id, 77, 0, b"", last=True), Question(one.id, 1, "echo", b"from oneself")):
            await broker.publish(stream_of_node(one.id), seal(forged))
        assert await one.ask("echo", b"x") == ()
        assert one.taken == [(two.id, b"you said x")]


async def test_an_answer_of_a_node_that_was_not_asked_is_taken_but_not_waited_for() -> None:
    async with parties(3) as (broker, (one, two, three)):

        async def with_another(asked: Asked) -> None:
            await broker.publish(stream_of_node(one.id), seal(Answer(three.id, 1, 0, b"me too")))
            await asked.answer(b"x")

        two.cluster.serve("echo", with_another)
        assert await one.ask("echo", b"", two.id) == ()
        assert one.taken == [(three.id, b"me too"), (two.id, b"x")]


# --- what others may have missed


async def test_a_node_that_could_not_say_that_it_is_there_is_told_to_say_all_again() -> None:
    async with parties(2) as (broker, (one, _)):
        await advance(60)
        assert one.renewals == 0
        with away(broker):
            await advance(LEASE_SECONDS)
        await advance(2 * BEAT_SECONDS)
        assert one.renewals == 1
        await advance(60)
        assert one.renewals == 1


async def test_so_is_one_whose_broker_lost_what_was_kept() -> None:
    async with parties(2) as (broker, (one, two)):
        broker.faults.take_back({})
        await advance(2 * BEAT_SECONDS)
        assert one.renewals == two.renewals == 1
        assert await Register(broker).add(one.id) == {one.id, two.id}
