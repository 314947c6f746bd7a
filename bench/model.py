"""What a cluster would need, reckoned from measured constants: ``python -m bench.model``.

It is arithmetic with the constants that ``bench.growth`` has found, but for what has to wait in a queue: clients that
all come back, and a broadcast beside other work, are simulated (`bench.storm`). What the model leaves out is in
`LEFT_OUT`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from bellwire.delivery.ring import RING_MESSAGES
from bellwire.load.amounts import count
from bench import growth
from bench.growth import FILE
from bench.storm import NEVER, Broadcast, Comeback, broadcast, come_back

PING_SECONDS = 25.0
PROBE_SECONDS = 30.0
HISTORY, HISTORY_SECONDS = 1_000, 600.0
"""What a room's history holds at most: messages, and seconds."""
GUEST, USER, RECOVERING = "guest", "user", "recovering"

LEFT_OUT = (
    "A network card and its interrupts: loopback has neither, and the kernel does its part on the sender's core.",
    "TLS, which a proxy is to end; with it in the server a connection takes 30 kB, and each write is encrypted.",
    "The network's own latency, retransmissions and slow clients: everybody takes what is written at once.",
    "The application: what handlers and the database do has to be added to every event.",
    "Pauses of Python's garbage collector, and cores that are not one's own.",
    "Clients that are not spread evenly: of a random spread no node has much more than its share, of a bad one it has.",
    "Messages of other sizes than the measured 128 bytes, compression, attachments.",
    "The room for what waits: one slow client may hold 1 MiB.",
)


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """The constants. ``_us`` are microseconds of a core, ``broker_..._us`` of the broker's."""

    ack_us: float
    """An event of a client, handled and acknowledged."""
    bus_emit_us: float
    """An emit, on the node that makes it, with the way to the broker."""
    bus_receive_us: float
    """A message from the broker, on each node that has a member."""
    delivery_us: float
    """A write to one client."""
    ping_us: float
    """A ping and its pong."""
    connect_us: float
    """From the TCP connection to the answer to CONNECT, of a guest."""
    refuse_us: float
    """To turn a client away because too many are connecting."""
    guest_come_us: float
    """Of that what is not HTTP and sockets,"""
    user_come_us: float
    """the same of a user, who is counted at the broker,"""
    recovering_come_us: float
    """and of one who can recover."""
    user_come_broker_us: float
    recovering_come_broker_us: float
    guest_come_broker_us: float
    probe_us: float
    probe_broker_us: float
    """To look where a room stands that is still; of those who recover each is looked at twice a minute."""
    broker_emit_us: float
    """A message that the broker takes in,"""
    broker_receive_us: float
    """and tells to each node."""
    broker_together: float
    """What both are of that where messages do not come one by one; the other constants are those of many at once."""
    bus_emit_bytes: float
    bus_receive_bytes: float
    broker_room_bytes: float
    broker_message_bytes: float
    beats_each: float
    """Beats that a node hears in a second of each node, itself among them."""
    process_bytes: float
    connection_bytes: float
    recovering_bytes: float
    place_bytes: float
    room_bytes: float
    stream_bytes: float
    message_bytes: float
    kernel_bytes: float
    """Of a connection on loopback, which has both of its ends; a node has one."""


@dataclass(frozen=True)
class Rooms:
    """Rooms of one kind. ``sizes`` are numbers of members with the share of the rooms that have so many."""

    name: str
    sizes: tuple[tuple[int, float], ...]
    joined: float
    """Rooms of the kind that a connection is in."""
    rate: float
    """Messages in a second to each of them."""
    by_clients: bool = True
    """Whether they come from clients, as events that are acknowledged, or from the application."""

    @property
    def members(self) -> float:
        """The mean number of members."""
        return sum(size * share for size, share in self.sizes)

    def reached(self, nodes: int) -> float:
        """On how many of so many nodes a room has a member, in the mean, if members are anywhere."""
        return sum(share * nodes * (1 - (1 - 1 / nodes) ** size) for size, share in self.sizes)

    def remembered(self, nodes: int, lifetime: float) -> float:
        """How many messages each of these keeps: it begins when its first member comes, and ends with its last."""
        return min(RING_MESSAGES, self.rate * lifetime * self.members / self.reached(nodes))


