"""The upkeep: everything is settled once the broker answers, by one task, and nothing is lost without being counted."""

import asyncio
import contextvars

from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.server.upkeep import AT_ONCE, FIRST_PAUSE, LAST_PAUSE, MAX_OPTIONAL, Upkeep
from bellwire.testing.clock import advance

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


class Chore:
    """Fails ``failures`` times, then is settled; or never ends if it is a ``stuck`` one."""

    def __init__(self, failures: int = 0, *, rounds: int = 1, stuck: bool = False) -> None:
        self.failures = failures
        self.rounds = rounds
        self.stuck = stuck
        self.times: list[float] = []
        self.seen = ""

    @property
    def unsettled(self) -> bool:
        return self.rounds > 0

    async def settle(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self.seen = VARIABLE.get()
        if self.stuck:
            await asyncio.get_running_loop().create_future()
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away")
        self.rounds -= 1


def _upkeep() -> tuple[Upkeep, Counters]:
    counters = Counters()
    return Upkeep("chore", counters), counters


def _dropped(counters: Counters, reason: str) -> int:
    return counters.get("dropped_total", kind="chore", reason=reason, policy="left_to_expire")


async def test_a_job_is_settled_once_though_it_was_added_twice() -> None:
    upkeep, _ = _upkeep()
    chore = Chore()
    assert upkeep.add(chore)
    assert upkeep.add(chore)
    await advance()
    assert len(chore.times) == 1
    assert len(upkeep) == 0


async def test_a_job_with_more_to_do_comes_again() -> None:
    upkeep, _ = _upkeep()
    chore = Chore(rounds=3)
    upkeep.add(chore)
    await advance()
    assert chore.times == [0.0] * 3


async def test_what_fails_is_tried_again_after_growing_pauses() -> None:
    upkeep, _ = _upkeep()
    chore = Chore(failures=9)
    upkeep.add(chore)
    await advance(3600)
    assert not chore.unsettled
    pauses = [after - before for before, after in zip(chore.times, chore.times[1:], strict=False)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_PAUSE


async def test_one_that_fails_does_not_keep_the_others() -> None:
    upkeep, _ = _upkeep()
    failing, others = [Chore(failures=4) for _ in range(AT_ONCE)], [Chore() for _ in range(3 * AT_ONCE)]
    for chore in (*failing, *others):
        upkeep.add(chore)
    await advance(1)
    assert not any(chore.unsettled for chore in others)
    await advance(10)
    assert len(upkeep) == 0


async def test_there_is_one_task_for_all_and_none_when_all_is_done() -> None:
    upkeep, _ = _upkeep()
    before = len(asyncio.all_tasks())
    for _ in range(1_000):
        upkeep.add(Chore(failures=1))
    assert len(asyncio.all_tasks()) == before + 1
    await advance(FIRST_PAUSE / 2)
    assert len(asyncio.all_tasks()) == before + 1
    await advance(3600)
    assert len(asyncio.all_tasks()) == before


async def test_it_works_in_a_context_of_its_own() -> None:
    upkeep, _ = _upkeep()
    VARIABLE.set("of whoever adds")
    chore = Chore()
    upkeep.add(chore)
    await advance()
    assert chore.seen == "none"


async def test_close_waits_for_what_is_left_as_long_as_it_may() -> None:
    upkeep, counters = _upkeep()
    chore = Chore(failures=2)
    upkeep.add(chore)
    await upkeep.close(10)
    assert not chore.unsettled
    assert counters.snapshot() == {}
    assert asyncio.get_running_loop().time() < 1


async def test_close_gives_up_what_does_not_end_and_what_comes_later() -> None:
    upkeep, counters = _upkeep()
    upkeep.add(Chore(stuck=True))
    upkeep.add(Chore(stuck=True))
    await upkeep.close(10)
    assert asyncio.get_running_loop().time() == 10
    assert _dropped(counters, "shutdown") == 2
    assert not upkeep.add(Chore())
    assert _dropped(counters, "shutdown") == 3


async def test_close_without_anything_to_do_does_not_wait() -> None:
    upkeep, counters = _upkeep()
    await upkeep.close(10)
    assert asyncio.get_running_loop().time() == 0
    assert counters.snapshot() == {}


async def test_what_need_not_be_done_is_not_added_without_bounds() -> None:
    upkeep, counters = _upkeep()
    added = [upkeep.add(Chore(stuck=True), optional=True) for _ in range(MAX_OPTIONAL + 3)]
    assert added.count(True) == len(upkeep) == MAX_OPTIONAL
    assert _dropped(counters, "too_many") == 3
    assert upkeep.add(Chore(stuck=True))
    await upkeep.close(0)


async def test_a_job_that_breaks_is_reported_counted_and_given_up_and_the_others_go_on() -> None:
    class Broken(Chore):
        async def settle(self) -> None:
            raise ValueError("broken")

    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    upkeep, counters = _upkeep()
    other = Chore()
    upkeep.add(Broken())
    upkeep.add(other)
    await advance()
    assert [str(context["exception"]) for context in told] == ["broken"]
    assert _dropped(counters, "error") == 1
    assert not other.unsettled
    assert len(upkeep) == 0
