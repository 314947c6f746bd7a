"""A server that greets, and tells the others who came: bellwire run server:server"""

from typing import Annotated

import msgspec

from bellwire import Event, Server, Socket


class Visitor(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


GREET = Event("greet", Visitor, reply=str)
ARRIVED = Event("arrived", str)

server = Server()
root = server.namespace("/", emits=(ARRIVED,))


@root.on(GREET)
async def greet(socket: Socket, visitor: Visitor) -> str:
    await root.except_(socket.id).emit(ARRIVED, visitor.name)
    return f"Hello, {visitor.name}!"
