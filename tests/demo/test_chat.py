from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from bellwire import ConnectRefused, EventRefused
from bellwire.demo import chat
from bellwire.demo.events import (
    MAX_TEXT,
    MESSAGE_RECEIVED,
    MESSAGE_SEND,
    PRESENCE_CHANGED,
    ROOM_JOIN,
    ROOM_LEAVE,
    ROOM_LISTED,
    TYPING_SEEN,
    TYPING_START,
    WELCOME,
    Draft,
    Person,
    RoomListed,
    RoomPresence,
    RoomRef,
    Typist,
    Welcome,
)
from bellwire.demo.rooms import MAX_ROOMS_PER_VISIT, Rooms
from bellwire.testing import TestClient, connect

LOBBY = RoomRef("lobby")


@pytest.fixture(autouse=True)
def fresh_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "rooms", Rooms(chat.GIVEN_ROOMS))


def knock(name: str, key: str = "") -> AbstractAsyncContextManager[TestClient]:
    """Somebody's page, connected and not yet greeted."""
    return connect(chat.server, "/chat", auth={"name": name, "key": key or name})


@asynccontextmanager
async def person(name: str, *rooms: RoomRef, key: str = "") -> AsyncIterator[tuple[TestClient, Person]]:
    """Somebody's page, greeted and in these rooms; whom it is of."""
    async with knock(name, key) as client:
        welcome = await client.receive(WELCOME)
        for room in rooms:
            await client.call(ROOM_JOIN, room)
        yield client, welcome.you


async def refusal(client: TestClient, event: Any, payload: Any) -> EventRefused:
    with pytest.raises(EventRefused) as refused:
        await client.call(event, payload)
    return refused.value


# --- names


async def test_a_page_is_told_who_it_is_and_which_rooms_there_are() -> None:
    async with knock("  Ada   Lovelace ") as ada:
        welcome: Welcome = await ada.receive(WELCOME)
    assert welcome.you.name == "Ada Lovelace"
    assert welcome.rooms == ["lobby", "help", "random"]


async def test_one_person_is_the_same_in_every_tab_and_two_of_one_name_are_not() -> None:
    async with (
        person("Ada", key="k1") as (_, ada),
        person("Ada", key="k1") as (_, tab),
        person("Ada", key="k2") as (_, other),
        person("Grace", key="k1") as (_, grace),
    ):
        assert ada == tab
        assert len({ada.id, other.id, grace.id}) == 3
        assert "k1" not in ada.id


async def test_without_a_key_everybody_is_somebody_else() -> None:
    async with (
        connect(chat.server, "/chat", auth={"name": "Ada"}) as one,
        connect(chat.server, "/chat", auth={"name": "Ada"}) as other,
    ):
        assert (await one.receive(WELCOME)).you.id != (await other.receive(WELCOME)).you.id


@pytest.mark.parametrize(
    "auth",
    [
        None,
        {},
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 33},
        {"name": 7},
        {"name": "a\x00b"},
        {"name": "a\x1b[31mb"},
        {"name": "\u202eevil"},
        {"name": "\u200b"},
        {"name": "\u200d"},
        {"name": "Ada", "key": "k" * 65},
        {"name": "Ada", "key": ["k"]},
    ],
)
async def test_who_has_no_proper_name_is_refused_with_the_reason(auth: dict[str, Any] | None) -> None:
    with pytest.raises(ConnectRefused, match="choose a name of 1 to 32") as refused:
        async with connect(chat.server, "/chat", auth=auth):
            pass
    assert refused.value.data["code"] == "name"
    assert "$.name" in refused.value.data["detail"] or "$.key" in refused.value.data["detail"] or not auth


@pytest.mark.parametrize("name", ["x" * 32, "محمد", "می\u200cکنم", "👩\u200d🚀", "O'Neil-Смит 3", "<b>A</b> & Co"])
async def test_names_of_all_scripts_are_names(name: str) -> None:
    async with person(name) as (_, you):
        assert you.name == name


# --- rooms


