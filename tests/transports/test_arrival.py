import asyncio

import pytest

from bellwire.core.clock import Wheel
from bellwire.transports.arrival import BYTES_PER_SECOND, Arrival

TIMEOUT = 10.0


class Sender:
    """Sends so many bytes a second."""

    def __init__(self, rate: int | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.rate = rate
        self.late: asyncio.Future[float] = self.loop.create_future()
        self.arrival = Arrival(Wheel(self.loop, 0.05), TIMEOUT, self.came, self.found_late)

    def came(self) -> int | None:
        return None if self.rate is None else int(self.rate * (self.loop.time() - self.began))

    def found_late(self) -> None:
        self.late.set_result(self.loop.time() - self.began)


@pytest.mark.parametrize("rate", [0, 1, 1_000])
async def test_who_sends_nothing_or_next_to_nothing_is_late_after_the_timeout(rate: int) -> None:
    assert await Sender(rate).late == pytest.approx(TIMEOUT, abs=0.1)


async def test_what_came_buys_time_but_not_for_ever() -> None:
    sender = Sender(BYTES_PER_SECOND // 2)
    late = await sender.late
    assert TIMEOUT + 4 < late < 2 * TIMEOUT


async def test_who_sends_fast_enough_is_never_late() -> None:
    sender = Sender(2 * BYTES_PER_SECOND)
    await asyncio.sleep(1_000)
    assert not sender.late.done()
    sender.arrival.cancel()


async def test_time_does_not_count_while_the_server_does_not_read() -> None:
    sender = Sender(None)
    await asyncio.sleep(5 * TIMEOUT)
    assert not sender.late.done()
    sender.rate = 0
    assert await sender.late > 5 * TIMEOUT


async def test_one_that_is_cancelled_does_nothing() -> None:
    sender = Sender(0)
    sender.arrival.cancel()
    await asyncio.sleep(2 * TIMEOUT)
    assert not sender.late.done()
