"""Any sequence of joins, leaves, resumes, losses and deaths on two nodes, against a model that fits on one page.

What a call returned must be on record once the broker answers again; what it refused must not be; and a holder that
somebody followed changes nothing any more.
"""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bellwire.core.errors import BrokerUnavailable, Disconnected
from bellwire.server.session import Session
from bellwire.server.sessions import Sessions
from bellwire.testing.clock import advance
from tests.long import runs
from tests.server.keeping import LIFETIME, Connection, FatefulBroker, at, create, member, node, resume, stored

STREAMS = ("s1", "s2", "s3")
FATES = ("ok", "kept", "lost", "late", "away")

WHICH = st.integers(0, 9)
STEP = st.one_of(
    st.tuples(st.just("create"), WHICH),
    st.tuples(st.just("join"), WHICH, st.sampled_from(STREAMS)),
    st.tuples(st.just("join"), WHICH, st.sampled_from(STREAMS)),
    st.tuples(st.just("leave"), WHICH, st.sampled_from(STREAMS)),
    st.tuples(st.just("all at once"), WHICH),
    st.tuples(st.just("resume"), WHICH, WHICH),
    st.tuples(st.just("detach"), WHICH),
    st.tuples(st.just("end"), WHICH),
    st.tuples(st.just("kill"), WHICH),
    st.tuples(st.just("fate"), st.sampled_from(FATES)),
    st.tuples(st.just("fate"), st.sampled_from(FATES)),
    st.tuples(st.just("blind")),
    st.tuples(st.just("wait")),
    st.tuples(st.just("heal")),
)


@dataclass
class Line:
    """What the model knows of a session and of all who held it, the newest last."""

    holders: list[Session]
    streams: dict[str, bool | None] = field(default_factory=lambda: dict.fromkeys(STREAMS, False))
    """Whether it is a member; None if that cannot be known."""
    unsettled: set[str] = field(default_factory=set)
    """What may still be otherwise on record than the holder was told; it puts that right if it lives."""
    over: bool | None = False
    followed: bool = False
    """Whether somebody may have taken it up whom nobody knows, because the answer was lost."""

    def succeeded(self) -> None:
        """There is another holder, who goes by what is on record."""
        for stream in self.unsettled:
            self.streams[stream] = None
        self.unsettled.clear()


class World:
    def __init__(self, broker: FatefulBroker) -> None:
        self.broker = broker
        self.nodes = [node(broker), node(broker)]
        self.lines: list[Line] = []
        self.homes: dict[Session, Sessions] = {}
        self.connections: dict[Session, Connection] = {}
        self.changes = 0

    async def act(self, kind: str, *rest: int | str) -> None:
        match kind, rest:
            case "create", (int(which),):
                await self._create(self.nodes[which % 2])
            case "fate", (str(fate),):
                self.broker.fates.append(fate)  # type: ignore[arg-type]
            case "blind", ():
                self.broker.blind = True
            case "wait", ():
                await advance(0.5)
            case "heal", ():
                await self.heal()
            case "kill", (int(which),):
                await self._kill(which % 2)
            case _, (int(which), *others) if self.lines:
                line = self.lines[which % len(self.lines)]
                await self._act_on(line, line.holders[which // 2 % len(line.holders)], kind, others)

    async def _act_on(self, line: Line, session: Session, kind: str, others: list[int | str]) -> None:
        match kind, others:
            case "join" | "leave", [str(stream)]:
                await self._change(line, session, stream, joins=kind == "join")
            case "all at once", []:
                joins = [self._change(line, session, stream, joins=True) for stream in STREAMS]
                await asyncio.gather(*joins)
            case "resume", [int(which)]:
                await self._resume(line, self.nodes[which % 2])
            case "detach", []:
                session.detach()
            case "end", []:
                if session is line.holders[-1] and session._state.value in ("held", "detached"):
                    line.over = None if line.followed else True
                session.end()

    async def _create(self, where: Sessions) -> None:
        connection = Connection()
        try:
            session = await create(where, connection)
        except BrokerUnavailable:
            return
        self.lines.append(Line([session]))
        self._settle_in(session, where, connection)

    async def _resume(self, line: Line, where: Sessions) -> None:
        connection = Connection()
        try:
            session = await resume(where, line.holders[0].secret, connection)
        except BrokerUnavailable:
            line.followed = True
            if line.over:
                line.over = None  # its end may have come too late
            return
        if session is None:
            assert line.over is not False, "it is lost"
            return
        if line.over:
            assert line.holders[-1].unsettled, "it was over, and is there"
            line.over = None  # its end was not written yet, and now never will be
        line.succeeded()
        line.followed = False
        line.holders.append(session)
        self._settle_in(session, where, connection)
        for stream, is_member in line.streams.items():
            assert is_member in (None, stream in session.record.streams)
            line.streams[stream] = stream in session.record.streams
        line.over = False

    def _settle_in(self, session: Session, where: Sessions, connection: Connection) -> None:
        self.homes[session] = where
        self.connections[session] = connection

    async def _change(self, line: Line, session: Session, stream: str, *, joins: bool) -> None:
        self.changes += 1
        is_newest = session is line.holders[-1]
        try:
            if joins:
                await session.join(stream, member(self.changes))
            else:
                await session.leave(stream, at(self.changes))
        except BrokerUnavailable:
            line.unsettled.add(stream)
        except Disconnected:
            if not line.over:
                line.unsettled.add(stream)
        else:
            changed_nothing = session.record.streams.get(stream, None) is not None
            assert is_newest or changed_nothing or not joins, "a holder that was followed changed something"
            if is_newest:
                line.streams[stream] = joins
                line.unsettled.discard(stream)

    async def _kill(self, which: int) -> None:
        """The process dies: nothing it had still to write is written."""
        dead = self.nodes[which]
        self.nodes[which] = node(self.broker)
        await dead.upkeep.close(0)
        if dead._sweeper is not None:
            dead._sweeper.cancel()
        for line in self.lines:
            if self.homes[line.holders[-1]] is dead:
                line.succeeded()
                if line.over:
                    line.over = None
                line.followed = True

    async def heal(self) -> None:
        """The broker answers again: what is on record is what everyone was told."""
        self.broker.fates.clear()
        self.broker.blind = False
        await advance(20)
        for where in self.nodes:
            assert len(where.upkeep) == 0
        for line in self.lines:
            await self._check(line)

    async def _check(self, line: Line) -> None:
        newest = line.holders[-1]
        record = await stored(self.broker, newest)
        if line.over is None:
            return
        assert line.over == (record is None or record.over)
        if record is not None and not line.over:
            if not line.followed:
                assert record == newest.record
                line.unsettled.clear()
            for stream, is_member in line.streams.items():
                if stream not in line.unsettled:
                    assert is_member in (None, stream in record.streams), stream
        for holder in line.holders:
            assert self.connections[holder].times_replaced <= 1
        held = [holder for holder in line.holders if holder.held and self.homes[holder] in self.nodes]
        assert len({self.homes[holder] for holder in held}) == len(held), "two hold it on one node"


@settings(max_examples=runs(300, 20))
@given(st.lists(STEP, max_size=40))
async def test_any_sequence(steps: list[tuple[str, *tuple[int | str, ...]]]) -> None:
    broker = FatefulBroker()
    await broker.start()
    world = World(broker)
    await world.act("create", 0)
    for step in steps:
        if asyncio.get_running_loop().time() < LIFETIME / 2:  # beyond it sessions that nobody holds run out
            await world.act(*step)
    await world.heal()
    for where in world.nodes:
        await where.close(10)
    assert len(asyncio.all_tasks()) == 1
