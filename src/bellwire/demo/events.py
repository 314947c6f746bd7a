"""Every event of the demo chat, each with the types of its payload.

What people write goes out as they wrote it, ``<`` and ``&`` as well: the page shows it as text, never as HTML.
"""

from typing import Annotated, Final

import msgspec

from bellwire import Event

MAX_NAME: Final = 32
"""Characters in a person's name."""

MAX_ROOM_NAME: Final = 64
"""Characters in a room's name."""

MAX_TEXT: Final = 2000
"""Characters in a message."""

RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ROOM_NAME)]


class Person(msgspec.Struct, frozen=True):
    """Somebody in the chat: ``name`` as they gave it; ``id`` tells people of one name apart."""

    id: str
    name: str


class Presence(msgspec.Struct, frozen=True):
    """That ``person`` is here in ``tabs`` browser tabs; 0 says that the last one has gone."""

    person: Person
    tabs: int


class ChatMessage(msgspec.Struct, frozen=True):
    """What somebody wrote. ``at`` is in milliseconds since 1970 (UTC); ``ref`` is the writer's own mark."""

    id: str
    room: str
    author: Person
    text: str
    at: int
    ref: str


class Welcome(msgspec.Struct, frozen=True):
    """The first thing a page hears: who it is, and which rooms are open."""

    you: Person
    rooms: list[str]


class RoomRef(msgspec.Struct, frozen=True):
    """A room by its name."""

    room: RoomName


class RoomState(msgspec.Struct, frozen=True):
    """A room as somebody finds it: its name in the server's spelling, its last messages, its people."""

    room: str
    messages: list[ChatMessage]
    people: list[Presence]


class Draft(msgspec.Struct, frozen=True):
    """A message on its way in. ``ref`` comes back with it, so that a page knows its own message again."""

    room: RoomName
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
    ref: Annotated[str, msgspec.Meta(max_length=36)] = ""


class Receipt(msgspec.Struct, frozen=True):
    """That a message was accepted: its id, its text as others see it, its time as in ChatMessage."""

    id: str
    text: str
    at: int


class RoomPresence(msgspec.Struct, frozen=True):
    """A change in who is in a room."""

    room: str
    person: Person
    tabs: int


class Typist(msgspec.Struct, frozen=True):
    """Somebody is writing in a room."""

    room: str
    person: Person


class RoomListed(msgspec.Struct, frozen=True):
    """A room was opened, or was forgotten (``open`` is false) because the last has left it."""

    room: str
    open: bool


# Sent by the page.
ROOM_JOIN = Event("room:join", RoomRef, reply=RoomState)
ROOM_LEAVE = Event("room:leave", RoomRef)
MESSAGE_SEND = Event("message:send", Draft, reply=Receipt)
TYPING_START = Event("typing:start", RoomRef, volatile=True)

# Sent by the server.
WELCOME = Event("welcome", Welcome)
ROOM_LISTED = Event("room:listed", RoomListed)
MESSAGE_RECEIVED = Event("message:received", ChatMessage)
PRESENCE_CHANGED = Event("presence:changed", RoomPresence)
TYPING_SEEN = Event("typing:seen", Typist, volatile=True)
