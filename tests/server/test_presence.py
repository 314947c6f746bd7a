"""Who is in a room, as clients on several servers see it."""

import asyncio
from typing import Any

import msgspec
import pytest

from bellwire import PRESENCE_DIFF, PRESENCE_STATE, BrokerUnavailable, PresenceDiff, PresenceState, RoomLimit, Socket
from bellwire.delivery.entry import Entry
from bellwire.protocol.socketio import decode_json
from bellwire.server.presence import (
    GRACE_SECONDS,
    MAX_INFO,
    MAX_SHOWN,
    REPAIR_SECONDS,
    ROOMS_AT_ONCE,
    SILENCE_SECONDS,
    key_of_room,
)
from bellwire.testing import TestClient, connect
from bellwire.testing.clock import advance
from tests.server.house import SAY
from tests.server.lines import LEASE_OVER, Remote, lines
from tests.server.servers import HELLO


def deep(levels: int) -> object:
    """Lists in lists."""
    return [deep(levels - 1)] if levels else 0


class Page:
    """What a client shows, from what it is told."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.state: PresenceState | None = None
        self.diffs: list[PresenceDiff] = []

    async def look(self) -> dict[str, list[Any]]:
        """Take what came; return who is there now."""
        await advance(0)
        for packet, _ in self.client._events:
            name, *args = decode_json(packet.payload)
            if name == PRESENCE_STATE.name:
                self.state = msgspec.convert(args[0], PresenceState)
            elif name == PRESENCE_DIFF.name:
                assert self.state is not None, "a diff before the state"
                diff = msgspec.convert(args[0], PresenceDiff)
                self.diffs.append(diff)
                self.state = self.state.after(diff)
        self.client._events.clear()
        return {} if self.state is None else self.state.present


async def enter(house: Remote, user: str | None = None, info: Any = None, room: str = "r", **options: Any) -> Page:
    """A client that is shown in the room."""
    client = await house.come(room, user=user, **options)
    await house.socket(client).track(room, info)
    return Page(client)


async def look_on(house: Remote, room: str = "r") -> Page:
    """A client that looks at the room and is not shown."""
    client = await house.come(room)
    await house.socket(client).watch(room)
    return Page(client)


class Noting:
    """Notes the streams on which something is published."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def entry(self, stream: str, gen: str, entry: Entry) -> None: ...

    def volatile(self, stream: str, body: bytes) -> None:
        self.said.append(stream)


# --- joining and leaving


async def test_all_see_who_comes_and_goes_on_every_node() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        ada = await enter(here, "ada", {"mood": "calm"})
        assert await ada.look() == {"ada": [{"mood": "calm"}]}
        bob = await enter(there, "bob")
        carl = await enter(elsewhere, "carl")
        everyone = {"ada": [{"mood": "calm"}], "bob": [None], "carl": [None]}
        for page in (ada, bob, carl):
            assert await page.look() == everyone
        await there.socket(bob.client).leave("r")
        await elsewhere.socket(carl.client).untrack("r")
        assert await ada.look() == {"ada": [{"mood": "calm"}]}
        assert ada.diffs[-2:] == [PresenceDiff("r", left=["bob"]), PresenceDiff("r", left=["carl"])]


async def test_a_user_is_there_with_his_first_socket_until_his_last() -> None:
    async with lines() as (_, (here, there)):
        watcher = await look_on(here)
        first, second = await enter(here, "ada", 1), await enter(there, "ada", 2)
        assert sorted((await watcher.look())["ada"]) == [1, 2]
        await first.client.disconnect()
        assert await watcher.look() == {"ada": [2]}
        await second.client.disconnect()
        assert await watcher.look() == {}
        assert [(bool(diff.joined), bool(diff.changed), diff.left) for diff in watcher.diffs] == [
            (True, False, []),
            (False, True, []),
            (False, True, []),
            (False, False, ["ada"]),
        ]


async def test_guests_are_shown_by_their_ids() -> None:
    async with lines() as (_, (here, there)):
        guest, other = await enter(here), await enter(there)
        assert await guest.look() == {guest.client.id: [None], other.client.id: [None]}
        other.client.drop()
        assert await guest.look() == {guest.client.id: [None]}


async def test_what_a_socket_says_of_itself_can_change() -> None:
    class Mood(msgspec.Struct):
        mood: str

    async with lines() as (_, (here, there)):
        ada, bob = await enter(here, "ada", Mood("calm")), await enter(there, "bob")
        await here.socket(ada.client).track("r", Mood("excited"))
        for page in (ada, bob):
            assert (await page.look())["ada"] == [{"mood": "excited"}]
        assert bob.diffs == [PresenceDiff("r", changed={"ada": [{"mood": "excited"}]})]


