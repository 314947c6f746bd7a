"""What stock clients connect to: ``bellwire run tests.interop.application:server``."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from bellwire import BellwireError, Config, ConnectRefused, Event, Identity, Request, Server, Socket


class Parcel(msgspec.Struct):
    """Binary data somewhere inside."""

    label: str
    blob: bytes
    more: list[bytes]


class Asked(msgspec.Struct):
    """What the clients of a room answered."""

    answers: list[str]
    missing: int


ECHO = Event("echo", str, reply=str)
ECHO_BYTES = Event("echo bytes", bytes, reply=bytes)
ECHO_PARCEL = Event("echo parcel", Parcel, bytes, reply=Parcel)
PARCEL = Event("parcel", Parcel, bytes)
WHO_AM_I = Event("who am i", reply=str)

JOIN = Event("join", str, reply=bool)
LEAVE = Event("leave", str, reply=bool)
SAY = Event("say", str, str, reply=bool)
SAID = Event("said", str)

NUMBER = Event("number", int)
NUMBERS = Event("numbers", reply=list[int])
COUNT = Event("count", int, reply=bool)
COUNTED = Event("counted", int)

ASK_ME = Event("ask me", str, reply=str)
ASK_ROOM = Event("ask room", str, str, reply=Asked)
QUESTION = Event("question", str, reply=str)

TICK_ME = Event("tick me", int, reply=bool)
TICK = Event("tick", int, volatile=True)

STREAM = Event("stream", reply=bool)
STREAM_END = Event("stream end", reply=int)
STREAMED = Event("streamed", int, reply=int)

SLOW_ONCE = Event("slow once", str, reply=int)

KICK = Event("kick", bool)
REASONS = Event("reasons", str, reply=list[str])


async def authenticate(request: Request, payload: Mapping[str, Any]) -> Identity | None:
    """Who brings no token is a guest, everybody else the user whom it names, for as many seconds as he says."""
    token = payload.get("token")
    if token == "bad":
        raise ConnectRefused("not authorized", {"code": "E1", "tries": [1, 2]})
    if not isinstance(token, str):
        return None
    return Identity(token, expires=time.time() + payload["seconds"] if "seconds" in payload else None)


server = Server(auth=authenticate, config=Config(message_rate="off"))  # its clients send all they have at once
root = server.namespace("/", emits=(SAID, COUNTED, QUESTION, TICK, STREAMED, PARCEL))
admin = server.namespace("/admin")
org = server.namespace("/org/{org}")

reasons: dict[str, list[str]] = {}
tries: dict[str, int] = {}


@root.on_disconnect
async def left(socket: Socket, reason: str) -> None:
    """Keep why clients with a name went."""
    if "name" in socket.auth:
        reasons.setdefault(socket.auth["name"], []).append(reason)


@root.on(REASONS)
async def tell_reasons(socket: Socket, name: str) -> list[str]:
    """Tell why the client of this name went."""
    return reasons.get(name, [])


@root.on(ECHO)
async def echo(socket: Socket, text: str) -> str:
    """Answer with the same."""
    return text


@root.on(ECHO_BYTES)
async def echo_bytes(socket: Socket, data: bytes) -> bytes:
    """Answer with the same."""
    return data


@root.on(ECHO_PARCEL)
async def echo_parcel(socket: Socket, parcel: Parcel, extra: bytes) -> Parcel:
    """Send the parcel as an event, then answer with it."""
    await socket.emit(PARCEL, parcel, extra)
    return Parcel(parcel.label, parcel.blob, [*parcel.more, extra])


@root.on(WHO_AM_I)
async def who_am_i(socket: Socket) -> str:
    """Tell the client's user."""
    return socket.user or "a guest"


@root.on(JOIN)
async def join(socket: Socket, room: str) -> bool:
    """Enter a room."""
    await socket.join(room)
    return True


@root.on(LEAVE)
async def leave(socket: Socket, room: str) -> bool:
    """Leave a room."""
    await socket.leave(room)
    return True


@root.on(SAY)
async def say(socket: Socket, room: str, text: str) -> bool:
    """Tell everyone else in a room."""
    await root.to(room).except_(socket.id).emit(SAID, text)
    return True


@root.on(NUMBER)
async def number(socket: Socket, value: int) -> None:
    """Keep a number."""
    socket.state.setdefault("numbers", []).append(value)


@root.on(NUMBERS)
async def numbers(socket: Socket) -> list[int]:
    """Tell the numbers in the order in which they came."""
    kept: list[int] = socket.state.pop("numbers", [])
    return kept


@root.on(COUNT)
async def count(socket: Socket, end: int) -> bool:
    """Send the numbers from 0 on."""
    for value in range(end):
        await socket.emit(COUNTED, value)
    return True


@root.on(ASK_ME)
async def ask_me(socket: Socket, question: str) -> str:
    """Ask the client back."""
    return await socket.call(QUESTION, question, timeout=5)


@root.on(ASK_ROOM)
async def ask_room(socket: Socket, room: str, question: str) -> Asked:
    """Ask everyone in a room."""
    replies = await root.to(room).call(QUESTION, question, timeout=5)
    return Asked(sorted(replies.values.values()), len(replies.missing))


@root.on(TICK_ME)
async def tick_me(socket: Socket, end: int) -> bool:
    """Send volatile events."""
    for value in range(end):
        await socket.emit(TICK, value)
    return True


@root.on(STREAM)
async def stream(socket: Socket) -> bool:
    """Send numbers and wait for each to be acknowledged, several at once, until told to stop."""
    socket.state["stream"] = asyncio.create_task(_stream(socket))
    return True


async def _stream(socket: Socket) -> int:
    sent = 0
    while not socket.state.get("end"):
        calls = [socket.call(STREAMED, sent + ahead, timeout=5) for ahead in range(5)]
        try:
            answers = await asyncio.gather(*calls)
        except BellwireError:
            return -1
        assert answers == list(range(sent, sent + 5)), answers
        sent += 5
    return sent


@root.on(STREAM_END)
async def stream_end(socket: Socket) -> int:
    """Stop, and tell how many numbers were sent and acknowledged."""
    socket.state["end"] = True
    sent: int = await socket.state["stream"]
    return sent


@root.on(SLOW_ONCE)
async def slow_once(socket: Socket, key: str) -> int:
    """Take 0.5 s at the first try; the number of the try."""
    tries[key] = tries.get(key, 0) + 1
    if tries[key] == 1:
        await asyncio.sleep(0.5)
    return tries[key]


@root.on(KICK)
async def kick(socket: Socket, close: bool) -> None:
    """Disconnect the client, with its connection if it says so."""
    await socket.disconnect(close=close)


@admin.on(ECHO)
async def echo_to_admin(socket: Socket, text: str) -> str:
    """Answer with the namespace in front."""
    return f"{socket.namespace} {text}"


@org.on(ECHO)
async def echo_to_org(socket: Socket, text: str) -> str:
    """Answer with the organisation in front."""
    return f"{socket.params['org']} {text}"
