"""The contract of a broker, as tests: every promise of `bellwire.brokers.base`, over whatever ``make`` returns.

A broker's test module subclasses `Contract`. Streams and keys have names of their own in each test, so that one
server can stand for all of them.
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bellwire.brokers.base import Broker
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import Page, Reason, Unproved
from bellwire.delivery.entry import Copy, Draft, Entry, marker
from bellwire.delivery.log import Limits
from bellwire.delivery.position import START, Point, Position, position

DEDUPE = 120.0


class Ears:
    """A listener that keeps what it is told; `until` waits for a number of entries."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, Entry]] = []
        self.bodies: list[tuple[str, bytes]] = []
        self._told = asyncio.Event()

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        self.entries.append((stream, gen, entry))
        self._told.set()

    def volatile(self, stream: str, body: bytes) -> None:
        self.bodies.append((stream, body))
        self._told.set()

    async def until(self, count: int, seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while len(self.entries) + len(self.bodies) < count:
                self._told.clear()
                await self._told.wait()

    @property
    def mids(self) -> list[str]:
        return [entry.mid for _, _, entry in self.entries]


def draft(mid: str, body: bytes = b"x") -> Draft:
    return Draft(mid, secrets.randbits(32), body)


def name() -> str:
    return f"room:{secrets.token_hex(4)}"


def _page(answer: object) -> Page:
    assert isinstance(answer, Page)
    return answer


class Contract:
    """Subclass it, and say how a broker is made and how time passes for it."""

    def make(self, *, messages: int = 1_000) -> Broker:
        """Return a broker, not started, that keeps ``messages`` entries behind the newest of each stream."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let the broker's clock go on."""
        raise NotImplementedError

    @asynccontextmanager
    async def started(self, *, messages: int = 1_000) -> AsyncIterator[Broker]:
        broker = self.make(messages=messages)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.close()

    async def _fill(self, broker: Broker, stream: str, count: int) -> list[Position]:
        """Append m1, m2, ... and return the positions, with that before the first."""
        positions = [await broker.top(stream)]
        for n in range(1, count + 1):
            appended = await broker.append(stream, draft(f"m{n}"))
            positions.append(position(appended.gen, appended.point))
        return positions

    # --- start and close

    async def test_before_start_and_after_close_it_is_unavailable(self) -> None:
        broker, ears = self.make(), Ears()
        at = Position("g", 0, 0)

        async def refuses_all() -> None:
            with pytest.raises(BrokerUnavailable):
                await broker.append("s", draft("m"))
            with pytest.raises(BrokerUnavailable):
                await broker.read("s", at)
            with pytest.raises(BrokerUnavailable):
                await broker.top("s")
            with pytest.raises(BrokerUnavailable):
                await broker.subscribe("s", ears)
            with pytest.raises(BrokerUnavailable):
                await broker.unsubscribe("s", ears)
            with pytest.raises(BrokerUnavailable):
                await broker.publish("s", b"x")
            with pytest.raises(BrokerUnavailable):
                await broker.get("k")
            with pytest.raises(BrokerUnavailable):
                await broker.put("k", b"v")
            with pytest.raises(BrokerUnavailable):
                await broker.delete("k")

        await refuses_all()
        await broker.start()
        await broker.close()
        await refuses_all()

    async def test_the_clock_goes_on(self) -> None:
        async with self.started() as broker:
            before = broker.clock()
            await self.pass_time(1.0)
            assert broker.clock() - before == pytest.approx(1.0, abs=0.5)

    # --- append

    async def test_an_entry_follows_on_the_one_before_it(self) -> None:
        async with self.started() as broker:
            stream, prev = name(), START
            for n in range(5):
                message = draft(f"m{n}", bytes([n]))
                before = broker.clock()
                appended = await broker.append(stream, message)
                assert appended.prev == prev
                assert appended.point.seq > prev.seq
                assert appended.point.tag == message.tag
                assert not appended.duplicate
                after = position(appended.gen, prev) if n else (await broker.top(stream))._replace(seq=0, tag=0)
                (entry,) = _page(await broker.read(stream, after, confirmed=True)).entries
                assert (entry.mid, entry.body, entry.prev) == (message.mid, message.body, prev)
                assert before <= entry.at < broker.clock() + 1  # it may be behind, by as long as an answer took
                prev = appended.point

    async def test_all_that_a_draft_holds_comes_back(self) -> None:
        async with self.started() as broker:
            stream, at = name(), await broker.top("s")
            full = Draft("mid ü", 2**32 - 1, bytes(range(256)), ("room:a.*", "ü"), (Copy("other", "g", 2**40),))
            ears = Ears()
            await broker.subscribe(stream, ears)
            at = await broker.top(stream)
            await broker.append(stream, full)
            (entry,) = _page(await broker.read(stream, at, confirmed=True)).entries
            await ears.until(1)
            assert ears.entries == [(stream, (await broker.top(stream)).gen, entry)]
            assert (entry.mid, entry.tag, entry.body, entry.excluded, entry.copies) == (
                full.mid,
                full.tag,
                full.body,
                full.excluded,
                full.copies,
            )

    async def test_a_marker_is_an_entry(self) -> None:
        async with self.started() as broker:
            stream = name()
            appended = await broker.append(stream, marker(5))
            assert await broker.top(stream) == position(appended.gen, appended.point)
            assert appended.point.tag == 5

    async def test_a_message_is_appended_and_published_once_within_the_window(self) -> None:
        async with self.started() as broker:
            stream, ears = name(), Ears()
            await broker.subscribe(stream, ears)
            first = await broker.append(stream, draft("m"))
            await broker.append(stream, draft("n"))
            await self.pass_time(DEDUPE - 5)
            assert await broker.append(stream, draft("m")) == first.again
            await broker.append(stream, draft("last"))
            await ears.until(3)
            assert ears.mids == ["m", "n", "last"]

    async def test_after_the_window_it_is_another_message(self) -> None:
        async with self.started() as broker:
            stream = name()
            first = await broker.append(stream, draft("m"))
            await self.pass_time(DEDUPE + 5)
            again = await broker.append(stream, draft("m"))
            assert not again.duplicate
            assert again.point.seq > first.point.seq

    async def test_the_window_is_not_one_of_number(self) -> None:
        async with self.started(messages=3) as broker:
            stream = name()
            positions = await self._fill(broker, stream, 30)
            again = await broker.append(stream, draft("m1"))
            assert again.duplicate
            assert again.point == positions[1].point

    async def test_one_message_may_go_to_several_streams(self) -> None:
        async with self.started() as broker:
            streams = [name() for _ in range(20)]
            for stream in streams:
                assert not (await broker.append(stream, draft("m"))).duplicate
            for stream in streams:
                assert (await broker.append(stream, draft("m"))).duplicate

    async def test_an_attempt_that_comes_too_late_is_refused(self) -> None:
        async with self.started() as broker:
            stream = name()
            deadline = broker.clock() + 10
            assert not (await broker.append(stream, draft("m1"), deadline=deadline)).duplicate
            await self.pass_time(11)
            with pytest.raises(BrokerUnavailable):
                await broker.append(stream, draft("m2"), deadline=deadline)
            with pytest.raises(BrokerUnavailable):
                await broker.append(stream, draft("m1"), deadline=deadline)
            assert not (await broker.append(stream, draft("m2"))).duplicate

    async def test_many_publishers_make_one_order_and_each_keeps_its_own(self) -> None:
        async with self.started() as broker:
            stream, ears = name(), Ears()
            await broker.subscribe(stream, ears)
            at = await broker.top(stream)

            async def publisher(who: int) -> None:
                for n in range(20):
                    await broker.append(stream, draft(f"{who}.{n}"))

            await asyncio.gather(*map(publisher, range(5)))
            await ears.until(100)
            entries = _page(await broker.read(stream, at, confirmed=True)).entries
            assert [entry for _, _, entry in ears.entries] == entries
            for before, entry in itertools.pairwise(entries):
                assert entry.prev == before.point
            for who in range(5):
                assert [e.mid for e in entries if e.mid.startswith(f"{who}.")] == [f"{who}.{n}" for n in range(20)]

    async def test_appends_that_do_not_wait_for_each_other_keep_their_order(self) -> None:
        async with self.started() as broker:
            stream = name()
            at = await broker.top(stream)
            mids = [f"m{n}" for n in range(200)]
            await asyncio.gather(*[broker.append(stream, draft(mid)) for mid in mids])
            assert [e.mid for e in _page(await broker.read(stream, at, confirmed=True)).entries] == mids

    # --- read

    async def test_every_position_is_continued(self) -> None:
        async with self.started() as broker:
            stream = name()
            positions = await self._fill(broker, stream, 6)
            for n, after in enumerate(positions):
                page = _page(await broker.read(stream, after, confirmed=True))
                assert [entry.mid for entry in page.entries] == [f"m{k}" for k in range(n + 1, 7)]
                assert page.top == positions[-1]
                assert page.confirmed
                assert not page.more

    async def test_pages_are_limited_and_overlap_nowhere(self) -> None:
        async with self.started() as broker:
            stream = name()
            at, *_ = await self._fill(broker, stream, 10)
            seen: list[str] = []
            more = True
            prev = at.point
            while more:
                page = _page(await broker.read(stream, at, messages=3, confirmed=True))
                assert 0 < len(page.entries) <= 3
                assert page.entries[0].prev == prev
                seen += [entry.mid for entry in page.entries]
                prev, more = page.entries[-1].point, page.more
                at = position(page.top.gen, prev)
            assert seen == [f"m{n}" for n in range(1, 11)]

    async def test_pages_are_limited_by_bytes_and_hold_one_entry_at_least(self) -> None:
        async with self.started() as broker:
            stream = name()
            at = await broker.top(stream)
            for n in range(4):
                await broker.append(stream, draft(f"m{n}", b"x" * 10_000))
            page = _page(await broker.read(stream, at, size=25_000, confirmed=True))
            assert (len(page.entries), page.more) == (2, True)
            page = _page(await broker.read(stream, at, size=1, confirmed=True))
            assert (len(page.entries), page.more) == (1, True)

    async def test_a_position_is_proved_by_number_and_tag(self) -> None:
        async with self.started() as broker:
            stream = name()
            positions = await self._fill(broker, stream, 4)
            for wrong in (
                positions[2]._replace(tag=positions[2].tag ^ 1),
                positions[4]._replace(tag=positions[4].tag ^ 1),
                positions[4]._replace(seq=positions[4].seq + 5),
            ):
                answer = await broker.read(stream, wrong, confirmed=True)
                assert isinstance(answer, Unproved)
                assert (answer.reason, answer.confirmed) == (Reason.DIVERGED, True)
                assert answer.top == positions[-1]
                replay = _page(await broker.read(stream, answer.restart, confirmed=True))
                assert [entry.mid for entry in replay.entries] == ["m1", "m2", "m3", "m4"]

    async def test_another_generation_is_another_log(self) -> None:
        async with self.started() as broker:
            stream = name()
            positions = await self._fill(broker, stream, 2)
            for at in (positions[0], positions[2]):
                answer = await broker.read(stream, at._replace(gen="0ther"), confirmed=True)
                assert isinstance(answer, Unproved)
                assert answer.reason is Reason.GENERATION

    async def test_the_limits_leave_what_lies_behind_the_newest_and_remember_the_point_before_it(self) -> None:
        async with self.started(messages=3) as broker:
            stream = name()
            positions = await self._fill(broker, stream, 10)
            page = _page(await broker.read(stream, positions[9], confirmed=True))
            assert [entry.mid for entry in page.entries] == ["m10"]
            answer = await broker.read(stream, positions[2], confirmed=True)
            assert isinstance(answer, Unproved)
            assert answer.reason is Reason.TRUNCATED
            replay = _page(await broker.read(stream, answer.restart, confirmed=True))
            assert [entry.mid for entry in replay.entries] == ["m7", "m8", "m9", "m10"]
            assert answer.restart in positions

    async def test_the_top_outlives_the_entries_and_stays_proved(self) -> None:
        async with self.started() as broker:
            stream = name()
            positions = await self._fill(broker, stream, 3)
            await self.pass_time(3600)
            assert await broker.top(stream) == positions[-1]
            assert _page(await broker.read(stream, positions[-1], confirmed=True)).entries == []
            appended = await broker.append(stream, draft("m4"))
            assert appended.prev == positions[-1].point
            page = _page(await broker.read(stream, positions[-1], confirmed=True))
            assert [entry.mid for entry in page.entries] == ["m4"]

    async def test_it_may_be_told_to_keep_it_for_a_shorter_or_longer_time(self) -> None:
        async with self.started() as broker:
            stream = name()
            positions = await self._fill(broker, stream, 3)
            await self.pass_time(500)
            assert len(_page(await broker.read(stream, positions[0], confirmed=True)).entries) == 3
            broker.limit(Limits(age=400))
            answer = await broker.read(stream, positions[0], confirmed=True)
            assert isinstance(answer, Unproved)
            assert answer.reason is Reason.TRUNCATED
            broker.limit(Limits(age=7200))
            await broker.append(stream, draft("m4"))
            await self.pass_time(3600)
            page = _page(await broker.read(stream, positions[2], confirmed=True))
            assert [entry.mid for entry in page.entries] == ["m3", "m4"]

    async def test_age_takes_out_what_lies_behind(self) -> None:
        async with self.started() as broker:
            stream = name()
            positions = await self._fill(broker, stream, 3)
            await self.pass_time(3600)
            answer = await broker.read(stream, positions[0], confirmed=True)
            assert isinstance(answer, Unproved)
            assert answer.reason is Reason.TRUNCATED

    # --- top

    async def test_the_top_of_a_stream_without_entries_is_its_start(self) -> None:
        async with self.started() as broker:
            top = await broker.top(name())
            assert top.point == START
            assert top.gen

    async def test_names_have_no_meaning(self) -> None:
        async with self.started() as broker:
            salt = secrets.token_hex(4)
            names = [f"{salt}{tail}" for tail in (".*", ".>", ".a", "", "{a}", " ", "\n", ":ü", "*", "/", "x" * 200)]
            ears = {stream: Ears() for stream in names}
            for stream in names:
                await broker.subscribe(stream, ears[stream])
            for n, stream in enumerate(names):
                assert (await broker.append(stream, draft(f"m{n}"))).prev == START
            for n, stream in enumerate(names):
                await ears[stream].until(1)
                assert [(s, e.mid) for s, _, e in ears[stream].entries] == [(stream, f"m{n}")]

    async def test_a_top_has_what_was_acknowledged_before_it_was_asked_for_however_many_ask(self) -> None:
        async with self.started() as broker:
            stream = name()

            async def append_and_ask(n: int) -> None:
                for k in range(20):
                    appended = await broker.append(stream, draft(f"m{n}.{k}"))
                    assert (await broker.top(stream)).seq >= appended.point.seq

            await asyncio.gather(*(append_and_ask(n) for n in range(10)))

    # --- live

    async def test_a_listener_of_a_new_stream_is_told_all_of_it(self) -> None:
        async with self.started() as broker:
            stream, ears = name(), Ears()
            await broker.subscribe(stream, ears, new=True)
            appended = [await broker.append(stream, draft(f"m{n}")) for n in range(3)]
            await ears.until(3)
            assert [entry.point for _, _, entry in ears.entries] == [each.point for each in appended]
            assert [entry.prev for _, _, entry in ears.entries] == [START, *(each.point for each in appended[:2])]

    async def test_a_listener_is_told_from_the_subscription_on_until_it_ends(self) -> None:
        async with self.started() as broker:
            stream, ears, others = name(), Ears(), Ears()
            await broker.append(stream, draft("before"))
            await broker.subscribe(stream, ears)
            await broker.subscribe(stream, ears)
            await broker.subscribe(stream, others)
            appended = await broker.append(stream, draft("m1"))
            await broker.publish(stream, b"now")
            await ears.until(2)
            await others.until(2)
            assert [(gen, entry.point) for _, gen, entry in ears.entries] == [(appended.gen, appended.point)]
            assert ears.entries == others.entries
            assert ears.bodies == [(stream, b"now")]
            await broker.unsubscribe(stream, ears)
            await broker.unsubscribe(stream, ears)
            await broker.append(stream, draft("m2"))
            await others.until(3)
            assert ears.mids == ["m1"]

    async def test_what_is_volatile_is_in_no_log(self) -> None:
        async with self.started() as broker:
            stream, ears = name(), Ears()
            await broker.subscribe(stream, ears)
            top = await broker.top(stream)
            await broker.publish(stream, b"x")
            await ears.until(1)
            assert await broker.top(stream) == top
            assert _page(await broker.read(stream, top, confirmed=True)).entries == []

    async def test_after_close_nobody_is_told(self) -> None:
        broker, ears, stream = self.make(), Ears(), name()
        await broker.start()
        await broker.subscribe(stream, ears)
        await broker.close()
        await broker.start()
        await broker.append(stream, draft("m"))
        await broker.close()
        assert not ears.entries

    # --- what need only be published

    async def test_a_stream_with_an_entry_has_a_log_for_all_its_time(self) -> None:
        async with self.started() as broker:
            stream = name()
            await broker.append(stream, draft("m"))
            assert broker.has_log(stream)
            await self.pass_time(3600)
            await broker.append(name(), marker(1))
            assert broker.has_log(stream)

    async def test_a_stream_with_a_marker_has_a_log_as_long_as_somebody_looks_where_it_ends(self) -> None:
        async with self.started() as broker:
            stream = name()
            await broker.append(stream, marker(1))
            top = await broker.top(stream)
            for n in range(12):
                await self.pass_time(300)
                await broker.append(name(), marker(n))
                assert broker.has_log(stream)
                assert await broker.top(stream) == top

    async def test_a_stream_that_was_forgotten_begins_anew(self) -> None:
        async with self.started() as broker:
            stream, other = name(), name()
            positions = await self._fill(broker, stream, 3)
            await self._fill(broker, other, 1)
            await broker.forget(stream)
            await broker.forget(name())
            for at in positions[1:]:
                assert isinstance(await broker.read(stream, at, confirmed=True), Unproved)
            before = await broker.top(stream)
            await broker.append(stream, draft("new"))
            assert [entry.mid for entry in _page(await broker.read(stream, before, confirmed=True)).entries] == ["new"]
            assert (await broker.top(other)).seq

    # --- keyed state

    async def test_the_generation_stays_as_long_as_nothing_is_lost(self) -> None:
        broker, key = self.make(), name()
        await broker.start()
        generation = broker.generation()
        assert generation
        revision = await broker.put(key, b"value")
        await broker.close()
        await broker.start()
        assert await broker.get(key) == (b"value", revision)
        assert broker.generation() == generation
        await broker.close()

    async def test_a_value_is_kept_replaced_and_deleted(self) -> None:
        async with self.started() as broker:
            key = name()
            assert await broker.get(key) is None
            first = await broker.put(key, b"one")
            assert first is not None
            assert await broker.get(key) == (b"one", first)
            second = await broker.put(key, b"two")
            assert second is not None
            assert second > first
            assert await broker.get(key) == (b"two", second)
            assert await broker.delete(key)
            assert not await broker.delete(key)
            assert await broker.get(key) is None

    async def test_of_several_who_expect_the_same_revision_one_succeeds(self) -> None:
        async with self.started() as broker:
            key = name()
            made = await asyncio.gather(*(broker.put(key, bytes([n]), expected=0) for n in range(5)))
            (revision,) = [r for r in made if r is not None]
            winner = made.index(revision)
            assert await broker.get(key) == (bytes([winner]), revision)
            replaced = await asyncio.gather(*(broker.put(key, b"x", expected=revision) for _ in range(5)))
            assert sum(r is not None for r in replaced) == 1
            assert await broker.put(key, b"late", expected=revision) is None
            assert not await broker.delete(key, expected=revision)
            kept = await broker.get(key)
            assert kept is not None
            assert kept.value == b"x"
            assert await broker.delete(key, expected=kept.revision)

    async def test_no_revision_comes_again(self) -> None:
        async with self.started() as broker:
            key = name()
            first = await broker.put(key, b"a")
            await broker.delete(key)
            second = await broker.put(key, b"b", expected=0, ttl=2)
            await self.pass_time(4)
            third = await broker.put(key, b"c", expected=0)
            assert first is not None
            assert second is not None
            assert third is not None
            assert first < second < third

    async def test_a_key_ends_when_its_time_is_over_and_a_new_put_sets_it_anew(self) -> None:
        async with self.started() as broker:
            key, forever = name(), name()
            await broker.put(forever, b"x")
            revision = await broker.put(key, b"x", ttl=10)
            await self.pass_time(6)
            renewed = await broker.put(key, b"y", expected=revision, ttl=10)
            await self.pass_time(6)
            assert await broker.get(key) == (b"y", renewed)
            await self.pass_time(6)
            assert await broker.get(key) is None
            assert not await broker.delete(key)
            assert await broker.put(key, b"z", expected=renewed) is None
            assert await broker.get(forever) is not None

    async def test_keys_and_streams_do_not_meet(self) -> None:
        async with self.started() as broker:
            both = name()
            await broker.put(both, b"value")
            assert (await broker.top(both)).point == START
            await broker.append(both, draft("m"))
            kept = await broker.get(both)
            assert kept is not None
            assert kept.value == b"value"
            assert Point(*(await broker.top(both))[1:]).seq > 0
