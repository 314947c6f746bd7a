"""The broker on NATS: the contract on a real nats-server, and every trap of JetStream by its name."""

import asyncio
import itertools
import subprocess
import sys

import pytest

from bellwire.brokers import nats_link
from bellwire.brokers.nats import PARTITIONS, NatsBroker
from bellwire.brokers.nats_fence import Fence
from bellwire.brokers.nats_keys import keys_name
from bellwire.brokers.nats_link import Link
from bellwire.brokers.nats_streams import Reader, ask_api, partition_name, place_of
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, MessageTooLarge, OutcomeUnknown
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.log import Limits
from bellwire.delivery.position import START, Point, position
from tests.brokers.contract import Ears, draft, name
from tests.brokers.nats_contract import NatsContract
from tests.brokers.nats_server import NatsServer, again, behind_proxy, broker_at, entries_of, tail_of

pytestmark = pytest.mark.bellwire(clock="real")


class TestNats(NatsContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.url = server.url


# --- what the package needs


def test_bellwire_imports_without_the_extra_and_the_broker_names_it() -> None:
    program = (
        "import sys; sys.modules['nats'] = None; import bellwire, bellwire.brokers.private_nats\n"
        "from bellwire.core.errors import ConfigError\n"
        "try: import bellwire.brokers.nats\n"
        "except ConfigError as error: assert \"pip install 'bellwire[nats]'\" in str(error)\n"
        "else: raise SystemExit('imported')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "*", "ü", ">"])
def test_a_prefix_that_would_mean_something_in_a_subject_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError):
        NatsBroker("nats://localhost", prefix=prefix)


async def test_nobody_there_is_unavailable_and_leaves_nothing_behind() -> None:
    broker = NatsBroker("nats://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable):
        await broker.start()


async def test_a_wrong_token_is_unavailable(server: NatsServer) -> None:
    with pytest.raises(BrokerUnavailable):
        await NatsBroker(server.url.replace("for-tests-only", "wrong")).start()


# --- appends


async def test_one_message_to_two_streams_of_one_partition_is_no_duplicate(server: NatsServer) -> None:
    first = name()
    names = (f"{first}.{n}" for n in itertools.count())
    second = next(n for n in names if place_of(n, PARTITIONS).partition == place_of(first, PARTITIONS).partition)
    async with broker_at(server.url) as broker:
        one, two = await broker.append(first, draft("m")), await broker.append(second, draft("m"))
        assert one.gen == two.gen
        assert not two.duplicate
        assert two.prev == START


async def test_headers_count_against_max_payload_and_the_connection_stays(server: NatsServer) -> None:
    counters = Counters()
    async with broker_at(server.url, counters=counters) as broker:
        stream = name()
        for size in (server.max_payload, server.max_payload - 60):
            with pytest.raises(MessageTooLarge):
                await broker.append(stream, draft("m", b"x" * size))
        with pytest.raises(MessageTooLarge):
            await broker.put(stream, b"x" * server.max_payload)
        with pytest.raises(MessageTooLarge):
            await broker.publish(stream, b"x" * (server.max_payload + 1))
        assert not (await broker.append(stream, draft("m", b"x" * (server.max_payload - 200)))).duplicate
        assert not counters.get("broker_connections_lost_total")


async def test_an_append_without_an_answer_is_found_again(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        stream, ears = name(), Ears()
        await other.subscribe(stream, ears)
        await broker.append(stream, draft("before"))
        proxy.mute()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await ears.until(2)
        proxy.cut()
        with pytest.raises(OutcomeUnknown) as caught:
            await attempt
        assert caught.value.mid == "m"
        appended = await again(lambda: broker.append(stream, draft("m")))
        assert appended.duplicate
        assert (appended.point, appended.prev) == (ears.entries[1][2].point, ears.entries[1][2].prev)
        assert await entries_of(other, stream) == ["before", "m"]


async def test_an_append_that_never_arrived_is_made_by_the_retry(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        stream = name()
        proxy.swallow()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await proxy.swallowed.wait()
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await attempt
        assert not (await again(lambda: broker.append(stream, draft("m")))).duplicate
        assert await entries_of(other, stream) == ["m"]


async def test_an_entry_that_was_evicted_before_a_crash_is_not_appended_twice(server: NatsServer) -> None:
    async with behind_proxy(server, Limits(messages=3), "few") as (broker, other, proxy):
        stream, ears = name(), Ears()
        await other.subscribe(stream, ears)
        proxy.mute()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await ears.until(1)
        for n in range(10):
            await other.append(stream, draft(f"later{n}"))
        await server.crash()
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await attempt
        with pytest.raises(OutcomeUnknown):
            await again(lambda: broker.append(stream, draft("m")))
        assert "m" not in await again(lambda: tail_of(other, stream))


class Silent(Reader):
    """Reads no point before another."""

    async def before(self, link: Link, stream: str, seq: int) -> Point:
        raise BrokerUnavailable("away")


async def test_an_append_that_was_acknowledged_is_never_said_to_have_done_nothing(server: NatsServer) -> None:
    async with broker_at(server.url) as broker:
        stream = name()
        spoken, broker._reader = broker._reader, Silent("traps", PARTITIONS, Fence())
        with pytest.raises(OutcomeUnknown):
            await broker.append(stream, draft("m"))
        broker._reader = spoken
        assert (await broker.append(stream, draft("m"))).duplicate


async def test_a_listener_that_leaves_while_the_broker_is_away_is_not_followed_again(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        gone, stays, ears, leaver = name(), name(), Ears(), Ears()
        await broker.subscribe(gone, leaver)
        await broker.subscribe(stays, ears)
        proxy.close_door()
        proxy.cut()
        with pytest.raises((BrokerUnavailable, OutcomeUnknown)):
            await broker.append(gone, draft("m"))
        await broker.unsubscribe(gone, leaver)
        proxy.open_door()
        await again(lambda: broker.top(stays))
        await other.append(gone, draft("m1"))
        await other.append(stays, draft("m2"))
        await ears.until(1)
        assert not leaver.entries
        assert broker._followed() == {broker._reader.subject(stays)}


async def test_a_server_that_stands_still_leaves_the_outcome_unknown(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_link, "ANSWER_TIMEOUT", 0.3)
    async with broker_at(server.url) as broker:
        stream = name()
        await broker.append(stream, draft("before"))
        await server.freeze()
        try:
            with pytest.raises(OutcomeUnknown):
                await broker.append(stream, draft("m"))
            with pytest.raises(BrokerUnavailable):
                await broker.top(stream)
        finally:
            server.thaw()
        await broker.append(stream, draft("m"))
        assert await entries_of(broker, stream) == ["before", "m"]


# --- the server dies


async def test_what_was_acknowledged_outlives_the_server_and_listeners_go_on(server: NatsServer) -> None:
    async with broker_at(server.url) as broker, broker_at(server.url) as other:
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        first = await broker.append(stream, draft("m1"))
        key = await broker.put(stream, b"value")
        await ears.until(1)
        await asyncio.to_thread(server.kill)
        with pytest.raises((BrokerUnavailable, OutcomeUnknown)):
            await broker.append(stream, draft("away"))
        await asyncio.to_thread(server.start)
        assert (await again(lambda: broker.append(stream, draft("m1")))) == first.again
        assert await broker.get(stream) == (b"value", key)
        await again(lambda: other.append(stream, draft("m2")))
        await ears.until(2)
        assert [entry.prev for _, _, entry in ears.entries] == [START, first.point]
        assert {gen for _, gen, _ in ears.entries} == {first.gen}


async def test_after_a_reconnection_the_newest_entry_shows_the_gap(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        await other.append(stream, draft("m1"))
        await ears.until(1)
        proxy.close_door()
        proxy.cut()
        await other.append(stream, draft("lost"))
        second = await other.append(stream, draft("m2"))
        proxy.open_door()
        await ears.until(2)
        assert ears.mids == ["m1", "m2"]
        assert ears.entries[1][2].prev == second.prev
        third = await other.append(stream, draft("m3"))
        await ears.until(3)
        assert ears.entries[2][2].prev == second.point == third.prev


async def test_a_broker_that_is_away_can_be_closed(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, _, proxy):
        proxy.close_door()
        proxy.cut()
        with pytest.raises((BrokerUnavailable, OutcomeUnknown)):
            await broker.append(name(), draft("m"))


# --- what costs a question


async def test_a_new_stream_is_not_asked_where_it_ends(server: NatsServer) -> None:
    async with broker_at(server.url) as broker:
        link, stream = await broker._next_link(), name()
        before = link._asked
        await broker.subscribe(stream, Ears(), new=True)
        assert link._asked == before
        await broker.subscribe(name(), Ears())
        assert link._asked == before + 1


async def test_many_who_want_the_top_ask_once(server: NatsServer) -> None:
    async with broker_at(server.url) as broker:
        link, stream = await broker._next_link(), name()
        before = link._asked
        tops = await asyncio.gather(*(broker.top(stream) for _ in range(100)))
        assert len(set(tops)) == 1
        assert link._asked == before + 1


# --- generations


async def test_a_partition_that_was_made_again_is_another_generation_with_greater_numbers(server: NatsServer) -> None:
    async with broker_at(server.url, prefix="wiped") as broker:
        stream = name()
        old, before = await broker.append(stream, draft("m1")), broker.generation()
        link = Link()
        await link.open(server.url)
        partition = partition_name("wiped", place_of(stream, PARTITIONS).partition)
        assert (await ask_api(link, f"STREAM.DELETE.{partition}"))["success"]
        await link.close()
        at = position(old.gen, old.point)
        answer = await again(lambda: broker.read(stream, at, confirmed=True))
        assert isinstance(answer, Unproved)
        assert answer.reason is Reason.GENERATION
        new = await broker.append(stream, draft("m1"))
        assert not new.duplicate
        assert new.gen != old.gen
        assert new.point.seq > old.point.seq
        assert broker.generation() != before


async def test_keys_that_were_made_again_are_another_generation(server: NatsServer) -> None:
    async with broker_at(server.url, prefix="forgetful") as broker:
        key, before = name(), broker.generation()
        revision = await broker.put(key, b"x")
        link = Link()
        await link.open(server.url)
        await ask_api(link, f"STREAM.DELETE.{keys_name('forgetful')}")
        await link.close()
        assert await again(lambda: broker.get(key)) is None
        assert broker.generation() not in ("", before)
        made_again = await broker.put(key, b"x", expected=0)
        assert made_again is not None
        assert revision is not None
        assert made_again > revision


async def test_other_limits_change_the_partitions_and_not_the_generation(server: NatsServer) -> None:
    stream = name()
    async with broker_at(server.url, Limits(messages=10), "limits") as broker:
        first, *_ = [await broker.append(stream, draft(f"m{n}")) for n in range(8)]
    async with broker_at(server.url, Limits(messages=2), "limits") as broker:
        answer = await broker.read(stream, position(first.gen, first.point), confirmed=True)
        assert isinstance(answer, Unproved)
        assert answer.reason is Reason.TRUNCATED
        assert await tail_of(broker, stream) == ["m5", "m6", "m7"]


# --- large entries, many pages


async def test_an_entry_that_fills_a_page_of_bytes_is_passed(server: NatsServer) -> None:
    async with broker_at(server.url) as broker:
        stream, at = name(), await broker.top("s")
        made = [await broker.append(stream, draft(f"m{n}", b"x" * 900_000)) for n in range(4)]
        at = position(made[0].gen, made[0].point)
        for n in range(1, 4):
            page = await broker.read(stream, at, size=100_000, confirmed=True)
            assert isinstance(page, Page)
            assert [(entry.mid, entry.prev) for entry in page.entries] == [(f"m{n}", made[n - 1].point)]
            assert page.more == (n < 3)
            assert page.top == position(made[3].gen, made[3].point)
            at = position(made[n].gen, made[n].point)
        assert await entries_of(broker, stream) == ["m0"]  # the first page of all, which is read as a whole


async def test_a_long_stream_is_read_over_a_seam(server: NatsServer) -> None:
    async with broker_at(server.url) as broker:
        stream, start = name(), await broker.top("s")
        await asyncio.gather(*(broker.append(stream, draft(f"m{n}")) for n in range(1_002)))
        start = (await broker.top(stream))._replace(seq=0, tag=0)
        answer = await broker.read(stream, start, confirmed=True)
        assert isinstance(answer, Unproved)  # 1,000 behind the newest, and the point before them
        seen, at, more = 0, answer.restart, True
        while more:
            page = await broker.read(stream, at, confirmed=True)
            assert isinstance(page, Page)
            assert page.entries[0].prev == at.point
            seen, more, at = seen + len(page.entries), page.more, position(at.gen, page.entries[-1].point)
        assert seen == 1_001
        assert at == answer.top


async def test_what_was_cancelled_is_looked_for_after_a_crash(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        stream, ears = name(), Ears()
        await other.subscribe(stream, ears)
        proxy.mute()
        attempt = asyncio.create_task(broker.append(stream, draft("m")))
        await ears.until(1)
        attempt.cancel()
        proxy.cut()
        await asyncio.gather(attempt, return_exceptions=True)
        assert (await again(lambda: broker.append(stream, draft("m")), (BrokerUnavailable, OutcomeUnknown))).duplicate
        assert await entries_of(other, stream) == ["m"]


@pytest.mark.bellwire(clock="real", uvloop=True)
async def test_it_runs_on_the_loop_of_production(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        stream, ears = name(), Ears()
        await broker.subscribe(stream, ears)
        first = await other.append(stream, draft("m1"))
        proxy.cut()
        second = await other.append(stream, draft("m2"))
        await ears.until(2)
        assert [entry.point for _, _, entry in ears.entries] == [first.point, second.point]


async def test_through_cuts_mutes_and_crashes_each_message_is_appended_once_and_in_order(server: NatsServer) -> None:
    async with behind_proxy(server) as (broker, other, proxy):
        stream, count = name(), 200
        faults = [proxy.cut, proxy.mute, proxy.swallow]
        for n in range(count):
            message = draft(f"m{n}")
            if n % 9 == 4:
                faults[n % 3]()
                asyncio.get_running_loop().call_later(0.02, proxy.cut)
            if n % 80 == 40:
                await server.crash()
            await again(lambda m=message: broker.append(stream, m), (BrokerUnavailable, OutcomeUnknown))  # type: ignore[misc]
        assert await entries_of(other, stream) == [f"m{n}" for n in range(count)]