async def test_who_only_looks_is_not_shown_and_can_be_shown_later() -> None:
    async with lines() as (_, (here, there)):
        ada, watcher = await enter(here, "ada"), await look_on(there)
        assert await watcher.look() == await ada.look() == {"ada": [None]}
        await there.socket(watcher.client).track("r", "now")
        assert await watcher.look() == await ada.look() == {"ada": [None], watcher.client.id: ["now"]}
        assert len(watcher.diffs) == 1


async def test_members_that_did_not_ask_are_told_nothing() -> None:
    async with lines() as (_, (here, there)):
        member = Page(await there.come("r"))
        await enter(here, "ada")
        assert await member.look() == {}
        assert member.state is None


async def test_it_works_in_on_connect_and_after_recovery() -> None:
    def furnish(house: Remote) -> None:
        @house.root.on_connect
        async def entered(socket: Socket) -> None:
            await socket.join("r")
            await socket.track("r", "recovered" if socket.recovered else "new")

    async with lines(2, furnish=furnish) as (_, (here, there)):
        watcher = await look_on(here)
        client = await there.come(user="ada", recovers=True)
        assert (await watcher.look())["ada"] == ["new"]
        reader = there.socket(client).reader
        assert reader is not None
        client.drop()
        await advance(1)
        hello = {"bellwire": HELLO["bellwire"] | {"session": reader.session.secret}}
        async with connect(here.server, user="ada", auth=hello) as again:
            assert (await watcher.look())["ada"] == ["recovered"]
            assert "ada" in await Page(again).look()
            await advance(GRACE_SECONDS + 1)
            assert (await watcher.look())["ada"] == ["recovered"]
            assert all("ada" not in diff.left for diff in watcher.diffs)


async def test_a_page_that_comes_back_in_time_did_not_leave() -> None:
    async with lines() as (_, (here, there)):
        watcher = await look_on(here)
        ada = await enter(there, "ada")
        ada.client.drop()
        await advance(GRACE_SECONDS - 1)
        again = await enter(here, "ada")
        await advance(GRACE_SECONDS)
        assert await watcher.look() == {"ada": [None]}
        assert [diff.left for diff in watcher.diffs] == [[], [], []]
        again.client.drop()
        await advance(GRACE_SECONDS - 1)
        assert await watcher.look() == {"ada": [None]}
        await advance(1.5)
        assert await watcher.look() == {}


async def test_rooms_and_namespaces_are_apart() -> None:
    def furnish(house: Remote) -> None:
        house.server.namespace("/org/{org}")

    async with lines(2, furnish=furnish) as (_, (here, there)):
        ada = await enter(here, "ada", room="a")
        await enter(there, "bob", room="b")
        assert await ada.look() == {"ada": [None]}
        org = there.server.namespaces["/org/{org}"]
        client = await there.stack.enter_async_context(connect(there.server, "/org/7", user="carl"))
        socket = org.hub("/org/7").sockets[client.id]
        await socket.join("a")
        await socket.track("a", 7)
        assert await ada.look() == {"ada": [None]}
        here_org = here.server.namespaces["/org/{org}"]
        assert await here_org.presence("a", org="7") == {"carl": [7]}
        assert await here_org.presence("a", org="8") == {}
        with pytest.raises(TypeError, match="org"):
            await here_org.presence("a")
        with pytest.raises(TypeError, match="presence"):
            await here_org.presence("a", org=7)  # type: ignore[arg-type] # what is tried


async def test_the_server_asks_who_is_there() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        await enter(there, "ada", 1)
        await enter(elsewhere, "ada", 2)
        assert sorted((await here.root.presence("r"))["ada"]) == [1, 2]
        assert await here.root.presence("nowhere") == {}
        assert len(here.runtime.presences) == 0
        elsewhere.line.mute = True
        assert await here.root.presence("r") == {"ada": [1]}
        here.line.cut = True
        with pytest.raises(BrokerUnavailable):
            await here.root.presence("r")


async def test_nothing_is_left_of_rooms_that_nobody_looks_at() -> None:
    async with lines() as (broker, (here, there)):
        pages = [await enter(here, "ada"), await enter(there, "bob")]
        for house, page in zip((here, there), pages, strict=True):
            await house.socket(page.client).disconnect()
        await advance(0)
        assert len(here.runtime.presences) == len(there.runtime.presences) == 0
        assert not broker._listeners.get(key_of_room("/", "r"))
        await advance(REPAIR_SECONDS)
        assert here.runtime.presences._timer is None


# --- what is wrong


async def test_only_members_are_shown_or_look() -> None:
    async with lines(1) as (_, (here,)):
        socket = here.socket(await here.come())
        with pytest.raises(ValueError, match=r"track\('r'\): the socket is not in this room"):
            await socket.track("r")
        with pytest.raises(ValueError, match=r"watch\('r'\)"):
            await socket.watch("r")
        await socket.untrack("r")


