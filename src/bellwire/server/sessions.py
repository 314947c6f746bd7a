"""The sessions that this node holds, on the broker: begun at CONNECT, taken up again on whatever node comes next."""

import asyncio
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec

from bellwire.brokers.base import Broker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable
from bellwire.core.randomness import random_number
from bellwire.delivery.position import Position
from bellwire.delivery.session import FIRST_TURN, Member, Record, Turn, encode_record, new_record, session_key
from bellwire.protocol.socket_id import new_socket_id
from bellwire.server.session import ATTEMPTS, HELD_SECONDS, Holder, Session, check_data, read_kept
from bellwire.server.upkeep import Upkeep

RENEW_SECONDS: Final = HELD_SECONDS / 3
"""The age at which the record of a session that is held is written again."""

SWEEP_SECONDS: Final = 600.0
"""How often such records are looked for."""

_NOWHERE: Final[Mapping[str, Position]] = MappingProxyType({})


class Overtaken(Exception):  # noqa: N818 - no error: the client is elsewhere by now
    """A newer connection of the same client was faster to take the session up."""


class Others(Protocol):
    """The other nodes, and ``node``, which is this one's id."""

    @property
    def node(self) -> str:
        """The id."""
        ...

    async def tell(self, node: str, key: str) -> None:
        """Tell ``node`` that the session under ``key`` was taken up here. It may get lost; that raises nothing."""

    async def probe(self, node: str, key: str) -> bool:
        """Whether ``node`` says that it holds this session and its client answers. Raises `BrokerUnavailable`."""
        ...


