"""Namespaces: what an application registers, and the sockets that are in it."""

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, TypeVarTuple, cast

import msgspec

from bellwire.core.errors import BellwireError, EventRefused
from bellwire.core.events import MAX_NAME_LENGTH as MAX_EVENT_NAME
from bellwire.core.events import Event, require_event
from bellwire.core.renewal import AUTH_RENEW
from bellwire.delivery.effects import RULES, Effect
from bellwire.delivery.naming import User
from bellwire.guard.recipients import MAX_NAME_LENGTH, check_name
from bellwire.guard.schema import PayloadReader
from bellwire.protocol.socketio import Packet, decode_json, event_name, name_of
from bellwire.server import relay
from bellwire.server.admission import Middleware
from bellwire.server.callables import check_any_handler, check_handler, payload_names
from bellwire.server.departures import Departing
from bellwire.server.dispatch import Job
from bellwire.server.hub import Hub
from bellwire.server.runtime import NOT_RUNNING
from bellwire.server.socket import Socket
from bellwire.server.target import Target

if TYPE_CHECKING:
    from bellwire.server.inbound import Inbound
    from bellwire.server.outflow import Outflow
    from bellwire.server.runtime import Runtime

R = TypeVar("R")
Ts = TypeVarTuple("Ts")
H = TypeVar("H", bound=Callable[..., Any])

Handler: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]
ConnectHandler: TypeAlias = Callable[[Socket], Awaitable[None]]
DisconnectHandler: TypeAlias = Callable[[Socket, str], Awaitable[None]]
Authorizer: TypeAlias = Callable[[Socket, str], Awaitable[bool]]

_EFFECTS = tuple(RULES)

_NONE: Final[Mapping[str, str]] = MappingProxyType({})  # one for all clients of a namespace that is no pattern

_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")


class Registration(msgspec.Struct, frozen=True, eq=False):
    """An event's handler, and what reads its payload."""

    event: Event[Any, *tuple[Any, ...]]
    handler: Handler
    reader: PayloadReader
    effect: Effect = "at_most_once"
    private: bool = False
    """Whether it is Bellwire's own: nobody else is shown the payload, in which there may be a token."""


_OWN: Final = {AUTH_RENEW.name: Registration(AUTH_RENEW, Socket.renew, PayloadReader(AUTH_RENEW), private=True)}
"""What every namespace handles, unless its application does."""


class Work(msgspec.Struct, frozen=True):
    """An event that was read: its name, its checked payload, and who handles it."""

    name: str
    args: Any
    registration: Registration | None