async def test_joining_shows_the_room_and_shows_oneself_to_the_others() -> None:
    async with person("Ada", LOBBY) as (ada, _), person("Grace") as (grace, her):
        state = await grace.call(ROOM_JOIN, LOBBY)
        assert (state.room, state.messages) == ("lobby", [])
        assert [(p.person.name, p.tabs) for p in state.people] == [("Ada", 1), ("Grace", 1)]
        assert await ada.receive(PRESENCE_CHANGED) == RoomPresence("lobby", her, 1)
        await grace.call(ROOM_LEAVE, LOBBY)
        assert await ada.receive(PRESENCE_CHANGED) == RoomPresence("lobby", her, 0)
        await grace.receive_nothing()


async def test_a_second_tab_raises_the_count_and_its_end_lowers_it() -> None:
    async with person("Ada", LOBBY) as (ada, _):
        async with person("Grace", LOBBY) as (first, grace):
            assert await ada.receive(PRESENCE_CHANGED) == RoomPresence("lobby", grace, 1)
            async with person("Grace", LOBBY):
                for client in (ada, first):
                    assert await client.receive(PRESENCE_CHANGED) == RoomPresence("lobby", grace, 2)
            for client in (ada, first):
                assert await client.receive(PRESENCE_CHANGED) == RoomPresence("lobby", grace, 1)
        assert await ada.receive(PRESENCE_CHANGED) == RoomPresence("lobby", grace, 0)


async def test_a_lost_connection_leaves_all_its_rooms() -> None:
    tea = RoomRef("tea")
    async with person("Ada", LOBBY) as (ada, _), person("Grace", LOBBY, tea) as (grace, her):
        await ada.receive(PRESENCE_CHANGED)
        assert await ada.receive(ROOM_LISTED) == RoomListed("tea", open=True)
        grace.drop()
        told = [await ada.receive(PRESENCE_CHANGED), await ada.receive(ROOM_LISTED)]
        assert told == [RoomPresence("lobby", her, 0), RoomListed("tea", open=False)]
    assert chat.rooms.names() == ["lobby", "help", "random"]


async def test_a_room_of_ones_own_is_listed_for_all_until_its_last_has_left() -> None:
    async with person("Ada") as (ada, _), person("Grace") as (grace, _):
        await grace.call(ROOM_JOIN, RoomRef("  R&D   Lab "))
        assert await ada.receive(ROOM_LISTED) == RoomListed("r&d lab", open=True)
        state = await ada.call(ROOM_JOIN, RoomRef("r&d lab"))
        assert [p.person.name for p in state.people] == ["Grace", "Ada"]
        await grace.call(ROOM_LEAVE, RoomRef("R&D lab"))
        await ada.call(ROOM_LEAVE, RoomRef("R&D lab"))
        async with knock("Late") as late:
            assert (await late.receive(WELCOME)).rooms == ["lobby", "help", "random"]


async def test_leaving_a_room_that_one_is_not_in_tells_nobody() -> None:
    async with person("Ada", LOBBY) as (ada, _), person("Grace") as (grace, _):
        await grace.call(ROOM_LEAVE, LOBBY)
        await grace.call(ROOM_LEAVE, RoomRef("nowhere"))
        await ada.receive_nothing()


@pytest.mark.parametrize("name", [" ", "\u200b", "a\x07b"])
async def test_a_room_needs_a_visible_name(name: str) -> None:
    async with person("Ada") as (ada, _):
        refused = await refusal(ada, ROOM_JOIN, RoomRef(name))
        assert (refused.code, refused.path) == ("room_name", "$.room")
        assert chat.rooms.names() == ["lobby", "help", "random"]


async def test_the_rooms_of_one_page_are_bounded() -> None:
    async with person("Ada") as (ada, _):
        for number in range(MAX_ROOMS_PER_VISIT):
            await ada.call(ROOM_JOIN, RoomRef(f"room {number}"))
        assert (await refusal(ada, ROOM_JOIN, LOBBY)).code == "too_many_rooms"
        await ada.call(ROOM_LEAVE, RoomRef("room 3"))
        await ada.call(ROOM_JOIN, LOBBY)


# --- messages