class Sessions:
    """All sessions of a node; made, and used, in the running loop.

    ``lifetime`` is the time in seconds for which a session can be taken up again once its connection is lost.
    """

    def __init__(self, broker: Broker, lifetime: float, counters: Counters, others: Others) -> None:
        self.broker = broker
        self._others = others
        self.lifetime = lifetime
        self.counters = counters
        self.upkeep = Upkeep("session", counters)
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, Session] = {}  # by key, the one written longest ago first
        self._locks: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    async def create(
        self,
        *,
        socket_id: str,
        namespace: str,
        principal: str | None,
        instance: str,
        holder: Holder,
        turn: Turn = FIRST_TURN,
        streams: Mapping[str, Member] | None = None,
        data: bytes = b"",
    ) -> Session:
        """Begin a session for the socket ``socket_id`` of ``principal`` (None: nobody authenticated).

        ``instance`` tells one run of the client's program from another, and ``turn`` its connections; ``streams`` is
        what the socket is a member of already.

        Raises:
            BrokerUnavailable: there is no session.
            ValueError: ``data`` has more than `MAX_DATA` bytes.

        """
        check_data(data)
        record = new_record(socket_id, instance, random_number(), streams=streams, data=data, turn=turn)
        session = await self._begin(record, namespace, principal, holder)
        self.counters.add("sessions_total", outcome="created")
        return session

    async def resume(
        self,
        secret: str,
        *,
        namespace: str,
        principal: str | None,
        instance: str,
        holder: Holder,
        turn: Turn = FIRST_TURN,
        cursors: Mapping[str, Position] = _NOWHERE,
        after: float | None = None,
    ) -> Session | None:
        """Take a session up; None if there is none with this secret in this namespace for this principal.

        One that nobody has asked for ``after`` that time, in the broker's, was revoked, and counts as not there.

        Memberships that ended at the client's ``cursors``, or before, are forgotten; `Session.found` has them still.

        Whoever held it before is fenced off, and told: on another node when it writes next, at the latest. But if
        another ``instance`` holds it and is alive, that one goes on, as after a browser's tab was duplicated. The
        answer is a copy then: `Session.forked`, with a secret and a socket's id of its own.

        Raises:
            BrokerUnavailable: nothing has changed; should it be taken up nevertheless, then it is let go again.
            Overtaken: nothing has changed; a connection that came after this one, by its ``turn``, has it or had it.

        """
        key = session_key(secret, namespace, principal)
        async with self.lock(key):
            found = await self._take(secret, key, instance, holder, turn, cursors, after)
        outcome = "unknown" if found is None else "resumed"
        if isinstance(found, Record):
            copy = found.forked(new_socket_id(None), instance, random_number(), turn)
            found, outcome = await self._begin(copy.reached(cursors), namespace, principal, holder), "forked"
            found.forked, found.found = True, copy
        self.counters.add("sessions_total", outcome=outcome)
        return found

    async def close(self, grace: float) -> None:
        """Let all sessions go, and wait at most ``grace`` seconds until that is written."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for session in tuple(self._held.values()):
            session.detach()
        await self.upkeep.close(grace)

    # --- within

    async def _begin(self, record: Record, namespace: str, principal: str | None, holder: Holder) -> Session:
        secret = secrets.token_urlsafe(16)
        record = self._here(record)
        session = Session(self, secret, session_key(secret, namespace, principal), record, holder)
        try:
            await session.write()  # without its lock: nobody else knows it yet
        except BaseException:
            session.abandon(ended=True)
            raise
        return session

    async def _take(
        self,
        secret: str,
        key: str,
        instance: str,
        holder: Holder,
        turn: Turn,
        cursors: Mapping[str, Position],
        after: float | None,
    ) -> Session | Record | None:
        """Return the session, or None if there is none; or its record, if another instance goes on with it."""
        mark, begun = random_number(), self.now
        session: Session | None = None
        before: Record | None = None
        alive: dict[int, bool] = {}  # by holder
        try:
            for _ in range(ATTEMPTS):
                kept = await self.broker.get(key)
                record = None if kept is None else read_kept(kept)
                if kept is None or record is None or record.over or record.is_patchy:
                    return None
                if record.holder == mark:  # the answer to an attempt was lost
                    session = Session(self, secret, key, record, holder)
                    session.found = before or record
                    session.stored(record, kept.value, kept.revision, begun)
                    await self._tell(session)
                    return session
                if after is not None and record.turn.since <= after:
                    return None
                if record.is_newer(instance, turn):
                    raise Overtaken
                rival = self._rival(key, record, instance)
                if rival is not None and record.holder not in alive:
                    alive[record.holder] = await self._is_alive(rival, key)
                    continue  # meanwhile it may have changed
                if rival is not None and alive[record.holder]:
                    return record
                before = record
                session = Session(
                    self,
                    secret,
                    key,
                    self._here(record.reached(cursors).taken(instance, mark, turn)),
                    holder,
                    doubt=session is not None and session.doubt,
                )
                session.found = before
                value = encode_record(session.record)
                revision = await session.send(session.record, value, kept.revision)
                if revision is not None:
                    session.stored(session.record, value, revision, begun)
                    await self._tell(session)
                    return session
            raise BrokerUnavailable("the session's record changes faster than it can be taken up")
        except BaseException:
            if session is not None:
                session.abandon(ended=False)
            raise

    def _here(self, record: Record) -> Record:
        return msgspec.structs.replace(record, node=self._others.node)

    async def _tell(self, session: Session) -> None:
        """Tell the node that held it before: it may still take a connection for alive that its client has given up."""
        before = session.found
        if before is not None and before.node != self._others.node:
            await self._others.tell(before.node, session.key)

    def check(self, key: str) -> None:
        """Another node says that it has taken this session up. Whoever holds it here finds out by writing it."""
        held = self._held.get(key)
        if held is not None:
            held.renew()

    async def probe(self, key: str) -> bool:
        """Whether it is held here, and the client is there."""
        held = self._held.get(key)
        return held is not None and await held.probe()

    def _rival(self, key: str, record: Record, instance: str) -> Session | str | None:
        """Return who holds ``record`` for another run of a client's program: a session of this node, or a node."""
        if record.instance == instance:
            return None
        held = self._held.get(key)
        if held is not None and held.record.holder == record.holder:
            return held
        return record.node if record.node not in ("", self._others.node) else None

    async def _is_alive(self, rival: Session | str, key: str) -> bool:
        return await (self._others.probe(rival, key) if isinstance(rival, str) else rival.probe())

    # --- told by sessions

    def lock(self, what: object) -> asyncio.Lock:
        """Return the lock of a session, or of a key; it is there as long as somebody has it."""
        lock = self._locks.get(what)
        if lock is None:
            lock = self._locks[what] = asyncio.Lock()
        return lock

    def holds(self, session: Session) -> None:
        """``session`` was written, and is held."""
        before = self._held.pop(session.key, None)
        self._held[session.key] = session
        if before is not None and before is not session:
            before.displaced()
        if self._sweeper is None and not self._closed:
            self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def released(self, session: Session) -> None:
        """``session`` is not held any more."""
        if self._held.get(session.key) is session:
            del self._held[session.key]

    def gave_up(self, record: Record, kept: Record) -> None:
        """Not all of ``record`` was kept."""
        memberships = len(record.left) - len(kept.left)
        checkpoints = len(record.checkpoints) - len(kept.checkpoints)
        for kind, n in (("membership", memberships), ("checkpoint", checkpoints)):
            if n:
                self.counters.dropped(kind, reason="too_many", policy="newest_kept", n=n)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._held else None
        for session in self._held.values():
            if session.age < RENEW_SECONDS:
                break
            session.renew()