def zipf(smallest: int, largest: int) -> tuple[tuple[int, float], ...]:
    """Sizes of which each is the rarer the larger it is."""
    weights = [1 / size for size in range(smallest, largest + 1)]
    return tuple((size, weight / sum(weights)) for size, weight in enumerate(weights, smallest))


@dataclass(frozen=True)
class Deployment:
    """A cluster, and what its clients do."""

    name: str
    nodes: int
    connections: int
    rooms: tuple[Rooms, ...]
    client: str = USER
    """What clients are: guests, users who are counted, or those who can recover."""
    lifetime: float = 900.0
    """Seconds for which one stays connected."""
    brokers: int = 1
    """Masters of a Redis Cluster, over which rooms are spread."""


@dataclass(frozen=True)
class Node:
    """What one node has to do, on average. Shares are of a core; rates are in a second."""

    connections: float
    cpu: float
    handled: float
    """Of that the events of clients,"""
    bus: float
    """messages to the broker and from it,"""
    delivered: float
    """writes to clients,"""
    beats: float
    """heartbeats, of clients and nodes, and what is looked after,"""
    coming: float
    """and those who come."""
    told: float
    """Messages from the broker."""
    deliveries: float
    memory: float
    """Bytes of the process,"""
    kernel: float
    """and of the kernel for its sockets."""


@dataclass(frozen=True)
class Between:
    """What the broker has to do, all of its masters together."""

    messages: float
    told: float
    bytes_in: float
    bytes_out: float
    alone: float
    """The share of a core if messages come one by one,"""
    together: float
    """and if they come together, as they do when there are many."""
    beats: float
    """Beats that it tells in a second, nodes times nodes."""
    memory: float


@dataclass(frozen=True)
class Prediction:
    """What the model says."""

    deployment: Deployment
    node: Node
    broker: Between
    everyone: Broadcast
    """A message to everyone,"""
    dead: Comeback
    """the clients of one node that died, on the others,"""
    all_back: Comeback
    """and all clients at once, as after a broker or a balancer was away."""


class _Flow(NamedTuple):
    """What goes through the whole cluster in a second."""

    messages: float
    by_clients: float
    told: float
    deliveries: float
    rooms: float
    served: float
    """Rooms, counted once on each node that serves them."""
    kept: float
    """Messages in all histories at the broker,"""
    remembered: float
    """and on all nodes that serve the rooms for clients who can recover."""


def _flow(deployment: Deployment) -> _Flow:
    flows = []
    for kind in deployment.rooms:
        rooms = deployment.connections * kind.joined / kind.members
        messages, served = rooms * kind.rate, rooms * kind.reached(deployment.nodes)
        flows.append(
            _Flow(
                messages=messages,
                by_clients=messages if kind.by_clients else 0.0,
                told=served * kind.rate,
                deliveries=messages * kind.members,
                rooms=rooms,
                served=served,
                kept=rooms * min(HISTORY, kind.rate * HISTORY_SECONDS),
                remembered=served * kind.remembered(deployment.nodes, deployment.lifetime),
            )
        )
    return _Flow(*(sum(each) for each in zip(*flows, strict=True)))


def _node(deployment: Deployment, costs: Costs, flow: _Flow) -> Node:
    nodes, here = deployment.nodes, deployment.connections / deployment.nodes
    recovers = deployment.client == RECOVERING
    handled = flow.by_clients * costs.ack_us / nodes
    bus = (flow.messages * costs.bus_emit_us + flow.told * costs.bus_receive_us) / nodes
    delivered = flow.deliveries * costs.delivery_us / nodes
    probes = (flow.served / nodes + here) / PROBE_SECONDS * costs.probe_us if recovers else 0.0
    beats = here / PING_SECONDS * costs.ping_us + costs.beats_each * nodes * costs.bus_receive_us + probes
    coming = here / deployment.lifetime * coming_us(deployment, costs)
    each = costs.recovering_bytes if recovers else costs.connection_bytes
    each += costs.place_bytes * sum(kind.joined for kind in deployment.rooms)
    room = costs.room_bytes + (costs.stream_bytes if recovers else 0.0)
    remembered = flow.remembered * costs.message_bytes if recovers else 0.0
    return Node(
        here,
        (handled + bus + delivered + beats + coming) / 1e6,
        *(handled / 1e6, bus / 1e6, delivered / 1e6, beats / 1e6, coming / 1e6),
        flow.told / nodes,
        flow.deliveries / nodes,
        costs.process_bytes + here * each + (flow.served * room + remembered) / nodes,
        here * costs.kernel_bytes / 2,
    )


