"""WebSocket messages that are the payload and nothing else: what a server costs without any protocol on top."""

from bellwire.load import wire
from bellwire.load.clients.base import Client, Content, LoadError, Said


class Raw(Client):
    """It is in the room as soon as the WebSocket is open, and everything it sends is for everyone."""

    OPCODE = wire.TEXT
    PING = b""
    PONG = wire.masked(b"", wire.PONG)

    def target(self, query: str) -> str:
        """The root."""
        return f"/?{query}" if query else "/"

    def begin(self) -> bytes:
        """Nothing."""
        self.ready = True
        return b""

    def enter(self, payload: bytes) -> bytes:
        """It is in already."""
        raise LoadError(f"a message before any was published: {payload[:100]!r}")

    def publish(self, content: Content) -> bytes:
        """A message."""
        if isinstance(content, bytes):
            return wire.masked(content, wire.BINARY)
        return wire.masked(content.encode())

    def ask(self, number: int, text: str) -> bytes:
        """Nobody replies."""
        raise LoadError("raw clients have no replies")

    def reply(self, number: int, text: str) -> bytes:
        """Nobody replies."""
        raise LoadError("raw clients have no replies")

    def read(self, payload: bytes) -> Said:
        """A message is what was published."""
        return self.msg, payload if self.manner.binary else payload.decode()
