"""Cases that can be reckoned by hand, what has to hold whatever is asked, and a run that was measured."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from bench.curve import Curve, Found
from bench.growth import summary
from bench.model import GUEST, RECOVERING, USER, Costs, Deployment, Rooms, common, predict, read, table, zipf

from bellwire.load.machine import Machine

COSTS = Costs(
    ack_us=20,
    bus_emit_us=90,
    bus_receive_us=20,
    delivery_us=10,
    ping_us=15,
    connect_us=300,
    refuse_us=200,
    guest_come_us=50,
    user_come_us=150,
    recovering_come_us=350,
    guest_come_broker_us=0,
    user_come_broker_us=60,
    recovering_come_broker_us=160,
    probe_us=40,
    probe_broker_us=40,
    broker_emit_us=70,
    broker_receive_us=7,
    broker_together=0.5,
    bus_emit_bytes=680,
    bus_receive_bytes=330,
    broker_room_bytes=5_000,
    broker_message_bytes=400,
    beats_each=0.4,
    process_bytes=35e6,
    connection_bytes=3_800,
    recovering_bytes=9_800,
    place_bytes=200,
    room_bytes=700,
    stream_bytes=1_500,
    message_bytes=550,
    kernel_bytes=7_000,
)
PAIRS = Rooms("pairs", ((2, 1.0),), joined=1.0, rate=0.5)
NEVER = float("inf")


def cluster(nodes: int, connections: int, *rooms: Rooms, client: str = GUEST, lifetime: float = NEVER) -> Deployment:
    return Deployment("a test", nodes, connections, rooms or (PAIRS,), client, lifetime)


# --- by hand


def test_one_node_with_pairs() -> None:
    found = predict(cluster(1, 1_000), COSTS)
    node, broker = found.node, found.broker
    assert (broker.messages, broker.told, node.deliveries) == (250, 250, 500)  # 500 rooms, a message in two seconds
    assert node.handled == pytest.approx(250 * 20e-6)
    assert node.bus == pytest.approx(250 * (90 + 20) * 1e-6)
    assert node.delivered == pytest.approx(500 * 10e-6)
    assert node.beats == pytest.approx(1_000 / 25 * 15e-6 + 0.4 * 20e-6)
    assert node.coming == 0
    assert node.cpu == pytest.approx(node.handled + node.bus + node.delivered + node.beats)
    assert node.memory == 35e6 + 1_000 * (3_800 + 200) + 500 * 700
    assert node.kernel == 1_000 * 3_500
    assert (broker.bytes_in, broker.bytes_out) == (250 * 680, 250 * 330)
    assert broker.alone == pytest.approx((250 * 70 + 250.4 * 7) * 1e-6)
    assert broker.together == broker.alone / 2


def test_members_of_a_pair_are_on_two_nodes_or_on_the_same() -> None:
    assert PAIRS.reached(1) == 1
    assert PAIRS.reached(2) == 1.5
    assert PAIRS.reached(4) == pytest.approx(1.75)
    assert predict(cluster(4, 1_000), COSTS).broker.told == pytest.approx(250 * 1.75)


def test_a_room_of_everyone_is_on_every_node() -> None:
    everyone = Rooms("everyone", ((100_000, 1.0),), joined=1.0, rate=0.1, by_clients=False)
    found = predict(cluster(10, 100_000, everyone), COSTS)
    assert found.broker.told == pytest.approx(1.0)
    assert found.node.deliveries == pytest.approx(1_000)
    assert found.node.handled == 0, "it is the application that emits"


def test_who_comes_costs_a_node_and_the_broker_what_it_is() -> None:
    by_client = {
        client: predict(cluster(2, 9_000, client=client, lifetime=900), COSTS) for client in (GUEST, USER, RECOVERING)
    }
    assert [found.node.coming for found in by_client.values()] == pytest.approx([5 * 300e-6, 5 * 400e-6, 5 * 600e-6])
    assert by_client[USER].broker.alone - by_client[GUEST].broker.alone == pytest.approx(10 * 60e-6)


def test_sizes_are_the_rarer_the_larger_they_are() -> None:
    sizes = zipf(1, 3)
    assert [share for _, share in sizes] == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert Rooms("x", sizes, 1.0, 1.0).members == pytest.approx(18 / 11)


# --- whatever is asked


@pytest.mark.parametrize("nodes", [1, 2, 7, 40])
def test_nothing_is_lost_between_the_nodes(nodes: int) -> None:
    found = predict(common(nodes, 7_000), COSTS)
    assert nodes * found.node.told == pytest.approx(found.broker.told)
    assert nodes * found.node.deliveries == pytest.approx(predict(common(1, 7_000), COSTS).node.deliveries)
    assert found.broker.messages == pytest.approx(predict(common(1, 7_000), COSTS).broker.messages)
    assert found.everyone.clients == 7_000


def test_more_connections_cost_more_and_more_nodes_spare_each_of_them() -> None:
    by_connections = [predict(common(10, number), COSTS) for number in (10_000, 50_000, 250_000)]
    by_nodes = [predict(common(number, 100_000), COSTS) for number in (5, 10, 20, 40)]
    for figures in ([p.node.cpu for p in by_connections], [p.broker.alone for p in by_connections]):
        assert figures == sorted(figures)
    for figures in ([p.node.cpu for p in by_nodes], [p.node.memory for p in by_nodes]):
        assert figures == sorted(figures, reverse=True)
    assert [p.broker.told for p in by_nodes] == sorted(p.broker.told for p in by_nodes), "rooms are on more nodes"


def test_beats_are_the_square_of_the_nodes() -> None:
    few, many = (predict(common(nodes, 100_000), COSTS).broker.beats for nodes in (10, 100))
    assert many == pytest.approx(100 * few)


def test_recovery_costs_memory_and_looks() -> None:
    plain, recovering = (predict(common(10, 100_000, client), COSTS) for client in (USER, RECOVERING))
    assert recovering.node.memory > plain.node.memory
    assert recovering.broker.alone > plain.broker.alone


def test_a_dead_node_and_all_nodes() -> None:
    found = predict(common(10, 100_000), COSTS)
    assert found.dead.clients == round(10_000 / 9)
    assert found.all_back.clients == 10_000
    assert found.dead.seconds < found.all_back.seconds
    shared = predict(replace(common(10, 100_000), brokers=3), COSTS)
    assert shared.all_back.half < found.all_back.half, "the broker is not what they wait for"
    assert predict(common(1, 1_000), COSTS).dead.clients == 1_000, "it is started anew"


# --- what was measured


def test_the_crowd_of_six_nodes_on_two_cores() -> None:
    """``bench.crowd`` found 89,787 deliveries a second and 3.7 kB each: nodes and clients shared two cores."""
    costs = msgspec.structs.replace(COSTS, delivery_us=10.5, connection_bytes=3_700)
    client_us = 9.0  # measured in such a crowd: who receives parses each message
    cores, connections = 2, 102_000
    everyone = Rooms("everyone", ((connections, 1.0),), joined=0.0, rate=0.0)
    found = predict(cluster(6, connections, everyone), costs)
    shared = found.everyone.seconds * (costs.delivery_us + client_us) / costs.delivery_us * 6 / cores
    assert connections / shared == pytest.approx(89_787, rel=0.2)
    assert (found.node.memory - costs.process_bytes) / found.node.connections == pytest.approx(3_700, rel=0.01)


# --- the command


def test_what_growth_writes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "growth.json"
    more = {**msgspec.structs.asdict(COSTS), "something_else": 1.0}
    curve = Curve.of("an emit", "members", "us", 1, (1, 10), (2, 20))
    file.write_text(summary(Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1), Found([curve], more)))
    assert read(file) == COSTS
    assert json.loads(file.read_text())["curves"][0]["steep"] is False


def test_the_table_has_a_column_for_each() -> None:
    said = table([predict(common(4, 50_000), COSTS), predict(common(1, 1_000), COSTS)]).splitlines()
    assert said[0] == "| | 50,000 on 4 | 1,000 on 1 |"
    assert said[2] == "| connections of a node | 12,500 | 1,000 |"
    assert len({line.count("|") for line in said}) == 1
