"""What the clients of these tests connect to: ``bellwire run tests.chaos.application:server``.

What goes out in streams is emitted by relays, so that it has its effect once, whatever dies meanwhile.
"""

from bellwire import Config, Event, Server, Socket

NOTE = Event("note", str, int, reply=int)
NOTED = Event("noted", str, int)

JOIN = Event("join", str, reply=bool)
LEAVE = Event("leave", str, reply=bool)
SAY = Event("say", list[str], str, reply=bool)
SAY_TO_OTHERS = Event("say to others", str, str, str, reply=bool)
SAID = Event("said", str)
SHOW = Event("show", str, bytes, reply=bool)
SHOWN = Event("shown", bytes, str, list[bytes])
TICK = Event("tick", str, reply=bool)
TICKED = Event("ticked", str, volatile=True)
ASK = Event("ask", str, reply=list[str])
ASKED = Event("asked", reply=str)
MEMBERS = Event("members", str, reply=list[str])
REASONS = Event("reasons", reply=list[str])
COUNTERS = Event("counters", reply=dict[str, int])

ROOM = "notes"
"""Everybody is in it."""

server = Server(config=Config(message_rate="off"))  # its clients send all they have at once
root = server.namespace("/", emits=(NOTED, SAID, SHOWN, TICKED, ASKED))

reasons: list[str] = []


@root.on_connect
async def joined(socket: Socket) -> None:
    """Enter the room of the notes, and those that the client names."""
    if not socket.recovered:
        for room in (ROOM, *socket.auth.get("rooms", ())):
            await socket.join(room)


@root.on_disconnect
async def left(socket: Socket, reason: str) -> None:
    """Keep why a client went."""
    reasons.append(reason)


@root.on(NOTE, effect="relay")
async def note(socket: Socket, writer: str, number: int) -> int:
    """Tell everybody."""
    await root.to(ROOM).emit(NOTED, writer, number)
    return number


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


@root.on(SAY, effect="relay")
async def say(socket: Socket, rooms: list[str], text: str) -> bool:
    """Tell rooms, or the namespace if there is none."""
    await (root.to(*rooms) if rooms else root).emit(SAID, text)
    return True


@root.on(SAY_TO_OTHERS, effect="relay")
async def say_to_others(socket: Socket, room: str, not_to: str, text: str) -> bool:
    """Tell everybody in a room but one."""
    await root.to(room).except_(not_to).emit(SAID, text)
    return True


@root.on(SHOW, effect="relay")
async def show(socket: Socket, room: str, data: bytes) -> bool:
    """Send binary data; the last argument is no string."""
    await root.to(room).emit(SHOWN, data, "between", [data, data])
    return True


@root.on(TICK)
async def tick(socket: Socket, text: str) -> bool:
    """Send something volatile."""
    await root.emit(TICKED, text)
    return True


@root.on(ASK)
async def ask(socket: Socket, room: str) -> list[str]:
    """Ask everybody in a room; those events have an acknowledgement."""
    replies = await root.to(room).call(ASKED, timeout=5)
    return sorted(replies.values.values())


@root.on(MEMBERS)
async def members(socket: Socket, room: str) -> list[str]:
    """Tell who is in a room."""
    return sorted(other.id for other in await root.to(room).sockets())


@root.on(REASONS)
async def tell_reasons(socket: Socket) -> list[str]:
    """Tell why clients went, since the server was started."""
    return reasons


@root.on(COUNTERS)
async def tell_counters(socket: Socket) -> dict[str, int]:
    """Tell what this node has counted."""
    return server.counters.snapshot()
