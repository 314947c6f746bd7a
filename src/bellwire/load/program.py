"""What the server under test does, on Bellwire: ``bellwire run bellwire.load.program:server``.

What is published goes to everyone in the publisher's room, which its first request names, or in the namespace.
"""

from typing import Final

from bellwire import Event, Namespace, Server, Socket

NAMESPACE: Final = "/bellwire-bench"
"""Where the program is beside another application."""

# Without a limit, whatever the server has: clients here do nothing but send.
PUB, MSG = Event("pub", str, rate="off"), Event("msg", str)
PUB_BYTES, MSG_BYTES = Event("pub-bytes", bytes, rate="off"), Event("msg-bytes", bytes)
ECHO = Event("echo", str, reply=str, rate="off")
RELAY = Event("relay", str, reply=str, rate="off")


def program(name: str) -> Namespace:
    """Make a namespace that does it."""
    here = Namespace(name, emits=(MSG, MSG_BYTES))

    @here.on_connect
    async def come(socket: Socket) -> None:
        if room := socket.request.query.get("room"):
            socket.state["room"] = room
            await socket.join(room)

    @here.on(PUB, effect="relay")
    async def publish(socket: Socket, text: str) -> None:
        room = socket.state.get("room")
        await (here.to(room) if room else here).emit(MSG, text)

    @here.on(PUB_BYTES, effect="relay")
    async def publish_bytes(socket: Socket, data: bytes) -> None:
        await here.emit(MSG_BYTES, data)

    @here.on(ECHO)
    async def echo(socket: Socket, text: str) -> str:
        return text

    @here.on(RELAY, effect="relay")
    async def relay(socket: Socket, text: str) -> str:
        await socket.emit(MSG, text)
        return text

    return here


server = Server()
server.include(program("/"))
server.include(program(NAMESPACE))
