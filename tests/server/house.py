"""Events and small helpers that the tests of the server floor share."""

from typing import Annotated, Any

import msgspec

from bellwire import Event, PlainText, Socket
from bellwire.protocol.outgoing import Outgoing
from bellwire.testing import TestClient


class Draft(msgspec.Struct):
    room: Annotated[str, msgspec.Meta(max_length=8)]
    text: Annotated[PlainText, msgspec.Meta(max_length=100)]


class Receipt(msgspec.Struct):
    text: str


SEND = Event("send", Draft, reply=Receipt)
SAY = Event("say", str)
ASK = Event("ask", str, reply=str)
PAIR = Event("pair", int, int)
POKE = Event("poke")
BLOB = Event("blob", bytes, reply=bytes)
WAVE = Event("wave", int, volatile=True)


def raw(client: TestClient, *parts: str | bytes) -> None:
    """Send a message as it stands, type digit included: what a wrong client might send."""
    client.send(Outgoing(*parts))


async def greet(socket: Socket) -> None:
    """An ``on_connect`` that says the socket's name."""
    await socket.emit(SAY, "hello")


def error_of(reply: Any) -> dict[str, Any]:
    """The inside of a refusal as it stands on the wire."""
    assert set(reply) == {"error"}
    error: dict[str, Any] = reply["error"]
    return error