@pytest.mark.parametrize("info", [object(), {"n": 10**400}, float, deep(33)])
async def test_what_json_cannot_hold_is_refused(info: object) -> None:
    async with lines(1) as (_, (here,)):
        socket = here.socket(await here.come("r"))
        with pytest.raises(TypeError, match="plain values or a Struct"):
            await socket.track("r", info)


async def test_a_socket_says_no_more_than_a_kibibyte_of_itself() -> None:
    async with lines(1) as (_, (here,)):
        socket = here.socket(await here.come("r"))
        await socket.track("r", "x" * (MAX_INFO - 2))
        with pytest.raises(ValueError, match="say less"):
            await socket.track("r", "x" * (MAX_INFO - 1))


async def test_a_room_shows_so_many_and_no_more() -> None:
    async with lines() as (_, (here, there)):
        pages = [await enter((here, there)[n % 2]) for n in range(MAX_SHOWN)]
        late = await look_on(here)
        with pytest.raises(RoomLimit, match=f"{MAX_SHOWN} sockets"):
            await here.socket(late.client).track("r")
        await there.socket(pages[1].client).untrack("r")
        await here.socket(late.client).track("r")
        assert len(await late.look()) == MAX_SHOWN


async def test_nobody_is_shown_while_the_broker_is_away() -> None:
    async with lines() as (_, (here, _there)):
        client = await here.come("r")
        here.line.cut = True
        with pytest.raises(BrokerUnavailable):
            await here.socket(client).track("r")
        assert len(here.runtime.presences) == 0
        here.line.cut = False
        await here.socket(client).track("r")
        assert await Page(client).look() == {client.id: [None]}


async def test_who_left_while_the_room_was_opened_is_not_shown() -> None:
    async with lines() as (_, (here, there)):
        client = await here.come("r")
        here.line.latency = lambda: 0.1
        tracking = asyncio.ensure_future(here.socket(client).track("r"))
        await advance(0.05)
        client.drop()
        await tracking
        here.line.latency = None
        await advance(1)
        assert await there.root.presence("r") == {}


async def test_garbage_on_a_rooms_stream_is_ignored_and_counted() -> None:
    async with lines() as (broker, (here, _)):
        ada = await enter(here, "ada")
        for garbage in (b"", b"\xc1", b"\x93\xa1n\x00\xa1x", b"\x80"):
            await broker.publish(key_of_room("/", "r"), garbage)
        assert await ada.look() == {"ada": [None]}
        counted = here.server.counters.get("dropped_total", kind="envelope", reason="malformed", policy="ignored")
        assert counted == 4


async def test_every_wire_can_hold_what_is_said() -> None:
    async with lines(1) as (_, (here,)):
        for number, recovers in enumerate((False, True), 1):
            ada = await enter(here, "ada", deep(20), recovers=recovers)
            assert await ada.look() == {"ada": [deep(20)] * number}


async def test_many_rooms_are_told_in_several_parts() -> None:
    async with lines() as (_, (here, there)):
        names = [f"r{n}" for n in range(100)]
        for name in names:
            await here.socket(await here.come(name)).track(name, "x" * 1_000)
            await look_on(there, name)
        there.runtime.presences.node_left(here.node)
        assert await there.root.presence("r7") == {}
        there.runtime.presences.node_joined(here.node)
        await advance(0)
        for name in names:
            assert [said for (said,) in (await there.root.presence(name)).values()] == ["x" * 1_000]


async def test_a_node_that_is_lost_holds_nobody_up_and_is_kept_where_it_comes_back_meanwhile() -> None:
    async with lines() as (_, (here, there)):
        names = [f"r{n}" for n in range(3 * ROOMS_AT_ONCE)]
        for name in names:
            await enter(here, room=name)
            await look_on(there, name)
        presences = there.runtime.presences
        shown = [presences._rooms[key_of_room("/", name)].presence for name in names]
        presences.node_left(here.node)
        assert [len(each) for each in shown] == [0] * ROOMS_AT_ONCE + [1] * (2 * ROOMS_AT_ONCE)
        presences.node_joined(here.node)
        await advance(0)
        assert [len(each) for each in shown] == [1] * len(names)
        presences.node_left(here.node)
        await advance(0)
        assert [len(each) for each in shown] == [0] * len(names)


async def test_very_many_rooms_are_repaired_some_in_a_turn() -> None:
    async with lines() as (_, (here, there)):
        said: list[str] = []
        for number in range(2 * ROOMS_AT_ONCE):
            await enter(here, room=f"r{number}")
            await look_on(there, f"r{number}")
        for served in there.runtime.presences._rooms.values():
            await there.line.subscribe(served.key, Noting(said))
        here.runtime.presences._repair()
        assert len(said) == ROOMS_AT_ONCE
        await advance(0)
        assert len(said) == 2 * ROOMS_AT_ONCE


