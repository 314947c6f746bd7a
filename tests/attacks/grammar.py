"""Packets that are nearly right: drawn from a grammar of each protocol, then damaged, or cut out of a corpus.

Everything comes from a `random.Random`, so that a seed names a run.
"""

import json
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bellwire.protocol.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.attacks.peer import frame, upgrade
from tests.fuzz.targets import TARGETS

CORPUS: Final = [seed for _, seeds in TARGETS.values() for seed in seeds]

_NAMES: Final = (
    "echo",
    "anything",
    "count",
    "note",
    "parcel",
    "connect",
    "__proto__",
    "",
    "x" * 300,
    "bellwire",
    "\ud800",
)
_NAMESPACES: Final = ("", "", "/,", "/members,", "/nowhere,", "/" + "n" * 300 + ",", "/,,", "/x")
_NUMBERS: Final = ("", "0", "7", "999999999999999", "9" * 16, "-1", "1.5", "9" * 400)
_CONTROL: Final = (b"", b"0", b"1", b"2", b"2probe", b"3", b"3probe", b"5", b"6", b"7", b"b", b"b!", b"bAQID", b"x")
_INSERTED: Final = (b"\0", b"\xff", b"[", b'"', b",", b"-", b"\x1e", b"\r\n", b"9" * 30)
_PATHS: Final = (
    "/bellwire",
    "/socket.io/?EIO=4&transport=websocket",
    "/socket.io/?EIO=3&transport=polling&sid=%00",
    "/",
    "*",
)
_SCALARS: Final = (None, True, 0, -1, 2**64, 1.5, 1e308, "", "text", "\0", "<b>", "x" * 2_000, "\ud83d", "😀")
_OPCODES: Final = (TEXT, TEXT, TEXT, BINARY, BINARY, CONTINUATION, PING, PONG, CLOSE, 3, 15)


class Grammar:
    """Draws malformed input."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    # --- values

    def value(self, depth: int = 3) -> Any:
        """Draw what JSON may hold."""
        dice = self.dice
        kind = dice.randrange(6) if depth else 0
        if kind == 4:
            return [self.value(depth - 1) for _ in range(dice.randrange(4))]
        if kind == 5:
            keys = ("a", "text", "_placeholder", "num", "bellwire", "error", "__proto__", "token")
            return {dice.choice(keys): self.value(depth - 1) for _ in range(dice.randrange(4))}
        return dice.choice(_SCALARS)

    def json(self) -> str:
        """Draw JSON text, or what looks like it."""
        dice = self.dice
        text = json.dumps(self.value())
        odd = dice.randrange(12)
        if odd == 0:
            levels = dice.choice((31, 33, 1_000))
            return dice.choice(("[", '{"a":')) * levels + text
        if odd == 1:
            return dice.choice(("NaN", "Infinity", "01", "1e999", "'x'", "[,]", "{]", '{"a":1,"a":2}', "9" * 5_000))
        return text

    # --- packets

    def socket_io(self) -> bytes:
        """Draw a text packet of Engine.IO, mostly one that holds a packet of Socket.IO."""
        dice = self.dice
        if dice.randrange(10) == 0:
            return dice.choice(
                ("", "0", "1", "2", "2probe", "3", "3probe", "5", "6", "7", "b", "b!", "bAQID", "x")
            ).encode()
        kind = dice.choice("0122222334567")
        count = f"{dice.choice(('1', '2', '0', '11', '9999999999', '', '-1'))}-" if kind in "56" else ""
        payload = f"[{json.dumps(dice.choice(_NAMES))},{self.json()}]" if kind in "25" else self.json()
        packet = f"4{kind}{count}{dice.choice(_NAMESPACES)}{dice.choice(_NUMBERS)}{payload}"
        return packet.encode(errors="replace")

    def wire(self) -> bytes:
        """Draw a message of bellwire.v1 in JSON."""
        return json.dumps(self._message()).encode()

    def wire_msgpack(self) -> bytes:
        """Draw a message of bellwire.v1 in MessagePack."""
        try:
            return msgspec.msgpack.encode(self._message())
        except (OverflowError, ValueError):
            return self.dice.randbytes(20)

    def _message(self) -> list[Any]:
        dice = self.dice
        tags = ("connect", "disconnect", "e", "e", "n", "skip", "r", "ask", "ping", "pong", "s", "reset", "zz", "")
        start = [dice.choice(tags), dice.choice(("/", "/", "/members", "", 1))]
        rest = [self.value(2) if dice.randrange(3) else dice.choice(_NAMES) for _ in range(dice.randrange(6))]
        return start + rest

    def frames(self) -> bytes:
        """Draw a few frames, of which some are against RFC 6455."""
        dice = self.dice
        drawn = b""
        for _ in range(dice.randrange(1, 4)):
            payload = self.socket_io() if dice.randrange(2) else dice.randbytes(dice.choice((0, 1, 2, 125, 126, 300)))
            one = bytearray(frame(dice.choice(_OPCODES), payload, fin=dice.randrange(4) > 0))
            if dice.randrange(4) == 0:
                one[dice.randrange(min(14, len(one)))] ^= 1 << dice.randrange(8)
            drawn += bytes(one)
        return drawn

    def handshake(self) -> bytes:
        """Draw a request for a WebSocket, damaged."""
        fields = ("", "Origin: null\r\n", "Sec-WebSocket-Protocol: bellwire.v1.json, x\r\n", "X: \xff\r\n", ": \r\n")
        return self.damage(upgrade(self.dice.choice(_PATHS), self.dice.choice(fields)))

    def body(self) -> bytes:
        """Draw the body of a POST."""
        return b"\x1e".join([self.socket_io() for _ in range(self.dice.randrange(1, 5))])

    def from_corpus(self) -> bytes:
        """Damage an input that is known to reach far."""
        return self.damage(self.dice.choice(CORPUS))

    def damage(self, data: bytes) -> bytes:
        """Change, cut, double or insert a few bytes, or none."""
        dice = self.dice
        damaged = bytearray(data)
        for _ in range(dice.choice((0, 1, 1, 2, 8))):
            place = dice.randrange(len(damaged) + 1)
            match dice.randrange(4):
                case 0:
                    damaged[place : place + 1] = dice.randbytes(1)
                case 1:
                    del damaged[place : place + dice.randrange(1, 20)]
                case 2:
                    damaged[place:place] = damaged[place : place + dice.randrange(1, 50)]
                case _:
                    damaged[place:place] = dice.choice(
                        (b"\0", b"\xff", b"[", b'"', b",", b"-", b"\x1e", b"\r\n", b"9" * 30)
                    )
        return bytes(damaged)


PARSED: Final[dict[str, tuple[str, ...]]] = {
    "websocket": ("frames", "from_corpus"),
    "handshake": ("handshake", "from_corpus"),
    "engineio": ("body", "socket_io", "from_corpus"),
    "socketio": ("socket_io", "from_corpus"),
    "embedding": ("socket_io", "from_corpus"),
    "wire": ("wire", "wire_msgpack", "from_corpus"),
    "schema": ("socket_io", "from_corpus"),
    "envelope": ("wire_msgpack", "from_corpus"),
    "post": ("wire_msgpack", "from_corpus"),
}
"""Which rules make input for which parser (`tests.fuzz.targets`)."""


def drawn(grammar: Grammar, rule: str) -> bytes:
    """Draw by the name of a rule."""
    draw: Callable[[], bytes] = getattr(grammar, rule)
    return draw()
