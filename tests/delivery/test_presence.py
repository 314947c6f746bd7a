"""Who is in a room: the parts of nodes, and a state machine in which steps are lost, late, and nodes die."""

import itertools
from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bellwire import PresenceDiff, PresenceState
from bellwire.delivery.presence import NOTHING, Presence, Shown, Step
from tests.long import runs


def shown(id_: str, user: str | None = None, info: Any = None, since: float = 0.0) -> Shown:
    return Shown(id_, user, info, since)


def pair() -> tuple[Presence, Presence]:
    return Presence("r", "n1", 0, ["n2"]), Presence("r", "n2", 0, ["n1"])


def test_a_user_joins_with_his_first_socket_and_leaves_with_his_last() -> None:
    one, two = pair()
    for number, (presence, id_) in enumerate(((one, "s1"), (two, "s2")), 1):
        step, diff = presence.show(shown(id_, "ada", number), number)
        other = two if presence is one else one
        told = other.take(step)
        assert told == diff
        assert (diff.joined, diff.changed) == (({"ada": [1]}, {}) if number == 1 else ({}, {"ada": [1, 2]}))
    step, diff = one.hide(["s1"], 3)
    assert diff == two.take(step) == PresenceDiff("r", changed={"ada": [2]})
    _, diff = two.hide(["s2"], 3)
    assert diff == PresenceDiff("r", left=["ada"])


def test_guests_are_shown_by_their_sockets() -> None:
    one, _ = pair()
    _, diff = one.show(shown("s1"), 1)
    assert diff.joined == {"s1": [None]}
    assert one.shows("s1")
    assert len(one) == 1
    assert not one.shows_nobody


def test_a_socket_that_went_to_another_node_is_shown_once() -> None:
    one, two = pair()
    step, _ = one.show(shown("s1", "ada", "old", since=1.0), 1)
    two.take(step)
    _, diff = two.show(shown("s1", "ada", "new", since=2.0), 1)
    assert diff == PresenceDiff("r", changed={"ada": ["new"]})
    assert two.lose("n1") == PresenceDiff("r")
    assert two.state.present == {"ada": ["new"]}


def test_a_step_that_follows_on_another_one_is_missed() -> None:
    one, two = pair()
    one.show(shown("s1"), 1)
    step, _ = one.show(shown("s2"), 2)
    assert two.take(step) is None
    whole = two.take(one.whole())
    assert whole is not None
    assert sorted(whole.joined) == ["s1", "s2"]
    assert two.take(step) == PresenceDiff("r")
    assert two.take(one.unchanged()) == PresenceDiff("r")


def test_a_sign_that_something_was_missed() -> None:
    one, two = pair()
    one.show(shown("s1"), 1)
    assert two.take(one.unchanged()) is None
    assert two.version("n1") == NOTHING
    assert two.version("unknown") == NOTHING


def test_nothing_is_taken_of_a_node_that_is_not_there() -> None:
    one, two = pair()
    step, _ = one.show(shown("s1"), 1)
    two.lose("n1")
    assert two.take(step) == PresenceDiff("r")
    assert two.state.present == {}
    two.meet("n1")
    assert two.shown_by == []
    assert two.take(step) == PresenceDiff("r", joined={"s1": [None]})
    assert two.shown_by == ["n1"]


def test_a_room_that_was_opened_again_is_newer_than_what_was_said_before() -> None:
    one, two = pair()
    step, _ = one.show(shown("s1"), 1)
    two.take(step)
    one.hide(["s1"], 2)  # nobody hears it, and the room is given up
    again = Presence("r", "n1", 2, ["n2"])
    assert two.take(again.unchanged()) is None
    assert two.take(again.whole()) == PresenceDiff("r", left=["s1"])
    step, _ = again.show(shown("s3"), 3)
    assert step.prev == NOTHING


NODES = ("n1", "n2", "n3")
WAYS = tuple((sender, receiver) for sender in NODES for receiver in NODES if sender != receiver)
SOCKETS = ("s1", "s2", "s3")
USERS = {"s1": "ada", "s2": "ada", "s3": None}

nodes = st.sampled_from(NODES)
ways = st.sampled_from(WAYS)


