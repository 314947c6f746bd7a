import asyncio
from collections.abc import Collection
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.protocol.post import Post
from bellwire.server.fanout import BETWEEN, Fanout
from bellwire.server.gathering import ENOUGH, MANY, PAUSE
from bellwire.server.socket import Socket
from bellwire.testing.clock import VirtualClockLoop, advance
from bellwire.transports.tick import Tick
from tests.server.test_fanout import Recorder, group, post
from tests.server.test_fanout_model import World

ROOM, OTHER = "/ room", "/ other"
LESS, MORE = PAUSE * 0.9, PAUSE * 0.2


class Crowd:
    """A room of so many, who have been written so many events together."""

    def __init__(self, members: int = MANY, batch: int = 1_024) -> None:
        self.fanout = Fanout(Tick(asyncio.get_running_loop()), Counters(), Config(fanout_batch=batch))
        self.recorders = [Recorder() for _ in range(members)]
        self.all: tuple[Collection[Socket]] = (group(*self.recorders),)
        self.said: list[Post] = []

    async def have(self, events: int) -> "Crowd":
        """Be written so many."""
        self.say(events)
        await advance()
        return self

    def say(self, events: int, room: str = ROOM, text: str = "") -> None:
        for _ in range(events):
            self.said.append(Post("/", f"e{len(self.said)}", (text,), binary=False))
            self.fanout.cast(self.all, self.said[-1], room=room)

    def move(self, *recorders: Recorder) -> None:
        """Let some join, who were no members, and the others leave."""
        self.fanout.settle()
        cast("set[Recorder]", self.all[0]).symmetric_difference_update(recorders)

    @property
    def writes(self) -> list[int]:
        """How many events were in each write, for everybody the same."""
        (found,) = {tuple(len(message.parts) for message in recorder.given) for recorder in self.recorders}
        return list(found)


async def test_fewer_than_came_together_wait_for_as_many() -> None:
    crowd = await Crowd().have(3)
    crowd.say(1)
    await advance(LESS)
    crowd.say(1)
    await advance()
    assert crowd.writes == [3]
    crowd.say(1)
    await advance()
    assert crowd.writes == [3, 3]


async def test_more_than_that_do_not_wait() -> None:
    crowd = await Crowd().have(3)
    await crowd.have(5)
    assert crowd.writes == [3, 5]
    await crowd.have(4)
    assert crowd.writes == [3, 5]


async def test_they_wait_no_longer_than_the_pause_from_the_first_one() -> None:
    crowd = await Crowd().have(3)
    crowd.say(1)
    await advance(LESS)
    await crowd.have(1)
    await advance(MORE)
    assert crowd.writes == [3, 2]


async def test_after_the_pause_so_many_are_waited_for_as_came_in_it() -> None:
    crowd = await Crowd().have(9)
    await crowd.have(2)
    await advance(PAUSE)
    await crowd.have(1)
    assert crowd.writes == [9, 2]
    await crowd.have(1)
    assert crowd.writes == [9, 2, 2]


async def test_one_at_a_time_does_not_wait() -> None:
    crowd = await Crowd().have(3)
    await crowd.have(1)
    await advance(PAUSE)
    for _ in range(3):
        await crowd.have(1)
    assert crowd.writes == [3, 1, 1, 1, 1]


@pytest.mark.parametrize(("members", "batch"), [(MANY - 1, 1_024), (MANY + 1, MANY)], ids=["fewer", "in batches"])
async def test_other_rooms_do_not_wait(members: int, batch: int) -> None:
    crowd = await Crowd(members, batch).have(3)
    await crowd.have(1)
    assert crowd.writes == [3, 1]


async def test_a_room_that_has_become_a_small_one_does_not_wait() -> None:
    crowd = await Crowd().have(3)
    gone = crowd.recorders.pop()
    crowd.move(gone)
    await crowd.have(1)
    assert crowd.writes == [3, 1]