async def test_a_message_reaches_the_others_in_the_room_and_its_writer_gets_a_receipt() -> None:
    async with person("Ada", LOBBY) as (ada, you), person("Grace", LOBBY) as (grace, _), person("Outside"):
        await ada.receive(PRESENCE_CHANGED)
        receipt = await ada.call(MESSAGE_SEND, Draft("lobby", "hello", "my-1"))
        message = await grace.receive(MESSAGE_RECEIVED)
        assert (message.room, message.author, message.text, message.ref) == ("lobby", you, "hello", "my-1")
        assert (message.id, message.text, message.at) == (receipt.id, receipt.text, receipt.at)
        await ada.receive_nothing()


async def test_what_people_write_goes_out_as_they_wrote_it() -> None:
    written = "List<String> & if a<b and c>d, &lt;"
    async with person("Ada", LOBBY) as (ada, _), person("Grace", LOBBY) as (grace, _):
        receipt = await ada.call(MESSAGE_SEND, Draft("lobby", written))
        assert receipt.text == written
        assert (await grace.receive(MESSAGE_RECEIVED)).text == receipt.text
        assert (await ada.call(ROOM_JOIN, LOBBY)).messages[0].text == receipt.text


async def test_a_message_of_blanks_is_refused() -> None:
    async with person("Ada", LOBBY) as (ada, _):
        refused = await refusal(ada, MESSAGE_SEND, Draft("lobby", "   "))
        assert (refused.code, refused.path) == ("empty_message", "$.text")
        assert list(chat.rooms["lobby"].messages) == []


@pytest.mark.parametrize(
    ("draft", "path"),
    [
        (Draft("lobby", "x" * (MAX_TEXT + 1)), "$.text"),
        (Draft("lobby", ""), "$.text"),
        (Draft("r" * 65, "hello"), "$.room"),
        (Draft("", "hello"), "$.room"),
        (Draft("lobby", "hello", "r" * 37), "$.ref"),
    ],
)
async def test_a_message_beyond_its_limits_is_refused_with_the_path(draft: Draft, path: str) -> None:
    async with person("Ada", LOBBY) as (ada, _):
        refused = await refusal(ada, MESSAGE_SEND, draft)
        assert refused.path is not None
        assert refused.path.endswith(path.removeprefix("$"))
        assert list(chat.rooms["lobby"].messages) == []


async def test_one_writes_only_where_one_is() -> None:
    async with person("Ada") as (ada, _), person("Grace", LOBBY) as (grace, _):
        assert (await refusal(ada, MESSAGE_SEND, Draft("lobby", "hello"))).code == "not_in_room"
        assert (await refusal(ada, TYPING_START, LOBBY)).code == "not_in_room"
        assert (await refusal(ada, MESSAGE_SEND, Draft(grace.id, "hello"))).code == "not_in_room"
        await grace.receive_nothing()


async def test_the_last_messages_are_shown_to_those_who_come_later() -> None:
    async with person("Ada", LOBBY) as (ada, you):
        receipts = [await ada.call(MESSAGE_SEND, Draft("lobby", f"message {n}", f"r{n}")) for n in range(60)]
        assert len({receipt.id for receipt in receipts}) == 60
    async with person("Late") as (late, _):
        messages = (await late.call(ROOM_JOIN, LOBBY)).messages
        assert [message.text for message in messages] == [f"message {n}" for n in range(10, 60)]
        assert {message.author for message in messages} == {you}
        assert messages[-1].ref == "r59"


# --- typing


async def test_the_others_in_the_room_see_who_is_writing() -> None:
    async with (
        person("Ada", LOBBY) as (ada, you),
        person("Grace", LOBBY) as (grace, _),
        person("Elsewhere", RoomRef("help")) as (elsewhere, _),
    ):
        await ada.receive(PRESENCE_CHANGED)
        await ada.emit(TYPING_START, LOBBY)
        assert await grace.receive(TYPING_SEEN) == Typist("lobby", you)
        for client in (ada, elsewhere):
            await client.receive_nothing()


async def test_a_user_that_a_test_vouches_for_is_a_person_too() -> None:
    async with connect(chat.server, "/chat", user="u") as client:
        assert (await client.receive(WELCOME)).you == Person("u", "u")