class Cluster(RuleBasedStateMachine):
    """Three nodes; each hears what the others say late, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = set(NODES)
        self.counters = dict.fromkeys(NODES, 0)
        self.clock = itertools.count(1)
        self.presences = {node: self.opened(node) for node in NODES}
        self.seen = {node: PresenceState("r") for node in NODES}
        self.ways: dict[tuple[str, str], deque[Step]] = {way: deque() for way in WAYS}

    def opened(self, node: str) -> Presence:
        return Presence("r", node, self.counters[node], self.alive - {node})

    def next_version(self, node: str) -> int:
        self.counters[node] += 1
        return self.counters[node]

    def publish(self, step: Step) -> None:
        for (sender, _), steps in self.ways.items():
            if sender == step.node:
                steps.append(step)

    def tell(self, node: str, diff: PresenceDiff) -> None:
        self.seen[node] = self.seen[node].after(diff)

    def take(self, node: str, step: Step) -> bool:
        """Whether the whole is to be asked for."""
        diff = self.presences[node].take(step)
        if diff is not None:
            self.tell(node, diff)
        return diff is None

    @rule(node=nodes, socket=st.sampled_from(SOCKETS), info=st.integers(0, 2))
    def show(self, node: str, socket: str, info: int) -> None:
        if node in self.alive:
            what = Shown(socket, USERS[socket], info, float(next(self.clock)))
            step, diff = self.presences[node].show(what, self.next_version(node))
            self.tell(node, diff)
            self.publish(step)

    @rule(node=nodes, socket=st.sampled_from(SOCKETS))
    def hide(self, node: str, socket: str) -> None:
        if node in self.alive and self.presences[node].shows(socket):
            step, diff = self.presences[node].hide([socket], self.next_version(node))
            self.tell(node, diff)
            self.publish(step)

    @rule(node=nodes)
    def open_again(self, node: str) -> None:
        if node in self.alive and self.presences[node].shows_nobody:
            self.presences[node] = self.opened(node)
            self.seen[node] = PresenceState("r")
            for other in self.alive - {node}:
                self.ask(other, node)

    def ask(self, sender: str, receiver: str) -> None:
        """The answer comes in no order with what is said beside it."""
        if {sender, receiver} <= self.alive:
            self.ways[sender, receiver].append(self.presences[sender].whole())

    @rule(way=ways, last=st.booleans())
    def arrive(self, way: tuple[str, str], last: bool) -> None:
        steps, (sender, receiver) = self.ways[way], way
        if steps and receiver in self.alive:
            step = steps.pop() if last else steps.popleft()
            if self.take(receiver, step):
                self.ask(sender, receiver)

    @rule(way=ways)
    def lose(self, way: tuple[str, str]) -> None:
        if self.ways[way]:
            self.ways[way].popleft()

    @precondition(lambda self: len(self.alive) > 1)
    @rule(node=nodes)
    def die(self, node: str) -> None:
        if node in self.alive:
            self.alive.discard(node)
            for other in self.alive:
                self.tell(other, self.presences[other].lose(node))

    @rule(way=ways)
    def be_taken_for_dead(self, way: tuple[str, str]) -> None:
        node, other = way
        if {node, other} <= self.alive:
            self.tell(other, self.presences[other].lose(node))
            self.presences[other].meet(node)

    @rule()
    def repair(self) -> None:
        for sender, receiver in WAYS:
            if {sender, receiver} <= self.alive:
                missed = self.take(receiver, self.presences[sender].unchanged())
                if missed or sender in self.presences[receiver].shown_by:
                    self.take(receiver, self.presences[sender].whole())
        states = [self.presences[node].state for node in sorted(self.alive)]
        assert all(state == states[0] for state in states)
        truth = {USERS[id_] or id_ for node in self.alive for id_ in SOCKETS if self.presences[node].shows(id_)}
        assert set(states[0].present) == truth

    @invariant()
    def diffs_lead_to_what_is_seen(self) -> None:
        for node in self.alive:
            assert self.seen[node] == self.presences[node].state

    @invariant()
    def nobody_is_shown_by_the_dead(self) -> None:
        for node in self.alive:
            assert not set(self.presences[node].shown_by) - self.alive

    def teardown(self) -> None:
        self.repair()


TestModel = Cluster.TestCase
TestModel.settings = settings(max_examples=runs(200, 50), stateful_step_count=50, deadline=None)
