"""What a relay's handler emits is kept back, and what it cannot do raises."""

import asyncio

import pytest

from bellwire.delivery.effects import Emission
from bellwire.server import relay


def emit(body: bytes, *, volatile: bool = False, mid: str | None = None) -> bool:
    return relay.collects(body, ("room",), ("me",), volatile=volatile, mid=mid)


def test_outside_of_a_relay_nothing_is_kept_and_all_is_allowed() -> None:
    assert not relay.running()
    assert not emit(b"x")
    assert not emit(b"x", volatile=True)
    assert not emit(b"x", mid="order-7")
    relay.forbid("call()")


def test_what_a_relay_emits_is_kept_in_order() -> None:
    with relay.Collecting() as emissions:
        assert relay.running()
        assert emit(b"one")
        assert emit(b"two")
    assert emissions == [Emission(("room",), b"one", ("me",)), Emission(("room",), b"two", ("me",))]
    assert not relay.running()
    assert not emit(b"three")
    assert len(emissions) == 2


def test_what_would_take_effect_now_raises_and_says_what_to_do() -> None:
    with relay.Collecting() as emissions:
        with pytest.raises(RuntimeError, match=r"volatile.*another effect"):
            emit(b"x", volatile=True)
        with pytest.raises(RuntimeError, match=r"^mid= in a relay's handler.*leave it out.*another effect"):
            emit(b"x", mid="order-7")
        with pytest.raises(RuntimeError, match=r"^call\(\) in a relay's handler.*another effect"):
            relay.forbid("call()")
    assert not emissions


def test_a_relay_ends_with_its_handlers_exception() -> None:
    with pytest.raises(ValueError, match="mine"), relay.Collecting():
        raise ValueError("mine")
    assert not relay.running()


async def test_a_task_of_the_handler_emits_with_it_and_not_after_it() -> None:
    returned = asyncio.Event()

    async def task() -> None:
        assert emit(b"in time")
        await returned.wait()
        assert relay.running()
        with pytest.raises(RuntimeError, match="Await the task in the handler"):
            emit(b"late")
        with pytest.raises(RuntimeError, match="leave"):
            relay.forbid("leave()")

    with relay.Collecting() as emissions:
        started = asyncio.create_task(task())
        await asyncio.sleep(0)
    returned.set()
    await started
    assert [emission.body for emission in emissions] == [b"in time"]


async def test_two_relays_at_a_time_do_not_mix() -> None:
    both = asyncio.Barrier(2)

    async def handler(body: bytes) -> list[Emission]:
        with relay.Collecting() as emissions:
            await both.wait()
            emit(body)
            await both.wait()
        return emissions

    one, two = await asyncio.gather(handler(b"one"), handler(b"two"))
    assert [e.body for e in one] == [b"one"]
    assert [e.body for e in two] == [b"two"]
