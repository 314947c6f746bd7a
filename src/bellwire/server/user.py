"""All sockets of one user, in every namespace and on every node."""

from typing import TYPE_CHECKING, Any, Final, TypeVarTuple

from bellwire.core.errors import BellwireError, NodesUnreachable
from bellwire.core.events import Event
from bellwire.server.cluster import Asked

if TYPE_CHECKING:
    from bellwire.server.server import Server

Ts = TypeVarTuple("Ts")

TIMEOUT: Final = 5.0
"""Seconds for other nodes to disconnect a user."""

_KIND: Final = "user.disconnect"


class UserTarget:
    """All sockets of one user."""

    __slots__ = ("_id", "_server")

    def __init__(self, server: "Server", id: str) -> None:  # noqa: A002 - the contract's word
        self._server = server
        self._id = id

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts) -> None:
        """Send ``event`` to the user's sockets in ``/``.

        Raises:
            BellwireError: there is no such namespace.

        """
        root = self._server.namespaces.get("/")
        if root is None:
            raise BellwireError("server.user(id).emit speaks in '/': register it with server.namespace('/')")
        await root.user(self._id).emit(event, *payload)

    async def disconnect(self) -> None:
        """End every connection of the user, in all namespaces and on all nodes.

        Raises:
            BellwireError: the server is not running.
            BrokerUnavailable: the other nodes cannot be asked; on this one it is done.
            NodesUnreachable: some did not say that it is done.

        """
        runtime = self._server.runtime
        await disconnect_here(self._server, self._id)
        cluster = runtime.cluster
        nodes = await runtime.places.nodes_of(self._id)
        unreachable = await cluster.ask(
            _KIND,
            self._id.encode(errors="surrogatepass"),
            lambda *_: None,
            timeout=TIMEOUT,
            nodes=cluster.peers.ids if nodes is None else cluster.peers.ids & nodes,
        )
        if unreachable:
            raise NodesUnreachable(unreachable)

    async def revoke(self) -> None:
        """End all that the user was given up to now: his connections, his sessions, his tokens.

        Connections end as with `disconnect`, on all nodes. Clients that are away do not come back to their sessions.
        What was issued up to now is refused as ``token_revoked``: tokens by their ``iat``, other identities by
        ``Identity.issued``, and all of those that do not say. It is kept for ``Config.revocation_seconds``.

        Raises:
            BellwireError: the server is not running, or ``Config.revocation_seconds`` is 0.
            BrokerUnavailable: nothing was revoked, or other nodes cannot be asked: call it again.
            OutcomeUnknown: nobody knows whether it was.
            NodesUnreachable: it was, and some nodes did not say that they have disconnected him.

        """
        await self._server.runtime.revocations.revoke(self._id)
        await self.disconnect()


async def disconnect_here(server: "Server", user: str) -> None:
    """End the user's connections to this node."""
    for namespace in server.namespaces.values():
        await namespace.disconnect_user(user)


def serve_users(server: "Server") -> None:
    """Do what `UserTarget` asks of this node when it is called on another one."""

    async def disconnect(asked: Asked) -> None:
        await disconnect_here(server, asked.body.decode(errors="surrogatepass"))

    server.runtime.cluster.serve(_KIND, disconnect)
