"""The guarantee against everything at once: two nodes, three clients, a broker with all its faults, by Hypothesis.

The model keeps every entry that was ever in the log. Entries name the one before them, so they form a tree; a failover
that loses a tail makes a branch. What a client is handed between two resets must be a path in that tree, without a
hole but for what is not for it: that is order, no gap, no phantom and no doubling in one. When the faults stop, the
path must end at the log's top.

``BELLWIRE_LONG=100000`` runs that many steps instead of some 2,000.
"""

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bellwire.core.errors import OutcomeUnknown
from bellwire.delivery.entry import Entry
from bellwire.delivery.log import Limits
from bellwire.delivery.position import Point
from bellwire.delivery.receiver import Reset
from tests.delivery.cluster import Client, Node, World
from tests.long import runs

STREAM = "room"
STEPS_PER_RUN = 60
RUN = settings(
    max_examples=runs(33, STEPS_PER_RUN),
    stateful_step_count=STEPS_PER_RUN,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Watched(Client):
    """A client that compares all that it is handed with the model."""

    def __init__(self, name: str, tree: dict[Point, Entry]) -> None:
        super().__init__(name)
        self.tree = tree
        self.at = Point(0, 0)
        self.known: set[str] = set()

    def check(self, stream: str, seen: Entry | Reset) -> None:
        if isinstance(seen, Reset):
            self.at = seen.restart.point
            return
        assert seen.mid not in self.known, f"{self} was handed {seen.mid} twice"
        assert self.tree.get(seen.point) == seen, f"{self} was handed a phantom"
        self.walk(seen.prev)
        self.at = seen.point
        self.known.add(seen.mid)

    def walk(self, back: Point) -> None:
        """From where it stands to ``back`` there is a path, and nothing on it for this client."""
        while back != self.at:
            assert back in self.tree, f"{self} stands at {self.at}, which is not before what it was handed"
            entry = self.tree[back]
            assert not self.wants(entry), f"{self} missed {entry.mid}"
            back = entry.prev

    def wants(self, entry: Entry) -> bool:
        return not (entry.is_marker or self.name in entry.excluded or entry.mid in self.known)


class Guarantee(RuleBasedStateMachine):
    sparse = False
    lossy = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Limits(messages=12, age=1e9), sparse=self.sparse)
        self.faults = self.world.faults
        self.tree: dict[Point, Entry] = {}
        self.count = 0
        self.again = 0  # appended once more, in the history beside the others
        self.lost: list[str] = []
        self.destroyed = False
        self.pending: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.nodes = [Node(self.world, page=3, ring=4), Node(self.world, page=5, ring=8)]
        self.clients = [Watched(name, self.tree) for name in "abc"]
        for index, client in enumerate(self.clients):
            client.at = client.join(self.nodes[index % 2], STREAM).point
            self.note()
        for node in self.nodes:
            node.lazy = True
        self.faults.hold_live(STREAM)

    # --- publishers

    def note(self) -> None:
        log = self.world.broker._log(STREAM)
        if len(log):
            self.tree[log.newest.point] = log.newest

    def send(self, mid: str, excluded: str = "") -> None:
        try:
            self.world.append(STREAM, mid, excluded)
        except OutcomeUnknown:
            self.pending.append(mid)
        self.note()

    @rule(excluded=st.sampled_from(["", "", "", "a", "bc"]), count=st.integers(1, 4))
    def publish(self, excluded: str, count: int) -> None:
        for _ in range(count):
            self.count += 1
            self.send(f"m{self.count}", excluded)

    @rule(done=st.booleans())
    def lose_answer(self, done: bool) -> None:
        self.faults.lose_answer(done=done)

    @precondition(lambda self: self.pending)
    @rule()
    def retry(self) -> None:
        self.send(self.pending.pop(0))

    @precondition(lambda self: self.lost)
    @rule()
    def send_what_was_lost_again(self) -> None:
        self.send(self.lost.pop(0))

    @precondition(lambda self: self.count)
    @rule(number=st.integers(1, 10))
    def retry_when_the_id_is_forgotten(self, number: int) -> None:
        self.faults.forget_mids(STREAM)
        self.again += 1
        self.send(f"m{max(1, self.count - number)}")

    # --- live entries on their way to the nodes

    @precondition(lambda self: self.faults.held)
    @rule(index=st.integers(0, 5), twice=st.booleans())
    def pass_on(self, index: int, twice: bool) -> None:
        held = self.faults.held
        index %= len(held)
        listener, stream, gen, entry = held[index] if twice else held.pop(index)
        listener.entry(stream, gen, entry)

    @rule()
    def pass_all_on(self) -> None:
        held, self.faults.held[:] = list(self.faults.held), []
        for listener, stream, gen, entry in held:
            listener.entry(stream, gen, entry)

    @precondition(lambda self: self.faults.held)
    @rule(index=st.integers(0, 5))
    def lose(self, index: int) -> None:
        del self.faults.held[index % len(self.faults.held)]

    # --- the broker

    @rule(count=st.integers(0, 4), same=st.booleans())
    def fail_over(self, count: int, same: bool) -> None:
        gone = self.faults.lose_tail(STREAM, count, same_generation=same)
        self.lost += [entry.mid for entry in gone if not entry.is_marker]
        self.destroyed |= bool(gone)

    @rule(keep=st.integers(0, 5))
    def truncate(self, keep: int) -> None:
        self.faults.truncate(STREAM, keep)
        self.destroyed = True

    @rule(entries=st.integers(0, 3))
    def lag(self, entries: int) -> None:
        self.faults.lag(STREAM, entries)

    @rule()
    def wipe(self) -> None:
        self.faults.wipe(STREAM)
        self.destroyed = True

    # --- the nodes

    @rule(index=st.integers(0, 1))
    def repair(self, index: int) -> None:
        node = self.nodes[index]
        if STREAM in node.feeds:
            node.repair(STREAM)

    @rule(index=st.integers(0, 1))
    def probe(self, index: int) -> None:
        self.nodes[index].probe(STREAM)

    @rule(index=st.integers(0, 1))
    def drive(self, index: int) -> None:
        self.nodes[index].drive()

    @rule(index=st.integers(0, 1))
    def crash(self, index: int) -> None:
        self.nodes[index].crash()

    # --- the clients

    @rule(index=st.integers(0, 2), count=st.integers(1, 5))
    def take(self, index: int, count: int) -> None:
        self.clients[index].take(count)

    @rule(index=st.integers(0, 2))
    def step(self, index: int) -> None:
        client = self.clients[index]
        if client.node is not None and client in client.node.feed(STREAM).resuming:
            client.node.step(STREAM, client)

    @rule(index=st.integers(0, 2), at_once=st.booleans())
    def change_pace(self, index: int, at_once: bool) -> None:
        client = self.clients[index]
        client.at_once = at_once
        while at_once and client.outstanding:
            client.handle()

    @rule(index=st.integers(0, 2), fails=st.booleans())
    def handle(self, index: int, fails: bool) -> None:
        client = self.clients[index]
        if client.outstanding:
            if fails and client.receiver._tracks[STREAM].attempts < 1:
                client.fail()
            else:
                client.handle()

    @rule(index=st.integers(0, 2))
    def slow(self, index: int) -> None:
        client = self.clients[index]
        if client.node is not None and client in client.node.feed(STREAM).audience:
            client.node.feed(STREAM).lag(client)

    @precondition(lambda self: self.lossy)
    @rule(index=st.integers(0, 2), place=st.integers(0, 5), how=st.sampled_from(["lose", "double", "swap"]))
    def spoil_link(self, index: int, place: int, how: str) -> None:
        """No connection does that to a client; it is told of it all the same."""
        link = self.clients[index].link
        if place + 1 < len(link) and link[place][0] == link[place + 1][0] == "entry":
            match how:
                case "lose":
                    del link[place]
                case "double":
                    link.insert(place, link[place])
                case "swap":
                    link[place], link[place + 1] = link[place + 1], link[place]

    @rule(index=st.integers(0, 2))
    def cut(self, index: int) -> None:
        self.clients[index].cut()

    @rule(index=st.integers(0, 2), node=st.integers(0, 1))
    def resume(self, index: int, node: int) -> None:
        if STREAM in self.clients[index].receiver.received():
            self.clients[index].connect(self.nodes[node])

    # --- always

    @invariant()
    def nobody_is_reset_without_a_cause(self) -> None:
        if not self.destroyed and self.count + self.again <= 12:
            for client in getattr(self, "clients", ()):
                assert not any(isinstance(seen, Reset) for seen in client.handed.get(STREAM, ())), client.mids(STREAM)

    def teardown(self) -> None:
        if not hasattr(self, "clients"):
            return
        self.faults.held.clear()
        self.faults.let_go(STREAM)
        self.faults.lag(STREAM, 0)
        for client in self.clients:
            client.at_once = True
            while client.outstanding:
                client.handle()
            if STREAM not in client.receiver.received():  # it was cut before it learned that it had joined
                client.receiver.open(STREAM, self.world.position(STREAM, client.at))
            if client.node is None:
                client.connect(self.nodes[0])
        for _ in range(4):
            if self.lossy:  # nothing but the next entry tells a client that one was lost on its link
                self.publish("", 1)
            for node in self.nodes:
                node.lazy = False
                node.probe(STREAM)
                node.drive()
            for client in self.clients:
                client.take()
        top = self.world.top(STREAM).point
        for client in self.clients:
            assert not client.outstanding
            assert client.node is not None
            assert client in client.node.feed(STREAM).audience, "it is not live again"
            assert client.receiver.received()[STREAM].point == top
            assert self.lossy or not client.asked, "what the nodes sent had a gap"
            client.walk(top)


class SparseGuarantee(Guarantee):
    sparse = True


class LossyGuarantee(Guarantee):
    lossy = True


def test_the_guarantee_holds() -> None:
    run_state_machine_as_test(Guarantee, settings=RUN)


def test_the_guarantee_holds_where_numbers_are_left_out() -> None:
    run_state_machine_as_test(SparseGuarantee, settings=RUN)


def test_the_guarantee_holds_where_frames_are_lost_doubled_and_swapped() -> None:
    run_state_machine_as_test(LossyGuarantee, settings=RUN)
