"""bellwire.v1 in MessagePack, with a session."""

import secrets
from typing import Any

import msgspec

from bellwire.load import wire
from bellwire.load.clients.base import ECHO, NUMBERED, RELAY, Client, Content, LoadError, Manner, RefusedError, Said


class V1(Client):
    """A client that has a session, and a producer's id if it will number its events."""

    OPCODE = wire.BINARY
    PING = msgspec.msgpack.encode(["ping"])
    PONG = wire.masked(msgspec.msgpack.encode(["pong"]), wire.BINARY)

    def __init__(self, manner: Manner, room: str = "") -> None:
        super().__init__(manner, room)
        self._namespace = manner.namespace
        self._stands: dict[int, tuple[int, int]] = {}

    def target(self, query: str) -> str:
        """Its own path."""
        return f"/bellwire?{query}" if query else "/bellwire"

    def lines(self) -> tuple[str, ...]:
        """Its sub-protocol."""
        return ("Sec-WebSocket-Protocol: bellwire.v1.msgpack",)

    def begin(self) -> bytes:
        """The first message authenticates, and asks for a session."""
        producer = None if self.manner.kind == ECHO else secrets.token_hex(16)
        return _frame("connect", self._namespace, self.manner.auth, secrets.token_hex(4), producer)

    def enter(self, payload: bytes) -> bytes:
        """Wait for ``connected``."""
        tag, *rest = _unpack(payload)
        if tag == "refused" and len(rest) > 1:
            raise RefusedError(str(rest[1]))
        if tag != "connected" or len(rest) < 4:
            raise RefusedError(payload)
        self.ready = True
        return b""

    def publish(self, content: Content) -> bytes:
        """An event without a reply."""
        return _frame("e", self._namespace, self.pub, [content])

    def ask(self, number: int, text: str) -> bytes:
        """An event with an id, or with a number."""
        kind = self.manner.kind
        if kind == ECHO:
            return _frame("e", self._namespace, ECHO, [text], number)
        return _frame("n", self._namespace, number, ECHO if kind == NUMBERED else RELAY, [text])

    def reply(self, number: int, text: str) -> bytes:
        """The reply or the outcome."""
        tag = "r" if self.manner.kind == ECHO else "n"
        return wire.unmasked(msgspec.msgpack.encode((tag, self._namespace, number, [text])), wire.BINARY)

    def read(self, payload: bytes) -> Said | None:
        """Read any message; those of a stream have to follow on each other."""
        tag, *rest = _unpack(payload)
        if tag == "s":
            alias, seq, its_tag, back, prev_tag, _, name, (said,) = rest[:8]
            self._follow(alias, (seq - back, prev_tag), (seq, its_tag))
            return name, said
        if tag == "open":
            _, _, alias, _, *point = rest
            self._stands[alias] = (point[0], point[1])
            return None
        if tag == "e":
            _, name, (said,) = rest[:3]
            return name, said
        if tag in ("r", "n"):
            _, number, (said,) = rest
            return number, said
        raise LoadError(f"an unexpected message: {payload[:100]!r}")

    def _follow(self, alias: int, prev: tuple[int, int], point: tuple[int, int]) -> None:
        if self._stands.get(alias) != prev:
            raise LoadError(f"an event that follows on {prev} came behind {self._stands.get(alias)}")
        self._stands[alias] = point

    def join(self, other: Client) -> None:
        """Stand where it stands."""
        if isinstance(other, V1):
            self._stands.update({alias: at for alias, at in other._stands.items() if alias in self._stands})


def _frame(*message: object) -> bytes:
    return wire.masked(msgspec.msgpack.encode(message), wire.BINARY)


def _unpack(payload: bytes) -> list[Any]:
    return msgspec.msgpack.decode(payload, type=list)