class Namespace(Target):
    """One namespace, or all that a pattern describes: ``"/org/{org}"``.

    As a :class:`~bellwire.server.target.Target` it stands for everyone who is in it. A pattern stands for nobody: name
    one of its namespaces with :meth:`at`.
    """

    __slots__ = (
        "_handlers",
        "_hubs",
        "_included",
        "_outflow",
        "_owner",
        "_pattern",
        "_runtime",
        "any_handlers",
        "authorizer",
        "connect_handlers",
        "disconnect_handlers",
        "emits",
        "middleware",
        "name",
        "rates",
    )

    def __init__(self, name: str, *, emits: tuple[Event[Any, *tuple[Any, ...]], ...] = ()) -> None:
        check_name(name)
        self.name = name
        self.emits = _checked_emits(emits)
        """The events that the server sends in it: what documents and typed clients are made of."""
        self.middleware: list[Middleware] = []
        self.connect_handlers: list[ConnectHandler] = []
        self.disconnect_handlers: list[DisconnectHandler] = []
        self.any_handlers: list[Handler] = []
        self.authorizer: Authorizer | None = None
        self.rates: dict[str, Event[Any, *tuple[Any, ...]]] = {}
        """The events by their names that have a handler and say something of their rate."""
        self._handlers: dict[str, Registration] = {}
        self._hubs: dict[str, Hub] = {}
        self._pattern = _compile(name)
        self._runtime: Runtime | None = None
        self._outflow: Outflow | None = None
        self._included = False
        self._owner = self  # or the namespace of a server that this one was included in
        super().__init__(self, name)

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    # --- registration

    def on(
        self, event: Event[R, *Ts], /, *, effect: Effect = "at_most_once"
    ) -> "Callable[[Callable[[Socket, *Ts], Awaitable[R]]], Callable[[Socket, *Ts], Awaitable[R]]]":
        """Handle ``event``: ``async (socket, *payload) -> reply``. The types come from the event alone.

        The handler runs when its payload has passed the event's types. What it returns is the acknowledgement; an
        :class:`EventRefused` that it raises is one too. Handlers of one socket run one after the other.

        ``effect`` says what the handler does to the world, and with that what becomes of an event whose handler was
        running when the process died. It holds for clients that number their events and send them again until they
        are answered (Bellwire's own); any other client's event is handled at most once, whatever stands here.

        - ``"relay"``: the handler only emits. Its emits leave together when it has returned, and exactly once; it runs
          again if it had not returned. ``call``, ``join``, ``leave`` and volatile emits in it raise.
        - ``"transactional"``: it writes in a database transaction of its own, and stores ``socket.key`` beside what it
          writes, where it must be unique. It runs again, with the same key: if that is there already, it writes
          nothing and gives the same reply. So it takes effect exactly once.
        - ``"at_most_once"``: it may do anything, and does not run again: the client is told ``outcome_unknown``.
        - ``"at_least_once"``: it may do anything, and runs again; ``socket.redelivered`` is true then.

        Raises:
            TypeError: ``event`` is a name and no :class:`Event`, or the handler cannot be called with its payload.
            ValueError: the event has a handler in this namespace, or ``effect`` is none of the four.

        """
        require_event(event, "on")
        _check_effect(effect, event.name)

        def register(handler: Callable[[Socket, *Ts], Awaitable[R]]) -> Callable[[Socket, *Ts], Awaitable[R]]:
            check_handler(handler, ("socket", *payload_names(event.payload_types)), f"on({event.name!r})")
            self._owner._register(Registration(event, handler, PayloadReader(event), effect))  # type: ignore[arg-type]
            return handler

        return register

    def _register(self, registration: Registration) -> None:
        name = registration.event.name
        if name in self._handlers:
            raise ValueError(f"{name!r} has a handler in {self.name!r} already: one event, one handler")
        self._handlers[name] = registration
        if registration.event.rate is not None:
            self.rates[name] = registration.event

    def on_connect(self, handler: ConnectHandler) -> ConnectHandler:
        """Call ``async (socket)`` for each client before it is told that it is connected.

        What it emits leaves right after that reply. It may raise :class:`ConnectRefused`, or :class:`EventRefused`,
        whose code the client then finds in the error's data. It returns None: anything else, as a False that is meant
        to refuse, is taken for a mistake, and the client is refused with an internal error.
        """
        check_handler(handler, ("socket",), "on_connect")
        self._owner.connect_handlers.append(handler)
        return handler

    def on_disconnect(self, handler: DisconnectHandler) -> DisconnectHandler:
        """Call ``async (socket, reason)`` for each client that was connected and is gone, behind its last event.

        ``reason`` is Socket.IO's: ``transport close``, ``transport error``, ``ping timeout``, ``parse error``,
        ``forced server close``, ``server shutting down``, ``client namespace disconnect`` or ``server namespace
        disconnect``; and ``slow consumer`` for one that did not read, ``rate limited`` for one that went on sending
        what was refused, ``connect timeout`` for one that left while ``on_connect`` took longer than
        ``Config.connect_timeout``.
        """
        check_handler(handler, ("socket", "reason"), "on_disconnect")
        self._owner.disconnect_handlers.append(handler)
        return handler

    def on_any(self, handler: H) -> H:
        """Call ``async (socket, name, *payload)`` for every event, before its handler.

        An event that no handler declares comes with its payload as plain JSON values: nothing has checked it.
        """
        check_any_handler(handler, "on_any")
        self._owner.any_handlers.append(handler)
        return handler

    def use(self, middleware: Middleware) -> Middleware:
        """Add ``async (socket, next)`` around connecting; a client whose ``next`` is not awaited is refused.

        It returns None, as ``on_connect`` does.
        """
        check_handler(middleware, ("socket", "next"), "use")
        self._owner.middleware.append(middleware)
        return middleware

    def authorize(self, authorizer: Authorizer) -> Authorizer:
        """Ask ``async (socket, room) -> bool`` at every join, and again for each room of a client that comes back.

        Raises:
            ValueError: there is one already, which would be asked no longer.

        """
        check_handler(authorizer, ("socket", "room"), "authorize")
        self._owner._authorize(authorizer)
        return authorizer

    def _authorize(self, authorizer: Authorizer) -> None:
        if self.authorizer is not None:
            raise ValueError(f"{self.name!r} has an authorizer already: ask both rules in one")
        self.authorizer = authorizer

    @property
    def events(self) -> tuple[Event[Any, *tuple[Any, ...]], ...]:
        """The events that have a handler."""
        return tuple(registration.event for registration in self._owner._handlers.values())

    def extend(self, other: "Namespace") -> None:
        """Make ``other``, of the same name, a part of this one: handlers may stand in several files.

        What is registered in ``other`` from now on is registered here, and it reaches the same sockets.

        Raises:
            ValueError: an event has a handler in both, or both have an authorizer.

        """
        twice = self._handlers.keys() & other._handlers.keys()
        if twice:
            raise ValueError(f"{sorted(twice)} have handlers in {self.name!r} already: one event, one handler")
        if other.authorizer is not None:
            self._authorize(other.authorizer)
        self._handlers |= other._handlers
        self.rates |= other.rates
        self.emits = (*self.emits, *(event for event in other.emits if event not in self.emits))
        self.middleware += other.middleware
        self.connect_handlers += other.connect_handlers
        self.disconnect_handlers += other.disconnect_handlers
        self.any_handlers += other.any_handlers
        other._owner = self

    # --- whom it means

    def at(self, **params: str) -> Target:
        """One of a pattern's namespaces: ``ns.at(org="7")`` for ``/org/7``.

        Raises:
            TypeError: these are not the pattern's parameters, or one is no str.
            ValueError: one has characters that no part of a namespace's name can have.

        """
        return Target(self, self._named("at", params))

    async def presence(self, room: str, /, **params: str) -> dict[str, list[Any]]:
        """Who is shown in ``room``, on all nodes: by user, what each of his sockets says; a guest by his socket's id.

        A node that does not answer within two seconds is left out. Of a pattern, ``params`` name the namespace, as in
        :meth:`at`.

        Raises:
            TypeError, ValueError: as :meth:`at`.
            BrokerUnavailable: the broker cannot be reached.

        """
        return await self.runtime.presences.present(self._named("presence", params), room)

    def _named(self, where: str, params: Mapping[str, str]) -> str:
        """The name of the namespace with these parameters."""
        wanted = set(_PARAMETER.findall(self.name))
        if wanted != set(params):
            raise TypeError(f"{self.name!r} takes {sorted(wanted)}, not {sorted(params)}")
        for parameter, value in params.items():
            if not isinstance(value, str):
                raise TypeError(
                    f"{where}({parameter}={value!r}): a parameter is a str, write {where}({parameter}={str(value)!r})"
                )
        name = _PARAMETER.sub(lambda match: params[match[1]], self.name)
        if self.match(name) is None:
            raise ValueError(f"{name!r} is no namespace of {self.name!r}: a part has no '/', no ',' and no braces")
        return name

    def match(self, name: str) -> Mapping[str, str] | None:
        """The parameters with which ``name`` is in this namespace; None if it is not."""
        found = self._pattern.fullmatch(name) if len(name) <= MAX_NAME_LENGTH else None
        return None if found is None else found.groupdict() or _NONE

    def hides(self, other: "Namespace") -> bool:
        """Whether this is a pattern that takes every name of the pattern ``other``, so that nobody could be in that."""
        # No literal part has this character, so only a parameter can have taken it; and that takes any value.
        probe, parameters = _PARAMETER.subn("\0", other.name)
        return parameters > 0 and self._pattern.fullmatch(probe) is not None

    # --- at run time

    @property
    def runtime(self) -> "Runtime":
        """What it runs on. Raises :class:`BellwireError` before its server has started."""
        runtime = self._owner._runtime
        if runtime is None:
            if not self._owner._included:
                raise BellwireError(f"{self.name!r} belongs to no server: write server.include(namespace)")
            raise BellwireError(f"the server of {self.name!r} is not running: {NOT_RUNNING}")
        return runtime

    def bind(self, runtime: "Runtime | None") -> None:
        """It is a server's; that started, or ended."""
        self._included = True
        self._runtime = runtime
        self._outflow = None if runtime is None else runtime.outflow
        self._hubs.clear()

    def hub(self, name: str) -> Hub:
        """The live namespace of this name, made if nobody is in it yet."""
        hub = self._hubs.get(name)
        if hub is None:
            runtime = self.runtime
            hub = self._hubs[name] = Hub(name, runtime.streams, runtime.dispatcher, self.release)
        return hub

    def live(self, name: str) -> Hub | None:
        """The live namespace of this name; None if nobody is in it.

        Raises :class:`TypeError` for the name of a pattern, and as :attr:`runtime` does.
        """
        if "{" in name:
            raise TypeError(f"{name!r} is a pattern: name one of its namespaces with at(), or use a socket's own")
        self.runtime  # noqa: B018 - it raises
        return self._owner._hubs.get(name)

    async def disconnect_user(self, user: str) -> None:
        """End the connections of a user to this node, in each of this pattern's namespaces."""
        for hub in list(self._hubs.values()):
            for socket in list(hub.members(User(user))):
                await socket.disconnect(close=True)

    def release(self, hub: Hub) -> None:
        """Forget a live namespace that everybody left: a pattern's could otherwise grow without end."""
        if hub.empty and self._hubs.get(hub.name) is hub:
            del self._hubs[hub.name]
            hub.close()

    def read(self, packet: Packet, objects: list[Any] | None, named: str) -> "Work":
        """What an event's packet asks for; ``named`` is the namespace's own name, for errors.

        Raises:
            PacketError: the payload is no event.
            EventRefused: nobody handles it, or the payload is not what the event declares.

        """
        name = name_of(packet)
        registration = self._handlers.get(name) or _OWN.get(name)
        if registration is not None:
            reader = registration.reader
            args = reader.read(packet.payload) if objects is None else reader.read_objects(objects[1:])
            return Work(name, args, registration)
        if len(name) > MAX_EVENT_NAME:
            raise EventRefused("unknown_event", f"an event's name has at most {MAX_EVENT_NAME} characters")
        values = decode_json(packet.payload) if objects is None else objects  # broken JSON is broken for any event
        if not self.any_handlers:
            raise EventRefused("unknown_event", f"no handler takes {name[:64]!r} in {named!r}")
        return Work(name, values[1:], None)

    def job(self, socket: "Inbound", packet: Packet, objects: list[Any] | None) -> "tuple[Registration | None, Job]":
        """The coroutine of an event's handlers, for a client that does not number its events, and whose it is.

        A relay's may return `Departing`: then it is done, and what it emitted is still to be brought to the broker.
        Raises as `read` does.
        """
        registration = self._handlers.get(packet.name or event_name(packet.payload))
        handler: Callable[..., Job]
        whose = cast("Socket", socket)
        if registration is None or self.any_handlers or self._outflow is not None:
            work = self.read(packet, objects, socket.namespace)
            registration, handler, args = work.registration, self.handle, (work,)
        else:
            reader = registration.reader
            args = reader.read(packet.payload) if objects is None else reader.read_objects(objects[1:])
            handler = registration.handler
        if registration is not None and registration.effect == "relay":
            return registration, self._relay(whose, handler, args)
        return registration, handler(whose, *args)

    async def _relay(self, socket: Socket, handler: Callable[..., Job], args: tuple[Any, ...]) -> Any:
        with relay.Collecting() as emissions:
            result = await handler(socket, *args)
        publisher = self.runtime.streams.publisher
        if not publisher.broker.immediate:
            if len(emissions) == 1 and len(emissions[0].streams) == 1:
                return Departing(result, emissions[0])
            await socket.departed()
        for emission in emissions:
            await publisher.emit(emission.streams, emission.body, emission.excluded)
        return result

    def handle(self, socket: Socket, work: "Work") -> Job:
        """Run the handlers of ``on_any``, and the event's own."""
        outflow = self._outflow
        return self._handle(socket, work) if outflow is None else self._charged(outflow, socket, work)

    async def _charged(self, outflow: "Outflow", socket: Socket, work: "Work") -> Any:
        with outflow.charging(socket.meter):
            return await self._handle(socket, work)

    async def _handle(self, socket: Socket, work: "Work") -> Any:
        private = work.registration is not None and work.registration.private
        for any_handler in () if private else self.any_handlers:
            await any_handler(socket, work.name, *work.args)
        return None if work.registration is None else await work.registration.handler(socket, *work.args)

    def farewell(self, socket: Socket, reason: str) -> Job | None:
        """The coroutine of the ``on_disconnect`` handlers, None if there are none."""
        return self._farewell(socket, reason) if self.disconnect_handlers else None

    async def _farewell(self, socket: Socket, reason: str) -> None:
        for handler in self.disconnect_handlers:
            await handler(socket, reason)


