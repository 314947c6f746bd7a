"""A client, two nodes and brokers that fail over: whatever goes wrong, at most one effect and one outcome for each."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bellwire.delivery.effects import RULES, Effect
from bellwire.delivery.producer import Resolve
from tests.delivery.upstream import World
from tests.long import runs

PER_RUN = 40

effects = st.sampled_from(sorted(RULES))
nodes = st.integers(0, 1)
places = st.sampled_from(["Update 0", "Update 1", "Invoke 0", "Invoke 2", "Append 0", "Pause 0", "End 0"])
"""Where a node's work can be left: before a step, or in the middle of one."""


class Upstream(RuleBasedStateMachine):
    """Each rule is one thing that a scheduler, a network, a power supply or an application can do."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    # --- what is wanted

    @rule(effect=effects, call=st.booleans(), times=st.integers(1, 4))
    def emit(self, effect: Effect, call: bool, times: int) -> None:
        for _ in range(times):
            self.world.emit(effect, call=call)

    @rule(effect=effects)
    def emit_many(self, effect: Effect) -> None:
        for _ in range(40):
            self.world.emit(effect, call=False)

    @rule(node=nodes)
    def connect(self, node: int) -> None:
        self.world.connect(self.world.nodes[node])
        self.world.receive()

    @rule(picks=st.lists(st.integers(0, 5), max_size=60))
    def things_go_on(self, picks: list[int]) -> None:
        for pick in picks:
            working = self.world.working
            if pick < len(working):
                self.world.work(working[pick])
            else:
                self.world.receive()

    @precondition(lambda self: self.world.working)
    @rule(pick=st.integers(0, 5), place=places)
    def one_goes_on_until(self, pick: int, place: str) -> None:
        working = self.world.working
        self.world.work_until(working[pick % len(working)], place)

    @rule(node=nodes, rounds=st.integers(1, 4))
    def the_newest_goes_on(self, node: int, rounds: int) -> None:
        self.world.connect(self.world.nodes[node])
        connection = self.world.connection
        for _ in range(rounds * 60):
            if connection is not None:
                self.world.work(connection)
            self.world.receive()

    @rule(seconds=st.sampled_from([1.0, 31.0, 61.0, 121.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # --- what goes wrong

    @rule(keep=st.integers(0, 40), node=nodes)
    def connection_is_replaced(self, keep: int, node: int) -> None:
        self.world.disconnect(keep)
        self.world.connect(self.world.nodes[node])
        self.world.receive()

    @precondition(lambda self: self.world.payloads)
    @rule(back=st.integers(0, 6))
    def time_out(self, back: int) -> None:
        numbers = sorted(self.world.payloads)
        self.world.time_out(numbers[-1 - back % len(numbers)])

    @rule(effect=effects, call=st.booleans(), fuse=st.integers(0, 3))
    def program_dies(self, effect: Effect, call: bool, fuse: int) -> None:
        self.world.emit(effect, call=call, fuse=fuse)

    @rule(lost=st.integers(0, 200))
    def power_fails(self, lost: int) -> None:
        self.world.power_failure(lost)

    @rule(times=st.integers(1, 3))
    def rate_is_exceeded(self, times: int) -> None:
        self.world.rate_limited = times

    @precondition(lambda self: self.world.working)
    @rule(pick=st.integers(0, 5))
    def answer_of_the_broker_is_lost(self, pick: int) -> None:
        working = self.world.working
        self.world.work(working[pick % len(working)], lost_answer=True)

    @precondition(lambda self: self.world.past)
    @rule(back=st.integers(0, 40))
    def frame_is_doubled(self, back: int) -> None:
        connection, frame = self.world.past[-1 - back % len(self.world.past)]
        if connection.cut and connection in connection.node.connections:
            connection.up.append(frame)

    @rule(node=nodes)
    def node_crashes(self, node: int) -> None:
        self.world.crash(self.world.nodes[node])

    @rule(cells=st.integers(0, 6), lines=st.integers(0, 3), node=st.integers(0, 2))
    def broker_fails_over(self, cells: int, lines: int, node: int) -> None:
        self.world.fail_over(cells, lines)
        for follower in self.world.nodes[node:]:
            follower.broker = self.world.broker

    @rule(node=nodes, steps=st.integers(0, 5))
    def a_node_looks_for_relays_to_complete(self, node: int, steps: int) -> None:
        self.world.sweep(self.world.nodes[node], steps)

    @rule(rare=st.integers(0, 9))
    def rare_things(self, rare: int) -> None:
        match rare:
            case 0:
                self.world.pass_time(700.0)
            case 1:
                self.world.pass_time(90_000.0)
            case 2:
                self.world.compact()

    # --- what must hold

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.heal()
        last = self.world.emit("at_most_once", call=True)
        self.world.heal()
        self.world.check()
        assert [type(outcome) for _, outcome in self.world.outcomes[last]] == [Resolve]


Upstream.TestCase.settings = settings(
    max_examples=runs(50, PER_RUN),
    stateful_step_count=PER_RUN,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    deadline=None,
)
TestUpstream = Upstream.TestCase