def coming_us(deployment: Deployment, costs: Costs) -> float:
    """What a client that comes costs its node."""
    come = {GUEST: costs.guest_come_us, USER: costs.user_come_us, RECOVERING: costs.recovering_come_us}
    return costs.connect_us + come[deployment.client] - costs.guest_come_us


def coming_broker_us(deployment: Deployment, costs: Costs) -> float:
    """What it costs the broker."""
    come = {
        GUEST: costs.guest_come_broker_us,
        USER: costs.user_come_broker_us,
        RECOVERING: costs.recovering_come_broker_us,
    }
    return come[deployment.client]


def _between(deployment: Deployment, costs: Costs, flow: _Flow) -> Between:
    nodes, recovers = deployment.nodes, deployment.client == RECOVERING
    beats = nodes * nodes * costs.beats_each
    messages = flow.messages * costs.broker_emit_us + (flow.told + beats) * costs.broker_receive_us
    coming = deployment.connections / deployment.lifetime * coming_broker_us(deployment, costs)
    followed = flow.served + deployment.connections if recovers else 0.0
    rest = coming + followed / PROBE_SECONDS * costs.probe_broker_us
    return Between(
        flow.messages,
        flow.told,
        flow.messages * costs.bus_emit_bytes,
        flow.told * costs.bus_receive_bytes,
        (messages + rest) / 1e6,
        (messages * costs.broker_together + rest) / 1e6,
        beats,
        flow.rooms * costs.broker_room_bytes + flow.kept * costs.broker_message_bytes,
    )


def predict(deployment: Deployment, costs: Costs) -> Prediction:
    """Reckon all of it."""
    flow = _flow(deployment)
    node = _node(deployment, costs, flow)
    between = _between(deployment, costs, flow)
    everyone = broadcast(
        deployment.connections,
        deployment.nodes,
        delivery_us=costs.delivery_us,
        told_us=costs.broker_receive_us,
        busy=node.cpu,
    )
    return Prediction(deployment, node, between, everyone, *_comebacks(deployment, costs, node))


def _comebacks(deployment: Deployment, costs: Costs, node: Node) -> tuple[Comeback, Comeback]:
    """The clients of a dead node on the others, which have their own beside; and all clients on all nodes."""
    others = max(1, deployment.nodes - 1)
    at_broker = coming_broker_us(deployment, costs) / deployment.brokers
    come = partial(come_back, connect_us=coming_us(deployment, costs), refuse_us=costs.refuse_us)
    return (
        come(round(node.connections / others), broker_us=at_broker * others, busy=node.cpu),
        come(round(node.connections), broker_us=at_broker * deployment.nodes),
    )


# --- what is asked of it

CHAT = Rooms("chat, 10 to 50 members", zipf(10, 50), joined=2.0, rate=0.1)
NOTICES = Rooms("notices to one user", ((1, 1.0),), joined=1.0, rate=1 / 60, by_clients=False)


def everyone(connections: int) -> Rooms:
    """The room that all are in."""
    return Rooms("everyone", ((connections, 1.0),), joined=1.0, rate=1 / 60, by_clients=False)


def common(nodes: int, connections: int, client: str = USER) -> Deployment:
    """A cluster whose clients are in two chats each, are sent notices, and once a minute what everyone is sent."""
    name = f"{connections:,} on {nodes}" + ("" if client == USER else f", {client}")
    return Deployment(name, nodes, connections, (CHAT, NOTICES, everyone(connections)), client)


SCENARIOS = (
    common(1, 10_000),
    common(4, 50_000),
    common(10, 100_000),
    common(10, 100_000, RECOVERING),
    common(100, 1_000_000),
    common(100, 1_000_000, RECOVERING),
)


