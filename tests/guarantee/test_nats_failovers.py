"""JetStream streams that are deleted, or restored from an older state, under two servers that stay connected."""

from functools import partial
from pathlib import Path

import pytest

from bellwire.brokers.nats import PARTITIONS
from bellwire.brokers.nats_streams import place_of
from tests.guarantee.client import Client, Handed
from tests.guarantee.world import Node, World, stream, world_on

A = stream("a")

pytestmark = pytest.mark.bellwire(clock="real")


def _numbered(first: int, last: int, letter: str = "m") -> list[str]:
    return [f"{letter}{n}" for n in range(first, last + 1)]


async def _have(world: World, *clients: Client, labels: list[str]) -> None:
    await world.until(lambda: all(client.of(A) == labels for client in clients))


async def _two_servers(world: World) -> tuple[list[Node], list[Client]]:
    nodes = [await world.node(), await world.node()]
    return nodes, [await world.client(node, "a") for node in nodes]


def _filler() -> str:
    """Return a room whose stream shares a JetStream stream with that of the room "a"."""
    place = partial(place_of, partitions=PARTITIONS)
    return next(name for name in map(str, range(1_000)) if place(stream(name)).partition == place(A).partition)


async def test_a_stream_that_is_deleted_resets_all_who_stood_in_it_before_anything_newer(tmp_path: Path) -> None:
    async with world_on("data", tmp_path) as world:
        (first, second), here = await _two_servers(world)
        away = await world.client(first, "a")
        await first.say("a", *_numbered(1, 5))
        await _have(world, *here, away, labels=_numbered(1, 5))
        away.cut()
        await world.data.wipe(A)
        await second.say("a", "n1")
        await first.say("a", "n2")
        await _have(world, *here, labels=[*_numbered(1, 5), "[generation]", "n1", "n2"])
        await away.connect(second)
        await _have(world, away, labels=[*_numbered(1, 5), "[generation]", "n1", "n2"])
        late = await world.client(first, "a")
        await second.say("a", "n3")
        await _have(world, late, labels=["n3"])
        await _have(world, *here, away, labels=[*_numbered(1, 5), "[generation]", *_numbered(1, 3, "n")])


@pytest.mark.parametrize("between", [0, 1, 2])
async def test_a_stream_that_is_restored_resets_those_who_saw_what_is_gone_and_nobody_else(
    tmp_path: Path, between: int
) -> None:
    """The numbers are given out again, the first ``between`` of them to another room of the same JetStream stream."""
    async with world_on("data", tmp_path) as world:
        (first, second), here = await _two_servers(world)
        early, away = await world.client(first, "a"), await world.client(second, "a")
        other = _filler()
        await first.say("a", *_numbered(1, 5))
        await _have(world, *here, early, away, labels=_numbered(1, 5))
        early.cut()
        snapshot = await world.data.snapshot(A)
        await second.say("a", "m6", mid="sixth")
        await first.say("a", "m7", "m8")
        await _have(world, *here, away, labels=_numbered(1, 8))
        away.cut()
        joined = await world.client(first, "a")  # it stands at what is about to be gone
        await world.data.put_back(snapshot)
        await first.say(other, *(f"o{n}" for n in range(between)))
        await second.say("a", "n6")
        await first.say("a", "m6", mid="sixth")
        await second.say("a", "n8", "n9")
        history = [*_numbered(1, 8), "[diverged]", "n6", "n8", "n9"]
        await _have(world, *here, labels=history)
        await away.connect(first)
        await early.connect(second)
        await _have(world, away, labels=history)
        await _have(world, early, labels=[*_numbered(1, 5), "n6", "m6", "n8", "n9"])
        await world.until(lambda: joined.of(A)[:1] == ["[diverged]"] and joined.of(A)[-1] == "n9")
        for client in (*here, away):
            places = {event.label: event for event in client.history if isinstance(event, Handed)}
            (reset,) = client.resets
            assert reset.restart is not None
            assert reset.restart.seq <= places["m5"].seq


async def test_a_stream_that_is_restored_as_it_is_resets_nobody(tmp_path: Path) -> None:
    async with world_on("data", tmp_path) as world:
        (first, second), here = await _two_servers(world)
        away = await world.client(first, "a")
        await first.say("a", *_numbered(1, 5))
        await _have(world, *here, away, labels=_numbered(1, 5))
        away.cut()
        await world.data.put_back(await world.data.snapshot(A))
        await second.say("a", "m6")
        await first.say("a", "m7")
        await _have(world, *here, labels=_numbered(1, 7))
        await away.connect(second)
        await _have(world, away, labels=_numbered(1, 7))
