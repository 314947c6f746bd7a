"""What is measured, of whom: the arguments of the load generator.

The quick selection takes ten minutes at most, with five rounds. A server does all works of a selection that it takes
part in, one after the other in this order, as clients that leave disturb what comes after them; ``alone`` has a server
of its own, because memory that was used before would be used again.
"""

from typing import NamedTuple

from bench.contestants import (
    BUN,
    GUARDED,
    NCHAN,
    OVER_NATS,
    OVER_VALKEY,
    PLAIN,
    PYTHON_OVER_VALKEY,
    PYTHON_SOCKETIO,
    SOCKET_IO,
    TWO_WORKERS,
    TWO_WORKERS_GUARDED,
    V1,
    WS,
)

OURS = (PLAIN, GUARDED, V1)
REPLYING = (*OURS, SOCKET_IO, PYTHON_SOCKETIO)
EVERYONE = (*OURS, BUN, SOCKET_IO, WS, PYTHON_SOCKETIO, NCHAN)
FAST = (*OURS, BUN, NCHAN)
BROKERS = (OVER_VALKEY, OVER_NATS, PYTHON_OVER_VALKEY)
WORKERS = (TWO_WORKERS, TWO_WORKERS_GUARDED)


class Work(NamedTuple):
    """A measurement, or several on the same connections."""

    load: str
    who: tuple[str, ...]
    alone: bool = False

    @property
    def kind(self) -> str:
        """What the load generator calls it."""
        return self.load.partition(" ")[0]


_CROWD = "fanout --connections 1000 --size 128 --windows 1,32"
_KINDS = tuple(Work(f"roundtrips --connections 100 --kind {kind}", (V1,)) for kind in ("numbered", "relay"))

QUICK = (
    Work("roundtrips --connections 1", (PLAIN, SOCKET_IO, PYTHON_SOCKETIO)),
    Work("roundtrips --connections 100", REPLYING),
    *_KINDS,
    Work("connecting --connections 500", REPLYING),
    Work(_CROWD, (*EVERYONE, TWO_WORKERS, OVER_VALKEY, OVER_NATS)),
    Work("idle --connections 2000 --seconds 1", (*REPLYING, BUN), alone=True),
)
"""What the README shows."""

FULL = (
    Work("roundtrips --connections 1", REPLYING),
    Work("roundtrips --connections 100", REPLYING),
    Work("roundtrips --connections 1000", REPLYING),
    *_KINDS,
    Work("connecting --connections 500", (*EVERYONE, *WORKERS)),
    Work("rooms --connections 1000 --rooms 100", EVERYONE),
    Work("fanout --connections 1000 --size 16 --windows 1,32", EVERYONE),
    Work(_CROWD, (*EVERYONE, *WORKERS, *BROKERS)),
    Work("fanout --connections 1000 --size 4096 --windows 1,32", EVERYONE),
    Work("fanout --connections 1000 --size 128 --windows 1,32 --binary", (*OURS, SOCKET_IO, BUN, WS, PYTHON_SOCKETIO)),
    Work("fanout --connections 1000 --size 4096 --windows 1,32 --deflate", (*OURS, SOCKET_IO, BUN, WS)),
    Work("fanout --connections 10000 --size 16 --windows 1,32", FAST),
    Work("fanout --connections 10000 --size 128 --windows 1,32", (*FAST, SOCKET_IO, WS)),
    Work("fanout --connections 10000 --size 128 --windows 1", (PYTHON_SOCKETIO,)),
    Work("fanout --connections 10000 --size 4096 --windows 1,32", FAST),
    Work("idle --connections 10000 --seconds 25", (*EVERYONE, *WORKERS), alone=True),
    Work("idle --connections 10000 --seconds 25 --client polling", (PLAIN, SOCKET_IO, PYTHON_SOCKETIO), alone=True),
)
"""Everything; 25 seconds are one period of all heartbeats. Node takes minutes for 4 kB to 10,000, and python-socketio
for 32 messages in flight to them."""