def read(file: Path) -> Costs:
    """Read the constants that ``bench.growth`` has written. Raises `OSError`, `msgspec.MsgspecError`."""
    return msgspec.convert(growth.read(file).constants, Costs)


def rows(found: Sequence[Prediction]) -> list[tuple[str, list[str]]]:
    """Lay them out as a table: what is said, and of each prediction."""

    def row(title: str, said: Callable[[Prediction], str]) -> tuple[str, list[str]]:
        return title, [said(each) for each in found]

    return [
        row("connections of a node", lambda p: f"{p.node.connections:,.0f}"),
        row("deliveries of a node in a second", lambda p: f"{p.node.deliveries:,.0f}"),
        row("a node's core: all", lambda p: f"{p.node.cpu:.1%}"),
        row("events of clients", lambda p: f"{p.node.handled:.1%}"),
        row("messages to and from the broker", lambda p: f"{p.node.bus:.1%}"),
        row("writes to clients", lambda p: f"{p.node.delivered:.1%}"),
        row("heartbeats, nodes' beats, probes", lambda p: f"{p.node.beats:.1%}"),
        row("clients that come", lambda p: f"{p.node.coming:.1%}"),
        row("a node's memory", lambda p: _bytes(p.node.memory)),
        row("its kernel's, for sockets", lambda p: _bytes(p.node.kernel)),
        row("messages to the broker in a second", lambda p: f"{p.broker.messages:,.0f}"),
        row("messages that it tells", lambda p: f"{p.broker.told:,.0f}"),
        row("bytes in and out in a second", lambda p: f"{_bytes(p.broker.bytes_in)}, {_bytes(p.broker.bytes_out)}"),
        row("its core: together, one by one", lambda p: f"{p.broker.together:.0%}, {p.broker.alone:.0%}"),
        row("nodes' beats that it tells in a second", lambda p: f"{p.broker.beats:,.0f}"),
        row("its memory", lambda p: _bytes(p.broker.memory)),
        row("a message is with everyone after", lambda p: f"{p.everyone.seconds:.2f} s"),
        row("a node dies: its clients are back after", lambda p: _seconds(p.dead.seconds)),
        row("a deploy, node after node", lambda p: _seconds(p.dead.seconds * p.deployment.nodes)),
        row("all come back at once: after", lambda p: _seconds(p.all_back.seconds)),
    ]


def _bytes(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"


def _seconds(number: float) -> str:
    return "never" if number == NEVER else f"{number:.1f} s" if number < 60 else f"{number / 60:.1f} min"


def table(found: Sequence[Prediction]) -> str:
    """The table in Markdown."""
    names = [each.deployment.name for each in found]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    return "\n".join([*lines, *(f"| {title} | {' | '.join(said)} |" for title, said in rows(found))])


def main(words: Sequence[str] | None = None) -> None:
    """Parse the arguments, reckon, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--costs", type=Path, default=FILE, metavar="FILE", help="what bench.growth has written")
    parser.add_argument("--nodes", type=count, help="reckon with so many nodes, in place of what is common")
    parser.add_argument("--connections", type=count, help="and so many clients (default: 100000)")
    parser.add_argument("--client", choices=[GUEST, USER, RECOVERING], help="who they are (default: user)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write model.json into it")
    options = parser.parse_args(words)
    if options.nodes is None and (options.connections or options.client):
        parser.error("--connections and --client say who is on so many --nodes: give these as well")
    try:
        costs = read(options.costs)
    except (OSError, msgspec.MsgspecError) as error:
        sys.exit(f"{options.costs} cannot be read: {error}. python -m bench.growth --out docs/figures writes it.")
    asked: Sequence[Deployment] = SCENARIOS
    if options.nodes:
        asked = (common(options.nodes, options.connections or 100_000, options.client or USER),)
    found = [predict(each, costs) for each in asked]
    print(table(found))
    print("\nWhat is left out:", *(f"- {each}" for each in LEFT_OUT), sep="\n")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        said = [{**asdict(each), "deployment": each.deployment.name} for each in found]
        data = {"predictions": said, "left_out": LEFT_OUT}
        (options.out / "model.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