async def test_a_room_that_has_become_larger_than_a_batch_does_not_wait() -> None:
    crowd = await Crowd(batch=MANY).have(3)
    others = [Recorder(), Recorder()]
    crowd.move(*others)
    await crowd.have(1)
    assert crowd.writes == [3, 1]
    assert all(len(other.given) == 1 for other in others)


async def test_so_many_bytes_do_not_wait_for_more() -> None:
    crowd = await Crowd().have(9)
    crowd.say(1, text="x" * ENOUGH)
    await advance()
    assert crowd.writes == [9, 1]


async def test_no_more_bytes_pile_up_than_are_enough() -> None:
    crowd = await Crowd().have(99)
    for _ in range(8):
        crowd.say(1, text="x" * (ENOUGH // 4))
        await advance()
    assert crowd.writes == [99, 4, 4]


async def test_what_belongs_to_no_room_does_not_wait() -> None:
    crowd = Crowd()
    crowd.say(3, "")
    await advance()
    crowd.say(1, "")
    await advance()
    assert crowd.writes == [3, 1]


async def test_nobody_waits_for_another_room() -> None:
    crowd = await Crowd().have(3)
    crowd.say(1, OTHER)
    await advance()
    assert crowd.writes == [3, 1]


async def test_something_to_others_ends_the_wait() -> None:
    crowd = await Crowd().have(5)
    await crowd.have(2)
    await advance(LESS)
    other = Recorder()
    crowd.fanout.cast((group(other),), post("other"), room=OTHER)
    await advance()
    assert crowd.writes == [5, 2]
    assert len(other.given) == 1
    await crowd.have(1)
    await advance(LESS)  # longer than the first wait would have been
    assert crowd.writes == [5, 2]


async def test_nothing_waits_while_a_larger_room_is_served() -> None:
    crowd = await Crowd(batch=MANY).have(3)
    others = [Recorder() for _ in range(2 * MANY)]
    crowd.fanout.cast((group(*others),), post("other"), room=OTHER)
    await asyncio.sleep(0)
    crowd.say(1)
    await advance()
    assert crowd.writes == [3, 1]
    assert all(len(recorder.given) == 1 for recorder in others)


async def test_something_to_one_of_them_ends_the_wait() -> None:
    crowd = await Crowd().have(3)
    await crowd.have(1)
    crowd.fanout.settle()  # as whatever is sent to one socket does first
    assert crowd.writes == [3, 1]
    await advance(PAUSE)
    assert crowd.writes == [3, 1]


@given(st.lists(st.sampled_from(["say", "other", "turn", "pause", "settle"]), max_size=30))
def test_everyone_gets_everything_in_order(steps: list[str]) -> None:
    async def run() -> None:
        crowd, other = Crowd(), Recorder()
        for step in steps:
            if step == "say":
                crowd.say(1)
            elif step == "other":
                crowd.fanout.cast((group(other),), post("other"), room=OTHER)
            elif step == "settle":
                crowd.fanout.settle()
            else:
                await advance(PAUSE if step == "pause" else 0)
        await advance(PAUSE)
        expected = [said.stock.parts[0] for said in crowd.said]
        assert all(recorder.parts == expected for recorder in crowd.recorders)
        assert len(other.parts) == steps.count("other")

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())


@given(st.data())
def test_rooms_keep_their_order_whoever_comes_and_goes_while_something_is_gathered(data: st.DataObject) -> None:
    async def run() -> None:
        world = World(data)
        world.rooms[0].update(world.sockets[:2])
        for events in (3, 1):
            for _ in range(events):
                world.cast_to(0)
            world.turn()
        for _ in range(data.draw(st.integers(1, 20))):
            world.step()
            await advance(data.draw(st.sampled_from((0, PAUSE))))
        world.turn()  # what is left begins to wait
        await advance(PAUSE)
        for _ in range(200 * (BETWEEN + 1)):
            world.turn()
        world.check()

    with patch("bellwire.server.fanout.MANY", 1), asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())
