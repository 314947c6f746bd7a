"""What a server is made of while it runs: everything that belongs to one event loop."""

import asyncio
import logging
from typing import TYPE_CHECKING

from bellwire.brokers.base import Broker
from bellwire.core.clock import Wheel
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.sparing import Sparing
from bellwire.delivery.answer import PAGE_BYTES
from bellwire.ops.readiness import Readiness
from bellwire.protocol.wire import encode_args
from bellwire.server.cluster import Cluster
from bellwire.server.dispatch import Dispatcher
from bellwire.server.fanout import Fanout
from bellwire.server.forwarding import Forwarding
from bellwire.server.heartbeat import Heartbeat
from bellwire.server.held import Nowhere
from bellwire.server.leftovers import Leftovers
from bellwire.server.meter import Limits
from bellwire.server.numbers import TOO_LARGE
from bellwire.server.operations import Operations
from bellwire.server.outflow import Outflow
from bellwire.server.places import Places
from bellwire.server.presence import Presences
from bellwire.server.prober import Prober
from bellwire.server.producers import Producers
from bellwire.server.quotas import Quotas
from bellwire.server.recovery import Checkpoints
from bellwire.server.revocations import Revocations
from bellwire.server.sessions import Sessions
from bellwire.server.streams import Streams
from bellwire.server.succession import Succession
from bellwire.server.takeover import Takeover
from bellwire.transports.engine import Engine

if TYPE_CHECKING:
    from bellwire.server.server import Server

NOT_RUNNING = (
    "it starts with its lifespan, or at its first Socket.IO request. With Server(http=app), serve the server and not "
    "app; if it is mounted in another application, give that one lifespan=server.lifespan"
)
"""When a server starts, for the errors of those who need it before."""

logger = logging.getLogger("bellwire.server")

RESOLUTION = 0.25
"""Seconds by which a deadline may be late; deadlines are whole seconds, and the wheel turns less often so."""


class Runtime:
    """One start of a server: its settings as merged, and the machinery that every namespace shares."""

    __slots__ = (
        "broker",
        "checkpoints",
        "cluster",
        "config",
        "counters",
        "dispatcher",
        "engine",
        "fanout",
        "heartbeat",
        "leftovers",
        "limits",
        "loop",
        "nowhere",
        "operations",
        "outflow",
        "places",
        "presences",
        "prober",
        "producers",
        "quotas",
        "readiness",
        "revocations",
        "sessions",
        "streams",
        "unconnected",
        "wheel",
    )

    def __init__(self, application: "Server", config: Config, counters: Counters, broker: Broker) -> None:
        loop = asyncio.get_running_loop()
        self.loop = loop
        self.config = config
        self.counters = counters
        self.wheel = Wheel(loop, min(RESOLUTION, config.pong_timeout / 4))
        self.dispatcher = Dispatcher(loop)
        self.cluster = Cluster(broker, self.wheel, self.dispatcher, counters)
        self.engine = Engine(application, config, counters, loop, self.wheel, self.cluster.node)
        self.engine.forwarder = Forwarding(self.engine, self.cluster, self.dispatcher)
        self.fanout = Fanout(self.engine.tick, counters, config)
        self.heartbeat = Heartbeat(config, loop)
        self.quotas = Quotas(config, counters, loop.time, self.cluster, self.wheel, self.dispatcher)
        self.limits = Limits(config, counters, loop.time, self.quotas if self.quotas.limits else None)
        outflow = Outflow(config, counters, loop.time)
        self.outflow = outflow if outflow.limits else None
        """What looks at the emits of clients' handlers; None if nothing is limited."""
        self.checkpoints = Checkpoints(self.wheel)
        self.broker = broker
        self.readiness = Readiness(broker)
        page_bytes = min(PAGE_BYTES, config.send_buffer_bytes // 4)  # beside what waits already, and what frames add
        self.streams = Streams(broker, self.fanout, counters, page_bytes=page_bytes)
        self.cluster.direct = self.streams.direct
        self.operations = Operations(self.cluster, application.find)
        self.revocations = Revocations(broker, config)
        self.places = Places(broker, self.cluster, self.wheel, config, counters)
        self.presences = Presences(broker, self.cluster, self.fanout, self.dispatcher, self.wheel, counters)
        self.prober = Prober(self.streams, self.wheel, self.dispatcher)
        too_large = encode_args((TOO_LARGE.as_reply(),), msgpack=True)
        self.producers = Producers(broker, self.streams.publisher.attempt, self.wheel, too_large=bytes(too_large))
        Succession(self.cluster, self.producers, self.dispatcher)
        takeover = Takeover(self.cluster)
        self.sessions = Sessions(broker, config.session_lifetime, counters, takeover)
        takeover.serve(self.sessions)
        self.leftovers = Leftovers(broker, self.wheel, counters, config.session_lifetime)
        self.unconnected = Sparing(logger, loop.time)
        """Tells of clients that could not be connected because something is away: all of them, then."""
        self.nowhere = Nowhere(counters)
        """The sink of sockets that are gone."""

    async def start(self) -> None:
        """Be one of the nodes, and do what one that died has left undone. Raises BrokerUnavailable."""
        await self.cluster.start()
        await self.producers.recover()

    async def close(self) -> None:
        """End all sessions, then the handlers that still wait after ``Config.shutdown_grace``."""
        self.prober.close()
        self.quotas.close()
        await self.engine.close()
        await self.presences.close(self.config.shutdown_grace)
        await self.dispatcher.close(self.config.shutdown_grace)
        self.producers.close()
        await self.sessions.close(self.config.shutdown_grace)
        await self.leftovers.close()
        await self.places.close(self.config.shutdown_grace)
        await self.cluster.close(self.config.shutdown_grace)
        await self.readiness.close()
        self.heartbeat.close()