def _check_effect(effect: object, name: str) -> None:
    if effect not in _EFFECTS:
        raise ValueError(f"on({name!r}, effect={effect!r}): the effect is one of {', '.join(map(repr, _EFFECTS))}")


def _checked_emits(emits: Any) -> tuple[Event[Any, *tuple[Any, ...]], ...]:
    if isinstance(emits, Event):
        raise TypeError("namespace(emits=...) takes a tuple of events: for one, write emits=(EVENT,)")
    if isinstance(emits, str) or not isinstance(emits, Iterable):
        raise TypeError(f"namespace(emits=...) takes a tuple of events, not {type(emits).__name__}: emits=(EVENT,)")
    events: tuple[Event[Any, *tuple[Any, ...]], ...] = tuple(emits)
    for event in events:
        require_event(event, "namespace(emits=...)")
    return events


def _compile(name: str) -> re.Pattern[str]:
    """A pattern as a regular expression; a parameter is one part of the name, between slashes."""
    parts = _PARAMETER.split(name)
    literals, parameters = parts[::2], parts[1::2]
    if any("{" in literal or "}" in literal for literal in literals):
        raise ValueError(f"{name!r} has a parameter that is no name: write '/org/{{org}}'")
    if len(set(parameters)) < len(parameters):
        raise ValueError(f"{name!r} names a parameter twice")
    pattern = re.escape(literals[0])
    for parameter, literal in zip(parameters, literals[1:], strict=True):
        pattern += f"(?P<{parameter}>[^/,{{}}]+){re.escape(literal)}"
    return re.compile(pattern)
