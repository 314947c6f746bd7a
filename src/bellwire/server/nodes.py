"""Messages between the nodes of a cluster, for what an application wants to tell its other processes."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, TypeVarTuple

import msgspec

from bellwire.core.errors import BellwireError, EventRefused, PacketError
from bellwire.core.events import Event, require_event
from bellwire.guard.packets import post
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol.post import Post
from bellwire.server import relay
from bellwire.server.acks import Replies, check_timeout, invalid_reply
from bellwire.server.callables import check_handler, payload_names
from bellwire.server.cluster import Asked, Cluster, Malformed
from bellwire.server.operations import LAG
from bellwire.server.runtime import NOT_RUNNING

if TYPE_CHECKING:
    from bellwire.server.runtime import Runtime

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

KIND: Final = "message"
"""Of the questions that carry one."""

_encode: Final = msgspec.msgpack.Encoder().encode
_objects: Final = msgspec.msgpack.Decoder(list[Any]).decode

logger = logging.getLogger("bellwire.server")


class _Registration(NamedTuple):
    handler: Callable[..., Awaitable[Any]]
    reader: PayloadReader


class Nodes:
    """All nodes of the cluster but this one: processes with the same broker.

    A message reaches those that are there, at most once each; one node's come in the order in which it sent them.
    """

    __slots__ = ("_handlers", "_runtime")

    def __init__(self) -> None:
        self._handlers: dict[str, _Registration] = {}
        self._runtime: Runtime | None = None

    @property
    def id(self) -> str:
        """The id of this node: 8 hexadecimal digits, others after each start. Raises BellwireError before that."""
        return self._cluster.node

    @property
    def others(self) -> frozenset[str]:
        """The ids of the other nodes that are there; one that died is among them for up to ten seconds."""
        return self._cluster.peers.ids

    def on(
        self, event: Event[R, *Ts], /
    ) -> "Callable[[Callable[[str, *Ts], Awaitable[R]]], Callable[[str, *Ts], Awaitable[R]]]":
        """Handle ``event`` of other nodes: ``async (node, *payload) -> reply``; ``node`` is the sender's id.

        Raises:
            TypeError: ``event`` is a name and no :class:`Event`, or the handler cannot be called with its payload.
            ValueError: the event has a handler already.

        """
        require_event(event, "on")

        def register(handler: Callable[[str, *Ts], Awaitable[R]]) -> Callable[[str, *Ts], Awaitable[R]]:
            check_handler(handler, ("node", *payload_names(event.payload_types)), f"nodes.on({event.name!r})")
            if event.name in self._handlers:
                raise ValueError(f"{event.name!r} has a handler for other nodes already: one event, one handler")
            self._handlers[event.name] = _Registration(handler, PayloadReader(event))
            return handler

        return register

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts) -> None:
        """Send ``event`` to the other nodes.

        Raises:
            TypeError: the payload is not what the event declares.
            BrokerUnavailable: nothing was sent.
            MessageTooLarge: it is larger than the broker takes.
            RuntimeError: in the handler of a relay, which may only emit to clients.

        """
        relay.forbid("nodes.emit()")
        await self._cluster.tell(KIND, post("/", event, payload).body)

    async def call(self, event: Event[R, *Ts], /, *payload: *Ts, timeout: float) -> Replies[R]:  # noqa: ASYNC109
        """Send ``event`` and wait for the reply of each other node, at most ``timeout`` seconds and one more.

        The replies are by the node's id. Nodes that did not answer are in ``unreachable_nodes``.

        Raises as :meth:`emit`, and TypeError or ValueError for a ``timeout`` that is no number of seconds.
        """
        relay.forbid("nodes.call()")
        check_timeout(timeout)
        reader = ReplyReader(event)
        values: dict[str, R] = {}
        errors: dict[str, BellwireError] = {}

        def take(node: str, part: bytes) -> None:
            try:
                values[node] = reader.read_objects(_objects(part))
            except BellwireError as error:
                errors[node] = error
            except msgspec.MsgspecError:
                raise
            except Exception as error:  # a reply type's own __post_init__
                errors[node] = invalid_reply(error)

        cluster = self._cluster
        body = post("/", event, payload).body
        unreachable = await cluster.ask(KIND, body, take, timeout=timeout, lag=LAG, nodes=cluster.peers.ids)
        return Replies(values, errors, frozenset(), unreachable)

    # --- the server's side

    def bind(self, runtime: "Runtime | None") -> None:
        """The server started, or ended."""
        self._runtime = runtime
        if runtime is not None:
            runtime.cluster.serve(KIND, self._answer)

    @property
    def _cluster(self) -> Cluster:
        if self._runtime is None:
            raise BellwireError(f"the server is not running: {NOT_RUNNING}")
        return self._runtime.cluster

    async def _answer(self, asked: Asked) -> None:
        message = asked.read(_read_message)
        try:
            reply: Any = await self._handle(asked.node, message)
            answer = [] if reply is None else [reply]
        except EventRefused as error:
            answer = [error.as_reply()]
        except PacketError as error:
            raise Malformed from error
        except Exception as error:
            logger.error("handling a message of node %s failed", asked.node, exc_info=error)
            answer = [EventRefused("internal", "internal error").as_reply()]
        await asked.answer(_encode(answer))

    async def _handle(self, node: str, message: Post) -> Any:
        registration = self._handlers.get(message.name)
        if registration is None:
            raise EventRefused("unknown_event", f"node {self.id} has no handler for {message.name[:64]!r}")
        args = registration.reader.read_objects(_objects(message.msgpack_args))
        return await registration.handler(node, *args)


def _read_message(body: bytes) -> Post:
    return Post.read("/", body)
