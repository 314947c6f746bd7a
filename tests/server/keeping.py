"""A broker whose puts can be held back, refused and left without an answer, and a connection that holds a session."""

import asyncio
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from typing_extensions import override

from bellwire.brokers.base import Broker, Kept
from bellwire.brokers.memory import MemoryBroker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, OutcomeUnknown
from bellwire.delivery.position import Position
from bellwire.delivery.session import FIRST_TURN, Member, Record, Turn, decode_record
from bellwire.server.session import Session
from bellwire.server.sessions import Sessions

Fate = Literal["ok", "kept", "lost", "late", "away"]
"""Of a write: it is answered; it is made, but not answered; it is neither; it is not answered and made after the next
read; it is refused."""

LIFETIME = 600.0
NAMESPACE = "/chat"


class FatefulBroker(MemoryBroker):
    """A broker in memory; ``fates`` are those of the next writes, and ``blind`` is for reads that fail."""

    def __init__(self) -> None:
        super().__init__()
        self.fates: deque[Fate] = deque()
        self.blind = False
        self.puts: list[Record] = []
        self.writing: list[int] = []
        self._gate = asyncio.Event()
        self._gate.set()
        self._late: list[tuple[str, bytes, int | None, float | None]] = []

    def hold(self) -> None:
        """Let no write be made until `let_go`."""
        self._gate.clear()

    def let_go(self) -> None:
        """Make them."""
        self._gate.set()

    def step(self) -> None:
        """Make those that are held back now, and hold back what comes then."""
        self._gate.set()
        self._gate.clear()

    def ends(self, key: str) -> float | None:
        """When a key runs out."""
        return self._keys[key][2]

    def lose(self, key: str) -> None:
        """Lose a key as a broker does that falls back behind it."""
        self._keys.pop(key, None)

    def fall_back(self, key: str, kept: Kept) -> None:
        """Have what stood there once, under its revision of then."""
        self._keys[key] = *kept, None

    @override
    async def get(self, key: str) -> Kept | None:
        if self.blind:
            raise BrokerUnavailable("away")
        kept = await super().get(key)
        late, self._late = self._late, []
        for late_key, value, expected, ttl in late:
            await super().put(late_key, value, expected=expected, ttl=ttl)
        return kept

    @override
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        record = decode_record(value)
        assert record.holder not in self.writing, "two puts of one session at once"
        self.puts.append(record)
        self.writing.append(record.holder)
        try:
            await self._gate.wait()
        finally:
            self.writing.remove(record.holder)
        fate = self.fates.popleft() if self.fates else "ok"
        if fate == "away":
            raise BrokerUnavailable("away")
        if fate == "late":
            self._late.append((key, value, expected, ttl))
        elif fate != "lost":
            revision = await super().put(key, value, expected=expected, ttl=ttl)
            if fate == "ok":
                return revision
        raise OutcomeUnknown(key)

    @override
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        await self._gate.wait()
        fate = self.fates.popleft() if self.fates else "ok"
        if fate == "away":
            raise BrokerUnavailable("away")
        deleted = await super().delete(key, expected=expected) if fate in ("ok", "kept") else False
        if fate == "ok":
            return deleted
        raise OutcomeUnknown(key)


class Connection:
    """Holds a session; its client answers a probe after a while, or does not."""

    def __init__(self, *, alive: bool = True, patience: float = 2.0) -> None:
        self.alive = alive
        self.patience = patience
        self.times_replaced = 0
        self.probes = 0

    def replaced(self) -> None:
        self.times_replaced += 1

    async def probe(self) -> bool:
        self.probes += 1
        await asyncio.sleep(0.1 if self.alive else self.patience)
        return self.alive


async def started() -> FatefulBroker:
    broker = FatefulBroker()
    await broker.start()
    return broker


class Alone:
    """A node that hears nothing of the others, nor they of it."""

    node = "aaaaaaaa"

    async def tell(self, node: str, key: str) -> None:
        raise AssertionError("all are this one")

    async def probe(self, node: str, key: str) -> bool:
        raise AssertionError("all are this one")


def node(broker: Broker) -> Sessions:
    return Sessions(broker, LIFETIME, Counters(), Alone())


async def create(
    sessions: Sessions, connection: Connection | None = None, *, principal: str | None = "ann", instance: str = "run"
) -> Session:
    return await sessions.create(
        socket_id="socket-id",
        namespace=NAMESPACE,
        principal=principal,
        instance=instance,
        holder=connection or Connection(),
    )


async def resume(
    sessions: Sessions,
    secret: str,
    connection: Connection | None = None,
    *,
    principal: str | None = "ann",
    instance: str = "run",
    namespace: str = NAMESPACE,
    turn: Turn = FIRST_TURN,
    cursors: Mapping[str, Position] = MappingProxyType({}),
) -> Session | None:
    return await sessions.resume(
        secret,
        namespace=namespace,
        principal=principal,
        instance=instance,
        holder=connection or Connection(),
        turn=turn,
        cursors=cursors,
    )


async def resumed(sessions: Sessions, secret: str, connection: Connection | None = None, **how: Any) -> Session:
    session = await resume(sessions, secret, connection, **how)
    assert session is not None
    return session


def count(sessions: Sessions, outcome: str) -> int:
    """How many sessions were begun, taken up, and so on."""
    return sessions.counters.get("sessions_total", outcome=outcome)


async def stored(broker: MemoryBroker, session: Session) -> Record | None:
    """What the broker has of a session."""
    kept = await MemoryBroker.get(broker, session.key)
    return None if kept is None else decode_record(kept.value)


def at(seq: int) -> Position:
    return Position("g", seq, seq + 1000)


def member(seq: int, name: str = "lobby") -> Member:
    return Member("r", name, at(seq))
