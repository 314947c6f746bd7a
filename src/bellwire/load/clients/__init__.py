"""What a client of each kind says and understands, for one namespace.

::

    stock        Socket.IO 5 over Engine.IO 4: what every Socket.IO server speaks
    recovering   the same, on a server with connection state recovery: an offset follows on every event
    v1           bellwire.v1.msgpack, with a session: every event of a stream names the one before it
    raw          WebSocket messages that are the payload and nothing else
"""

from bellwire.load.clients.base import Client
from bellwire.load.clients.raw import Raw
from bellwire.load.clients.socketio import Recovering, Stock
from bellwire.load.clients.v1 import V1

__all__ = ["CLIENTS"]

CLIENTS: dict[str, type[Client]] = {"stock": Stock, "recovering": Recovering, "v1": V1, "raw": Raw}
