"""The demo chat: rooms, who is here, typing, and the last messages.

``bellwire demo`` serves it, as ``bellwire run bellwire.demo.chat:server`` does.

People give a name and prove nothing. So that two of one name can be told apart, and the tabs of one
browser are one person, the page also sends a random key that it keeps; a digest of both is the
person's id.

A page that was away gets what it missed (Socket.IO's connection state recovery), as long as this
process lasts.
"""

import hashlib
import itertools
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from bellwire import Config, ConnectRefused, EventRefused, Identity, Request, Server, Socket
from bellwire.demo.events import (
    MAX_NAME,
    MAX_ROOM_NAME,
    MESSAGE_RECEIVED,
    MESSAGE_SEND,
    PRESENCE_CHANGED,
    ROOM_JOIN,
    ROOM_LEAVE,
    ROOM_LISTED,
    TYPING_SEEN,
    TYPING_START,
    WELCOME,
    ChatMessage,
    Draft,
    Person,
    Receipt,
    RoomListed,
    RoomPresence,
    RoomRef,
    RoomState,
    Typist,
    Welcome,
)
from bellwire.demo.pages import Pages
from bellwire.demo.rooms import Rooms

GIVEN_ROOMS: Final = ("lobby", "help", "random")

_JOINERS: Final = str.maketrans("", "", "\u200c\u200d")
"""Joiners stand inside words of Persian, in Indic scripts and in emoji; alone they are invisible."""


class Introduction(msgspec.Struct):
    """What a page sends in its CONNECT: a name, and a random key that it keeps to be known again."""

    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
    key: Annotated[str, msgspec.Meta(max_length=64)] = ""


def tidy(text: str) -> str | None:
    """Trim and single the blanks of a name; None when nothing visible, or a control character, is in it."""
    name = " ".join(text.split())
    visible = name.translate(_JOINERS)
    return name if visible.strip() and visible.isprintable() else None


def identify(payload: Mapping[str, Any]) -> Person:
    """The person that a CONNECT payload introduces; raises ConnectRefused with what is wrong as data."""
    try:
        introduction = msgspec.convert(payload, Introduction)
    except msgspec.ValidationError as error:
        raise _nameless(str(error)) from None
    name = tidy(introduction.name)
    if name is None:
        raise _nameless("Control and other invisible characters do not make a name - at `$.name`")
    key = introduction.key or secrets.token_hex(16)
    return Person(hashlib.sha256(f"{key}\n{name}".encode()).hexdigest()[:12], name)


def _nameless(detail: str) -> ConnectRefused:
    message = f"Please choose a name of 1 to {MAX_NAME} visible characters."
    return ConnectRefused(message, {"code": "name", "detail": detail})


async def introduce(request: Request, payload: Mapping[str, Any]) -> Identity:
    """Let everybody in who has a name."""
    person = identify(payload)
    return Identity(user=person.id, claims={"name": person.name})


server = Server(
    config=Config(connection_state_recovery=True, history_messages=200, history_bytes=262_144),
    auth=introduce,
    http=Pages(Path(__file__).parent / "static"),
)
chat = server.namespace("/chat", emits=(WELCOME, ROOM_LISTED, MESSAGE_RECEIVED, PRESENCE_CHANGED, TYPING_SEEN))
rooms = Rooms(GIVEN_ROOMS)
_numbers = itertools.count(1)
_start = secrets.token_hex(4)


@chat.on_connect
async def welcome(socket: Socket) -> None:
    """Tell a page who it is and which rooms there are."""
    await socket.emit(WELCOME, Welcome(_person(socket), rooms.names()))


@chat.on(ROOM_JOIN)
async def join(socket: Socket, ref: RoomRef) -> RoomState:
    """Let a page into a room, and tell the others there; the reply has the room's messages and people."""
    name = _room_name(ref.room)
    is_new = name not in rooms
    tabs = rooms.enter(name, _person(socket), socket.id)
    room = rooms[name]
    await socket.join(_channel(name))
    if is_new:
        await chat.emit(ROOM_LISTED, RoomListed(name, open=True))
    await _tell_presence(name, socket, tabs)
    return RoomState(name, list(room.messages), room.presence())


@chat.on(ROOM_LEAVE)
async def leave(socket: Socket, ref: RoomRef) -> None:
    """Let a page out of a room; leaving a room that it is not in changes nothing."""
    name = _room_name(ref.room)
    await socket.leave(_channel(name))
    await _forget(socket, name)


@chat.on(MESSAGE_SEND)
async def send(socket: Socket, draft: Draft) -> Receipt:
    """Keep a message and pass it to the others in the room; the receipt is the writer's."""
    name = _entered(socket, draft.room)
    if not draft.text.strip():
        raise EventRefused("empty_message", "There is nothing in this message but blanks.", path="$.text")
    message = ChatMessage(
        id=f"{_start}-{next(_numbers)}",
        room=name,
        author=_person(socket),
        text=draft.text,
        at=time.time_ns() // 1_000_000,
        ref=draft.ref,
    )
    rooms[name].messages.append(message)
    await chat.to(_channel(name)).except_(socket.id).emit(MESSAGE_RECEIVED, message)
    return Receipt(message.id, message.text, message.at)


@chat.on(TYPING_START)
async def typing(socket: Socket, ref: RoomRef) -> None:
    """Show the others in the room that somebody is writing; pages forget it after some seconds."""
    name = _entered(socket, ref.room)
    await chat.to(_channel(name)).except_(socket.id).emit(TYPING_SEEN, Typist(name, _person(socket)))


@chat.on_disconnect
async def left(socket: Socket, reason: str) -> None:
    """Take a page that has gone out of all its rooms."""
    for name in rooms.of(socket.id):
        await _forget(socket, name)


def _person(socket: Socket) -> Person:
    user = socket.user or ""
    return Person(user, socket.claims.get("name", user))


def _channel(name: str) -> str:
    """The server's room for a room of the chat; the prefix keeps it apart from the sockets' own ids."""
    return f"room:{name}"


def _room_name(text: str) -> str:
    """A room's name in the server's spelling: single blanks, lower case."""
    name = tidy(text)
    if name is None:
        message = f"A room's name has 1 to {MAX_ROOM_NAME} visible characters."
        raise EventRefused("room_name", message, path="$.room")
    return name.lower()


def _entered(socket: Socket, text: str) -> str:
    name = _room_name(text)
    if name not in rooms.of(socket.id):
        raise EventRefused("not_in_room", f"Join {name} before you write there.", path="$.room")
    return name


async def _tell_presence(name: str, socket: Socket, tabs: int) -> None:
    presence = RoomPresence(name, _person(socket), tabs)
    await chat.to(_channel(name)).except_(socket.id).emit(PRESENCE_CHANGED, presence)


async def _forget(socket: Socket, name: str) -> None:
    tabs = rooms.leave(name, _person(socket), socket.id)
    if tabs is not None:
        await _tell_presence(name, socket, tabs)
    if name not in rooms and tabs is not None:
        await chat.emit(ROOM_LISTED, RoomListed(name, open=False))