# --- nodes that die, and lines that are cut


async def test_when_a_node_dies_those_on_all_others_are_told_when_its_lease_is_over() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        ada, bob = await enter(here, "ada"), await enter(there, "bob")
        await enter(elsewhere, "carl")
        await enter(elsewhere, "bob")
        await elsewhere.die()
        await advance(LEASE_OVER)
        for page in (ada, bob):
            assert await page.look() == {"ada": [None], "bob": [None]}
            assert page.diffs[-1] == PresenceDiff("r", changed={"bob": [None]}, left=["carl"])


async def test_the_clients_of_a_node_that_ends_in_order_have_time_to_come_back() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        watcher = await look_on(here)
        await enter(elsewhere, "ada")
        await enter(elsewhere, "bob")
        await elsewhere.server.close()
        await enter(there, "ada")
        assert sorted(await watcher.look()) == ["ada", "bob"]
        await advance(GRACE_SECONDS + 0.5)
        assert await watcher.look() == {"ada": [None]}
        assert [name for diff in watcher.diffs for name in diff.left] == ["bob"]


async def test_a_node_that_was_cut_off_is_seen_again_and_sees_again() -> None:
    async with lines(3) as (_, (here, there, elsewhere)):
        ada, bob = await enter(here, "ada"), await enter(there, "bob")
        there.line.cut = True
        await enter(elsewhere, "carl")
        await there.socket(bob.client).untrack("r")
        await advance(LEASE_OVER)
        assert await ada.look() == {"ada": [None], "carl": [None]}
        there.line.cut = False
        await there.socket(bob.client).track("r", "back")
        await advance(5)
        for page in (ada, bob):
            assert await page.look() == {"ada": [None], "bob": ["back"], "carl": [None]}


async def test_a_step_that_was_lost_is_found_with_the_next_one() -> None:
    async with lines() as (_, (here, there)):
        ada = await enter(here, "ada")
        bob = await enter(there, "bob")
        there.line.mute = True
        await there.socket(bob.client).track("r", "lost")
        there.line.mute = False
        assert (await ada.look())["bob"] == [None]
        await enter(there, "carl")
        assert await ada.look() == {"ada": [None], "bob": ["lost"], "carl": [None]}


async def test_a_step_that_was_lost_is_found_after_a_while() -> None:
    async with lines() as (_, (here, there)):
        ada, bob = await enter(here, "ada"), await enter(there, "bob")
        there.line.mute = True
        await there.socket(bob.client).track("r", "lost")
        there.line.mute = False
        await advance(REPAIR_SECONDS + 1)
        assert (await ada.look())["bob"] == ["lost"]


async def test_an_answer_that_was_overtaken_is_asked_for_again() -> None:
    async with lines() as (_, (here, there)):
        ada, bob = await enter(here, "ada"), await enter(there, "bob")
        socket = there.socket(bob.client)
        there.line.mute = True
        await socket.track("r", 1)
        there.line.mute = False
        delays = [0.0, 1.0]  # of a step, and of the answer to who missed the one before
        there.line.latency = lambda: delays.pop(0) if delays else 0.0
        await socket.track("r", 2)
        await advance(0.5)
        await socket.track("r", 3)
        await advance(1)
        assert (await ada.look())["bob"] == [3]


async def test_a_last_step_that_was_lost_is_found_too() -> None:
    async with lines() as (_, (here, there)):
        ada, bob = await enter(here, "ada"), await enter(there, "bob")
        there.line.mute = True
        await there.socket(bob.client).leave("r")
        there.line.mute = False
        assert len(there.runtime.presences) == 0
        assert "bob" in await ada.look()
        await advance(SILENCE_SECONDS + 2 * REPAIR_SECONDS)
        assert await ada.look() == {"ada": [None]}


async def test_a_broker_that_was_away_for_all_leaves_nobody_behind() -> None:
    async with lines() as (broker, (here, there)):
        ada, bob = await enter(here, "ada"), await enter(there, "bob")
        broker.faults.go_away()
        await here.socket(ada.client).track("r", "meanwhile")
        await advance(LEASE_OVER)
        broker.faults.come_back()
        await advance(6)
        assert await bob.look() == {"ada": ["meanwhile"], "bob": [None]}
        assert all(not diff.left for diff in bob.diffs)


async def test_diffs_come_in_order_with_what_is_emitted() -> None:
    async with lines(1) as (_, (here,)):
        ada = await enter(here, "ada")
        await here.root.to("r").emit(SAY, "before")
        await enter(here, "bob")
        await here.root.to("r").emit(SAY, "after")
        await advance(0)
        names = [decode_json(packet.payload)[0] for packet, _ in ada.client._events]
        assert names == [PRESENCE_STATE.name, SAY.name, PRESENCE_DIFF.name, SAY.name]
