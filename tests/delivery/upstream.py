"""A small world for the upstream half: one client with a file, nodes, connections, brokers that fail over.

Nothing happens by itself. Each method is one step that a scheduler of the test chooses, so a crash, a cut or a long
pause can come between any two of them. What happened is noted beside it, for the test to judge.
"""

import itertools
from typing import NamedTuple, cast

from bellwire.delivery.effects import DEDUPE_SECONDS, Effect, Emission, Key, payload_digest, producer_key
from bellwire.delivery.entry import Copy
from bellwire.delivery.handling import Append, Completion, Course, End, Handling, Invoke, Pause, Skipping, Step, Update
from bellwire.delivery.inbox import (
    LEASE_SECONDS,
    Answer,
    Arrival,
    Complete,
    Connected,
    Nack,
    Refuse,
    Skipped,
    Verdict,
    View,
    connect,
    decode_record,
    encode_record,
    lifetime,
    unfinished,
)
from bellwire.delivery.outbox import (
    Pruned,
    State,
    begin,
    compact,
    replay,
)
from bellwire.delivery.outbox import (
    encode_record as encode_frame,
)
from bellwire.delivery.producer import Action, Fail, Producer, Prune, Resolve, RetryAt, Send, Skip, Store

PRODUCER = "0123456789abcdef" * 2
KEY = producer_key("user", PRODUCER)


class Cell(NamedTuple):
    """A stored record: its bytes, what compare-and-set compares, and when it expires."""

    value: bytes
    revision: int
    expires: float


class Line(NamedTuple):
    """An entry of a stream."""

    mid: str
    body: bytes
    at: float
    copies: tuple[Copy, ...]


class History:
    """What one broker holds: records, streams, and the generation under which it answers."""

    def __init__(self, generation: str, cells: list[Cell], lines: dict[str, list[Line]]) -> None:
        self.generation = generation
        self.cells = cells
        self.lines = lines

    def read(self, now: float) -> Cell | None:
        cell = self.cells[-1] if self.cells else None
        return cell if cell is not None and now < cell.expires else None

    def put(self, value: bytes, expected: int, now: float, ttl: float) -> bool:
        cell = self.read(now)
        if (cell.revision if cell else 0) != expected:
            return False
        self.cells.append(Cell(value, (self.cells[-1].revision if self.cells else 0) + 1, now + ttl))
        return True

    def append(self, step: Append, now: float) -> Copy | None:
        """Append before the deadline, an id once in its window; None: too late."""
        if now >= step.deadline:
            return None
        lines = self.lines.setdefault(step.stream, [])
        for seq, line in enumerate(lines, 1):
            if line.mid == step.mid and now < line.at + DEDUPE_SECONDS:
                return Copy(step.stream, self.generation, seq)
        lines.append(Line(step.mid, step.body, now, step.copies))
        return Copy(step.stream, self.generation, len(lines))

    def failed_over(self, generation: str, cells: int, lines: int) -> "History":
        """Return what a replica has of it that lacks the newest ``cells`` writes and ``lines`` of each stream."""
        return History(
            generation,
            self.cells[: len(self.cells) - cells],
            {stream: kept[: len(kept) - lines] for stream, kept in self.lines.items()},
        )


class Connection:
    """Frames up, answers down, and what its node is doing about the first of them."""

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.cut = False
        self.up: list[Send | Skip] = []
        self.down: list[object] = []
        self.course: Course | None = None
        self.step: Step | None = None
        self.frame: Send | Skip | None = None
        self.lease = ""
        self.generation = ""
        self.read: tuple[Cell | None, History, Verdict, bytes | None, float] | None = None
        self.ran: tuple[bytes, tuple[Emission, ...]] | None = None


class Node:
    """A server: where it looks for its broker, and what runs on it."""

    def __init__(self, name: str, broker: History) -> None:
        self.name = name
        self.broker = broker
        self.connections: list[Connection] = []


class Ran(NamedTuple):
    """A handler that had its effect."""

    number: int
    payload: bytes
    order: int


class Claimed(NamedTuple):
    """A handler that runs under a lease."""

    connection: Connection
    generation: str
    number: int
    until: float


