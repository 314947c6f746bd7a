"""A stock Socket.IO client as far as recovery goes: two strings are all that it keeps between its connections."""

from typing import Any, cast

from typing_extensions import override

from bellwire.guard.auth import Identity
from bellwire.protocol.socketio import CONNECT, EVENT, Packet, decode_json, encode_connect
from bellwire.server.connection import Connection as ServerConnection
from bellwire.testing import TestClient
from bellwire.transports.base import Request
from tests.guarantee.client import NAMESPACE
from tests.guarantee.world import Node


class _Connection(TestClient):
    __test__ = False

    def __init__(self, node: Node, client: "Stock") -> None:
        super().__init__(node.server, NAMESPACE)
        self._client = client

    @override
    def _packet(self, packet: Packet, objects: list[Any] | None) -> None:
        if self._client.deaf or not self.carrier.open:
            return
        if packet.type == EVENT:
            self._client.take(decode_json(packet.payload))
        elif packet.type == CONNECT:
            answer = decode_json(packet.payload)
            self._client.welcomed(answer["sid"], answer["pid"])
        super()._packet(packet, objects)


class Stock:
    """What socket.io-client does with ``pid`` and ``offset``; ``labels`` are the events that it handed over."""

    def __init__(self, user: str | None = None, *, token: str | None = None) -> None:
        self.user = user
        self.token = token
        self.id = ""
        self.pid: str | None = None
        self.offset: str | None = None
        self.labels: list[str] = []
        self.connected = False
        self.deaf = False
        """Set it, and what the server sends is lost on the way, up to the next connection."""
        self.recovered = False
        self._connection: TestClient | None = None

    @property
    def connection(self) -> TestClient:
        assert self._connection is not None
        return self._connection

    def dial(self, node: Node) -> TestClient:
        """Connect to ``node``, and do not wait."""
        self.deaf = False
        connection = self._connection = _Connection(node, self)
        request = Request(path="/socket.io/", query_string=b"EIO=4&transport=websocket")
        connection.carrier.session = session = node.server.engine.open(connection.carrier, request)
        if self.user is not None:
            cast("ServerConnection", session.receiver).vouched = Identity(self.user, {})
        auth = {} if self.pid is None else {"pid": self.pid, "offset": self.offset}
        if self.token is not None:
            auth["token"] = self.token
        connection.send(encode_connect(NAMESPACE, auth or None))
        return connection

    async def connect(self, node: Node) -> None:
        await self.dial(node).welcomed()

    def welcomed(self, socket_id: str, pid: str) -> None:
        self.recovered = pid == self.pid
        self.id, self.pid, self.connected = socket_id, pid, True

    def take(self, event: list[Any]) -> None:
        self.labels.append(event[1])
        if isinstance(event[-1], str):
            self.offset = event[-1]

    def cut(self) -> None:
        """Lose the connection; the server notices."""
        self.connected = False
        self.connection.drop()