class World:
    """Everything, and the notes of what happened."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.counter = itertools.count(1)
        self.broker = History("g0", [], {})
        self.brokers = [self.broker]
        self.nodes = [Node("a", self.broker), Node("b", self.broker)]
        self.rate_limited = 0
        self.past: list[tuple[Connection, Send | Skip]] = []
        # the client
        self.file = begin(PRODUCER)
        self.synced = len(self.file)
        self.connection: Connection | None = None
        self.skew = 5e8  # its clock is years off
        self.retry_at: float | None = None
        self.life = 0
        self.lossless = True  # as long as nothing that was stored was lost, anywhere
        self.payloads: dict[int, bytes] = {}
        self.numbers: dict[bytes, int] = {}
        self.producer = Producer(self._state())
        # the notes
        self.ran: list[Ran] = []
        self.claimed: list[Claimed] = []
        self.database: dict[Key, bytes] = {}
        self.replies: dict[tuple[bytes, str], set[bytes]] = {}
        self.outcomes: dict[bytes, list[tuple[int, Resolve | Fail]]] = {}

    # --- the client

    def _state(self) -> State:
        state, good = replay(self.file)
        assert state is not None
        self.file = self.file[:good]
        return state

    def emit(self, effect: Effect, *, call: bool, fuse: int | None = None) -> bytes:
        payload = f"{effect}:{next(self.counter)}".encode()
        number, actions = self.producer.emit(payload, call=call)
        self.payloads[number] = payload
        self.numbers[payload] = number
        self.do(actions, fuse)
        return payload

    def do(self, actions: list[Action], fuse: int | None = None) -> None:
        """Do what the producer wants; with a ``fuse`` the program dies after so many actions, in the next one."""
        for done, action in enumerate(actions):
            if fuse is not None and done >= fuse:
                if isinstance(action, Store):
                    frame = encode_frame(action.record)
                    self.file += frame[: len(frame) // 2]
                self.restart()
                return
            match action:
                case Store(record):
                    self.file += encode_frame(record)
                case Prune(upto):
                    self.file += encode_frame(Pruned(upto))
                case Send() | Skip():
                    self.synced = len(self.file)
                    assert self.connection is not None
                    if not self.connection.cut:
                        self.connection.up.append(action)
                case Resolve(number, _) | Fail(number, _):
                    self.synced = len(self.file)
                    self.outcomes.setdefault(self.payloads[number], []).append((self.life, action))
                case RetryAt(time):
                    self.retry_at = time
        if fuse is not None:
            self.restart()

    def restart(self) -> None:
        """The program ends and begins again with its file."""
        self.disconnect(keep=10**6)
        self.life += 1
        self.retry_at = None
        state = self._state()
        self.producer = Producer(state)
        self.do(self.producer.start())

    def power_failure(self, lost: int) -> None:
        """The same; of what was written since the last sync, the end is lost."""
        self.lossless = False
        keep = max(self.synced, len(self.file) - lost)
        self.file = self.file[:keep]
        self.restart()

    def compact(self) -> None:
        self.file = compact(self._state())
        self.synced = len(self.file)

    def time_out(self, number: int) -> None:
        self.do(self.producer.call_timed_out(number))

    def disconnect(self, keep: int) -> None:
        """Cut the connection; ``keep`` frames that were written may still be read by the node, whenever."""
        if self.connection is not None:
            self.connection.cut = True
            del self.connection.up[keep:]
            self.connection = None
            self.do(self.producer.disconnected())

    def connect(self, node: Node) -> None:
        if self.connection is not None:
            return
        connection = self.connection = Connection(node)
        node.connections.append(connection)
        broker = node.broker
        cell = broker.read(self.now)
        view = View(broker.generation, self.now, f"birth-{next(self.counter)}")
        connected, record = connect(decode_record(cell.value) if cell else None, view)
        assert broker.put(encode_record(record), cell.revision if cell else 0, self.now, lifetime(record))
        connection.down.append(connected)

    def receive(self) -> None:
        """The client reads one answer."""
        connection = self.connection
        if connection is None or not connection.down:
            return
        actions: list[Action]
        match connection.down.pop(0):
            case (Send(number), Answer(reply)):
                actions = self.producer.replied(number, reply)
            case (Send(number), Refuse(code)):
                actions = self.producer.refused(number, code)
            case (Skip(first), Skipped()):
                actions = self.producer.skipped(first)
            case (Send(number) | Skip(number), Nack(expect, generation, retry_after)):
                actions = self.producer.nack(
                    number,
                    expect,
                    self.now + self.skew,
                    retry_after=retry_after,
                    generation=generation or None,
                )
            case Connected(generation, last):
                actions = self.producer.connected(generation, last)
            case other:
                raise AssertionError(other)
        self.do(actions)

    def tick(self) -> None:
        if self.retry_at is not None and self.now + self.skew >= self.retry_at:
            self.retry_at = None
            self.do(self.producer.tick(self.now + self.skew))

    # --- the nodes

    def crash(self, node: Node) -> None:
        for connection in node.connections:
            connection.cut = True
            connection.course = None
            self._released(connection)
        node.connections.clear()
        if self.connection is not None and self.connection.node is node:
            self.disconnect(keep=0)

    def _released(self, connection: Connection) -> None:
        self.claimed = [claim for claim in self.claimed if claim.connection is not connection]

    def work(self, connection: Connection, *, lost_answer: bool = False) -> bool:
        """Do the next step of what goes on for a connection; False if there is none."""
        if connection.course is None:
            return self._take(connection)
        match connection.step:
            case Update():
                self._update(connection, connection.step, lost_answer)
            case Invoke():
                self._invoke(connection, connection.step)
            case Append():
                self._append(connection, connection.step, connection.course, lost_answer)
            case Pause(until):
                if self.now < until:
                    return False
                connection.step = connection.course.resumed()
            case End(verdict):
                connection.course = None
                assert connection.frame is not None
                self._answer(connection, connection.frame, verdict)
            case other:
                raise AssertionError(other)
        return True

    def sweep(self, node: Node, steps: int) -> None:
        """A node looks for a relay that is not done, and dies, or not, after some steps of completing it."""
        broker = node.broker
        cell = broker.read(self.now)
        if cell is None:
            return
        view = View(broker.generation, self.now, "sweeper")
        found, changed = unfinished(decode_record(cell.value), view)
        if isinstance(found, Complete):
            completion = Completion(KEY, found.number, found.relay)
            step = completion.step()
            for _ in range(steps):
                if not isinstance(step, Append):
                    _, changed = step.decide(decode_record(cell.value), view)
                    break
                step = completion.appended(broker.append(step, self.now))
        if changed is not None:
            broker.put(encode_record(changed), cell.revision, self.now, lifetime(changed))

    def _take(self, connection: Connection) -> bool:
        if not connection.up:
            return False
        frame = connection.frame = connection.up.pop(0)
        connection.lease = f"lease-{next(self.counter)}"
        connection.read = connection.ran = None
        if isinstance(frame, Skip):
            connection.course = Skipping(KEY, frame.first, frame.upto)
        elif self.rate_limited:
            self.rate_limited -= 1
            self._answer(connection, frame, Nack(frame.number, "", 1.0))
            return True
        else:
            effect = cast("Effect", frame.payload.decode().split(":")[0])
            digest = payload_digest(frame.payload)
            arrival = Arrival(frame.number, digest, effect, frame.generation, frame.resent)
            connection.course = Handling(KEY, arrival)
        connection.step = connection.course.begin()
        return True

    def _answer(self, connection: Connection, frame: Send | Skip, verdict: object) -> None:
        if not isinstance(verdict, Nack):
            self.past.append((connection, frame))
        if isinstance(verdict, Answer) and isinstance(frame, Send):
            generation = connection.generation if frame.payload.startswith(b"at_least_once") else ""
            self.replies.setdefault((frame.payload, generation), set()).add(verdict.reply)
        connection.down.append((frame, verdict))

    def _append(self, connection: Connection, step: Append, course: Course, lost_answer: bool) -> None:
        broker = connection.node.broker
        if broker.generation != connection.generation:
            connection.step = course.moved()
            return
        copy = broker.append(step, self.now)
        if not lost_answer:
            connection.step = course.too_late() if copy is None else course.appended(copy)

    def _update(self, connection: Connection, step: Update, lost_answer: bool) -> None:
        """First read and decide, then, as a step of its own, write."""
        assert connection.course is not None
        node = connection.node
        if connection.read is None:
            cell = node.broker.read(self.now)
            record = decode_record(cell.value) if cell else None
            verdict, changed = step.decide(record, View(node.broker.generation, self.now, connection.lease))
            value = None if changed is None else encode_record(changed)
            connection.read = (cell, node.broker, verdict, value, self.now)
            return
        cell, broker, verdict, value, read_at = connection.read
        connection.read = None
        if value is not None:
            if node.broker is not broker:
                return
            ttl = lifetime(decode_record(value))
            if not broker.put(value, cell.revision if cell else 0, self.now, ttl) or lost_answer:
                return
            if self.now > read_at + LEASE_SECONDS / 3:
                return
        connection.generation = broker.generation
        connection.step = connection.course.decided(verdict)
        frame = connection.frame
        if isinstance(connection.step, Invoke) and isinstance(frame, Send) and frame.payload[:5] != b"relay":
            until = read_at + LEASE_SECONDS
            self.claimed.append(Claimed(connection, broker.generation, frame.number, until))

    def _invoke(self, connection: Connection, step: Invoke) -> None:
        """First the effect, then, as a step of its own, its return."""
        assert isinstance(connection.course, Handling)
        assert isinstance(connection.frame, Send)
        if connection.ran is None:
            connection.ran = self._run(connection, connection.frame, step)
            return
        reply, emissions = connection.ran
        connection.ran = None
        self._released(connection)
        connection.step = connection.course.returned(reply, emissions)

    def _run(self, connection: Connection, frame: Send, step: Invoke) -> tuple[bytes, tuple[Emission, ...]]:
        self._alone(connection)
        reply = b"reply to %s, run %d" % (frame.payload, next(self.counter))
        if frame.payload.startswith(b"relay"):
            both = Emission(("room", "hall"), frame.payload)
            return reply, (both, Emission(("room",), frame.payload + b"/2"))
        if step.key is not None:
            if step.key in self.database:
                return self.database[step.key], ()
            self.database[step.key] = reply
        self.ran.append(Ran(frame.number, frame.payload, next(self.counter)))
        return reply, ()

    def _alone(self, connection: Connection) -> None:
        """Whose lease runs is the only one of this producer that runs a handler."""
        for claim in self.claimed:
            for other in self.claimed:
                both = claim.connection is connection and other is not claim
                if both and claim.generation == other.generation and self.now < min(claim.until, other.until):
                    raise AssertionError(f"two handlers at a time: {claim.number}, {other.number}")

    # --- the brokers

    def fail_over(self, cells: int, lines: int) -> None:
        self.lossless = False
        self.broker = self.broker.failed_over(f"g{next(self.counter)}", cells, lines)
        self.brokers.append(self.broker)

    def work_until(self, connection: Connection, kind: str) -> None:
        """Let a connection go on until it is about to do a step of a kind, or between the two halves of one."""
        for _ in range(200):
            halves = (connection.read is not None) + 2 * (connection.ran is not None)
            if f"{type(connection.step).__name__} {halves}" == kind and connection.course is not None:
                return
            if not self.work(connection):
                return

    @property
    def working(self) -> list[Connection]:
        return [each for node in self.nodes for each in node.connections if each.course is not None or each.up]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        cell = self.broker.cells[-1] if self.broker.cells else None
        if cell is not None and self.now >= cell.expires:
            self.lossless = False
        self.tick()

    # --- the judgement

    def check(self) -> None:
        self._check_effects()
        self._check_streams()
        for (payload, _), replies in self.replies.items():
            assert len(replies) == 1, f"{payload!r} was answered with {replies}"
        self._check_outcomes()

    def _check_effects(self) -> None:
        seen: dict[bytes, int] = {}
        for ran in self.ran:
            seen[ran.payload] = seen.get(ran.payload, 0) + 1
        for payload, times in seen.items():
            assert times == 1 or payload.startswith(b"at_least_once"), f"{payload!r} ran {times} times"

    def _check_streams(self) -> None:
        for broker in self.brokers:
            for lines in broker.lines.values():
                bodies = [line.body for line in lines]
                assert len(set(bodies)) == len(bodies), f"doubled: {bodies}"
                order = [(self.numbers[body.removesuffix(b"/2")], body.endswith(b"/2")) for body in bodies]
                assert order == sorted(order), f"out of order: {order}"

    def _check_outcomes(self) -> None:
        first_run = {ran.payload: ran.order for ran in reversed(self.ran)}
        emitted = {line.body for broker in self.brokers for lines in broker.lines.values() for line in lines}
        replied: list[tuple[int, int]] = []
        for payload, outcomes in self.outcomes.items():
            lives = [life for life, _ in outcomes]
            assert len(set(lives)) == len(lives), f"two outcomes for {payload!r}: {outcomes}"
            effect = payload in first_run or payload in emitted
            for _, outcome in outcomes:
                if self.lossless and isinstance(outcome, Fail):
                    assert outcome.code in ("withdrawn", "outcome_unknown"), f"{payload!r}: {outcome}"
                if isinstance(outcome, Resolve):
                    assert effect, f"{payload!r} was replied to and had no effect"
                elif outcome.code in ("withdrawn", "idempotency_mismatch"):
                    assert not effect, f"{payload!r} had an effect: {outcome}"
            if payload in first_run and any(isinstance(outcome, Resolve) for _, outcome in outcomes):
                replied.append((self.numbers[payload], first_run[payload]))
        orders = [order for _, order in sorted(replied)]
        assert orders == sorted(orders), f"effects out of order: {sorted(replied)}"

    # --- the end

    def heal(self) -> None:
        """Stop all faults and let everything that is under way come to its end."""
        self.rate_limited = 0
        for node in self.nodes:
            node.broker = self.broker
        for _ in range(400):
            if self.connection is not None and self.connection.cut:
                self.disconnect(keep=0)
            self.connect(self.nodes[0])
            for _ in range(2_000):
                progress = [self.work(connection) for connection in self.working]
                if not any(progress):
                    break
            while self.connection is not None and self.connection.down:
                self.receive()
            if not self.producer.pending and not self.working:
                return
            self.pass_time(10.0)
        raise AssertionError(f"it does not come to an end: {self.producer.pending} are pending")
