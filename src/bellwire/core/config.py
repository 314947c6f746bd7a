"""One frozen, validated structure for everything that can be set, and where its values come from."""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, get_args, get_origin

import msgspec
from msgspec import Meta

from bellwire.core.errors import ConfigError
from bellwire.core.rate import PATTERN
from bellwire.core.redaction import without_secrets

__all__ = ["Config", "ConnectionsPolicy", "Option", "Transport", "config_options", "shown"]

ENVIRONMENT_PREFIX: Final = "BELLWIRE_"

Transport: TypeAlias = Literal["polling", "websocket"]
ConnectionsPolicy: TypeAlias = Literal["refuse", "close_oldest"]

_A_DAY: Final = 86_400.0

# "*", or an origin whose host may begin with "*." and whose port may be "*" (the ASCII serialisation, RFC 6454 §6.2).
_ORIGIN: Final = r"\A(\*|(?i:[a-z][a-z0-9+.-]*://((\*\.)?[a-z0-9._-]+|\[[0-9a-f:.]+\])(:([0-9]{1,5}|\*))?))\Z"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server behaves; every field has a default that is safe to run with.

    Durations are in seconds, sizes in bytes. Values are checked when a Config is made, by hand or by
    `Config.load`; a wrong one is a `ConfigError` that names the field, the value and what would be right.
    """

    path: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            pattern=r"\A/([A-Za-z0-9._~-]+/)*\Z",
            description="URL path of Engine.IO, between two slashes; Socket.IO clients look for /socket.io/",
        ),
    ] = "/socket.io/"
    transports: Annotated[
        tuple[Transport, ...],
        Meta(min_length=1, description="what clients may connect with: polling, websocket, or both, by commas"),
    ] = ("polling", "websocket")
    allowed_origins: Annotated[
        tuple[Annotated[str, Meta(max_length=255, pattern=_ORIGIN)], ...],
        Meta(
            description="origins of pages that may connect, beside the server's own: https://chat.example, "
            "https://*.chat.example, http://localhost:* for any port, or * for any page",
        ),
    ] = ()
    behind_proxy: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...],
        Meta(
            description="addresses and networks of the proxies that end TLS, by commas: 127.0.0.1, 10.0.0.0/8; "
            "their X-Forwarded-For, -Proto and -Host are believed, and without TLS nobody else is served",
        ),
    ] = ()
    tls_cert: Annotated[
        str,
        Meta(
            max_length=4096,
            description="file with the certificate of bellwire run and those that lead to its authority, in PEM; "
            "SIGHUP has it read again; no TLS if empty",
        ),
    ] = ""
    tls_key: Annotated[
        str,
        Meta(max_length=4096, description="file with the certificate's key, in PEM; if empty, that of tls_cert has it"),
    ] = ""
    ready_path: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=r"\A(/[A-Za-z0-9._~-]+)*\Z",
            description="URL path that tells balancers whether to send clients here: 200 if the broker answers, else "
            "503; none if empty",
        ),
    ] = "/readyz"
    cookie: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"\A[!#$%&'*+.^_`|~0-9A-Za-z-]*\Z",  # token, RFC 6265 section 4.1.1
            description="name of a cookie that holds the session's id, for balancers that need one; none if empty",
        ),
    ] = ""
    ping_interval: Annotated[
        float, Meta(gt=0, le=_A_DAY, description="seconds between two pings (Engine.IO v4: 25)")
    ] = 25.0
    pong_timeout: Annotated[
        float, Meta(gt=0, le=_A_DAY, description="seconds a client has to answer a ping; then it is missed")
    ] = 5.0
    max_missed_pongs: Annotated[
        int, Meta(ge=1, le=100, description="consecutive missed pings that end a connection")
    ] = 2
    client_ping_interval: Annotated[
        float, Meta(gt=0, le=_A_DAY, description="seconds; pingInterval as clients are told (Engine.IO v4)")
    ] = 25.0
    client_ping_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_A_DAY,
            description="seconds; pingTimeout as clients are told: one hangs up when no ping came for "
            "client_ping_interval + client_ping_timeout",
        ),
    ] = 30.0
    connect_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_A_DAY,
            description="seconds until a connection must have joined a namespace; auth and on_connect are cut off then",
        ),
    ] = 15.0
    upgrade_timeout: Annotated[
        float,
        Meta(gt=0, le=_A_DAY, description="seconds an upgrade to WebSocket may take (Engine.IO v4: 10)"),
    ] = 10.0
    head_timeout: Annotated[
        float, Meta(gt=0, le=_A_DAY, description="seconds until the head of a request must be complete")
    ] = 10.0
    message_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_A_DAY,
            description="seconds until a message that has begun is complete, its frames, its attachments or the body "
            "of a POST; one more for each 16 KiB that have come",
        ),
    ] = 10.0
    half_open: Annotated[
        int,
        Meta(
            ge=1, description="connections that have not joined a namespace yet, all together; one more is turned away"
        ),
    ] = 1024
    half_open_per_address: Annotated[
        int,
        Meta(
            ge=0,
            description="the same of one address, or of one IPv6 network of 64 bits; 0 for any number; loopback and "
            "trusted proxies have no such bound",
        ),
    ] = 128
    connect_rate_per_address: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="sessions that one address may open: 10/s, 300/min or off; as many at once; one more is "
            "refused; loopback and trusted proxies have no such bound",
        ),
    ] = "off"
    shutdown_grace: Annotated[
        float,
        Meta(ge=0, le=_A_DAY, description="seconds that handlers and buffers get to finish at shutdown"),
    ] = 10.0
    max_message_bytes: Annotated[
        int,
        Meta(ge=1, description="bytes of one message or POST (maxPayload of Engine.IO v4: 1,000,000)"),
    ] = 1_000_000
    max_attachments: Annotated[
        int,
        Meta(ge=1, le=10, description="binary attachments of one packet; Socket.IO parsers refuse over 10"),
    ] = 10
    max_packets_per_post: Annotated[
        int,
        Meta(ge=1024, description="packets in one POST of long-polling; a stock client sends all it has in one"),
    ] = 16_384
    send_buffer_bytes: Annotated[
        int, Meta(ge=1000, description="bytes that may wait for one slow client before it is disconnected")
    ] = 1_048_576
    volatile_buffer_bytes: Annotated[
        int,
        Meta(ge=0, description="bytes waiting for a client from which only the newest volatile events are kept for it"),
    ] = 65_536
    process_buffer_bytes: Annotated[
        int,
        Meta(
            ge=1000,
            description="bytes that may wait for all clients of one process together; beyond that those are "
            "disconnected for whom most wait",
        ),
    ] = 268_435_456
    write_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=_A_DAY,
            description="seconds in which a client must take something of what waits for it, or it is disconnected",
        ),
    ] = 20.0
    fanout_batch: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="sockets that a broadcast reaches in one turn of the event loop; the others follow later",
        ),
    ] = 1024
    fanout_concurrency: Annotated[
        int,
        Meta(ge=1, le=1024, description="rooms that get a batch of a broadcast in one turn of the event loop"),
    ] = 1
    revocation_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=31 * _A_DAY,
            description="seconds for which User.revoke() is remembered: the longest lifetime of a token; 0 for none",
        ),
    ] = _A_DAY
    connections_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="connections one user may have on all nodes together; 0 for any number; the same on all nodes",
        ),
    ] = 5
    connections_per_user_policy: Annotated[
        ConnectionsPolicy,
        Meta(description="what happens to one more: refuse it, or close_oldest, the user's oldest connection"),
    ] = "refuse"
    message_rate: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="events one connection may send: 100/s, 600/min, 1000/h or off; as many at once; what is more "
            "is refused",
        ),
    ] = "100/s"
    refusal_rate: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="events of one connection that may be refused for their rate, in the same form; one more "
            "closes it",
        ),
    ] = "1000/min"
    user_rate: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="events one user may send over all connections and nodes, in the same form; the same on all "
            "nodes",
        ),
    ] = "off"
    address_rate: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="events that may come from one address (of IPv6, one network of 64 bits), in the same form; "
            "the same on all nodes",
        ),
    ] = "off"
    room_rate: Annotated[
        str,
        Meta(
            pattern=PATTERN,
            description="events that handlers of clients' events may emit to one room on one node, in the same form; "
            "reliable ones are refused beyond it, volatile ones dropped",
        ),
    ] = "off"
    recipients_per_token: Annotated[
        int,
        Meta(
            ge=0,
            description="recipients of what a handler emits for which its client pays one token of message_rate; 0 for "
            "no payment",
        ),
    ] = 0
    rooms_per_socket: Annotated[int, Meta(ge=1, description="rooms one socket may be in")] = 128
    max_room_name: Annotated[int, Meta(ge=1, description="characters of a room's name")] = 255
    pending_calls_per_socket: Annotated[
        int, Meta(ge=1, description="calls to one client that may wait for their acknowledgement")
    ] = 1024
    inbound_queue_events: Annotated[
        int,
        Meta(
            ge=1,
            description="events of one client that may wait for their handlers before reading stops; a long one "
            "counts once more for each KiB",
        ),
    ] = 1024
    per_message_deflate: Annotated[
        bool, Meta(description="compress WebSocket messages where the client offers it (RFC 7692)")
    ] = False
    broker: Annotated[
        str,
        Meta(
            max_length=2000,
            pattern=r"\A[a-z]+://\S*\Z",
            description="where messages, sessions and rooms are kept: memory:// is this process, "
            "nats://host:4222,host:4222 and tls:// are NATS with JetStream, redis://host:6379/0 and rediss:// are "
            "Redis or Valkey",
        ),
    ] = "memory://"
    prefix: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=32,
            pattern=r"\A[A-Za-z0-9_-]+\Z",
            description="what everything at the broker begins with; applications that share a broker need one each",
        ),
    ] = "bellwire"
    history_messages: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="messages of a room that are kept for those who come back"),
    ] = 1_000
    history_seconds: Annotated[float, Meta(gt=0, le=_A_DAY, description="seconds for which they are kept")] = 600.0
    history_bytes: Annotated[
        int,
        Meta(ge=1_000, description="bytes of a room that are kept; the first limit reached of the three counts"),
    ] = 4_194_304
    connection_state_recovery: Annotated[
        bool,
        Meta(description="give Socket.IO's own clients what they missed when they come back (its v4.6 recovery)"),
    ] = False
    session_lifetime: Annotated[
        float,
        Meta(gt=0, le=_A_DAY, description="seconds a lost client may come back to its session"),
    ] = 600.0

    def __post_init__(self) -> None:
        for option in _OPTIONS.values():
            value = _checked(option, getattr(self, option.field), lax=False)
            msgspec.structs.force_setattr(self, option.field, value)
        self._check_heartbeat()
        self._check_proxies()
        if self.tls_key and not self.tls_cert:
            raise ConfigError(
                f"tls_key = {self.tls_key!r} is the key of no certificate: name the certificate's file in tls_cert"
            )
        if len(set(self.transports)) != len(self.transports):
            raise ConfigError(f"transports = {self.transports!r} holds one twice: name each once")
        self._check_buffers()

    def _check_buffers(self) -> None:
        if self.volatile_buffer_bytes > self.send_buffer_bytes:
            raise ConfigError(
                f"volatile_buffer_bytes = {self.volatile_buffer_bytes} is more than send_buffer_bytes = "
                f"{self.send_buffer_bytes}, so that a client would be disconnected before anything volatile is "
                f"dropped for it: set it to {self.send_buffer_bytes} or less"
            )
        if self.process_buffer_bytes < self.send_buffer_bytes:
            raise ConfigError(
                f"process_buffer_bytes = {self.process_buffer_bytes} is less than send_buffer_bytes = "
                f"{self.send_buffer_bytes}, which one client alone may have waiting: set it to "
                f"{self.send_buffer_bytes} or more"
            )

    def _check_proxies(self) -> None:
        for network in self.behind_proxy:
            try:
                ip_network(network)
            except ValueError as error:
                raise ConfigError(
                    f"behind_proxy holds {network!r}: {error}; write an address, 10.0.0.7, or a network, 10.0.0.0/8"
                ) from None

    def _check_heartbeat(self) -> None:
        # A stock client measures the gap between two pings, and nothing else. Pings leave every
        # ping_interval; one that is as late as a pong may be must still find the client there.
        told = self.client_ping_interval + self.client_ping_timeout
        needed = self.ping_interval + self.pong_timeout
        if told < needed - 1e-9:
            raise ConfigError(
                f"client_ping_interval + client_ping_timeout = {told:g} s is less than ping_interval + "
                f"pong_timeout = {needed:g} s, and clients would hang up on a healthy connection: set "
                f"client_ping_timeout to {needed - self.client_ping_interval:g} or more"
            )

    @classmethod
    def load(
        cls,
        base: "Config | None" = None,
        *,
        toml: Path | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
    ) -> "Config":
        """Merge, from the weakest to the strongest: ``base``, a TOML file, the environment, flags.

        Args:
            base: what the code says, the defaults if None.
            toml: a file whose top level has fields by their names.
            environ: variables such as ``BELLWIRE_PING_INTERVAL``; others are left alone, among them those
                that Kubernetes makes for a service called bellwire. None reads the process's environment.
            flags: values by field name; those that are None were not given.

        Strings from the environment and from flags are converted to the field's type, lists are split
        at commas.

        Raises:
            ConfigError: a value is wrong, the file cannot be read, or it or the flags have an unknown field;
                the message says where the value came from.

        """
        values = msgspec.structs.asdict(base) if base is not None else {}
        origins: dict[str, str] = {}
        for field, value in _read_toml(toml).items() if toml is not None else ():
            values[field] = _checked(_option(field, str(toml)), value, lax=False, origin=str(toml))
            origins[field] = str(toml)
        environ = os.environ if environ is None else environ
        for field, option in _OPTIONS.items():
            variable = ENVIRONMENT_PREFIX + field.upper()
            if variable in environ:
                values[field] = _checked(option, environ[variable], lax=True, origin=variable)
                origins[field] = variable
        for field, value in (flags or {}).items():
            if value is not None:
                flag = f"--{field.replace('_', '-')}"
                values[field] = _checked(_option(field, "flags"), value, lax=True, origin=flag)
                origins[field] = flag
        try:
            return cls(**values)
        except ConfigError as error:  # each value is right, and together they are not
            raise ConfigError(f"{error}{_sources(str(error), origins)}") from None


class Option(NamedTuple):
    """One field of `Config`, as a command line needs it."""

    field: str
    """Its name, with underscores."""
    type: Any
    """``str``, ``int``, ``float``, ``bool`` or ``tuple[Literal[...], ...]``, without constraints."""
    default: Any
    """The value if nothing is set."""
    help: str
    """One line: what it means, with its unit."""
    annotation: Any
    """The type with its constraints, as msgspec reads it."""


def config_options() -> list[Option]:
    """Return every field of `Config` in order; flags and documentation are made from it."""
    return list(_OPTIONS.values())


def _describe(field: msgspec.structs.FieldInfo) -> Option:
    type_, meta = get_args(field.type)
    return Option(field.encode_name, type_, field.default, meta.description, field.type)


_OPTIONS: Final = {option.field: option for option in map(_describe, msgspec.structs.fields(Config))}


def shown(field: str, value: Any) -> Any:
    """Return a setting's value as it may be printed: without the secrets that a broker's address may hold."""
    if field != "broker":
        return value
    return without_secrets(value if isinstance(value, str) else repr(value))


def _option(field: str, origin: str) -> Option:
    option = _OPTIONS.get(field)
    if option is None:
        near = difflib.get_close_matches(field, _OPTIONS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(_OPTIONS)}"
        raise ConfigError(f"{field} (from {origin}) is not a setting: {meant}")
    return option


def _checked(option: Option, value: Any, *, lax: bool, origin: str | None = None) -> Any:
    source = value
    if get_origin(option.type) is tuple and isinstance(value, str):
        source = [part.strip() for part in value.split(",") if part.strip()]
    elif option.field == "path" and isinstance(value, str):
        source = f"/{value.strip('/')}/".replace("//", "/")
    try:
        return msgspec.convert(source, option.annotation, strict=not lax)
    except msgspec.ValidationError as error:
        where = f" (from {origin})" if origin is not None else ""
        fault = re.sub(r"`str` matching regex '.*'", "another form", str(error))  # the help says it in words
        fault = fault.replace("Expected `bool`", "Expected true or false")
        raise ConfigError(f"{option.field} = {shown(option.field, value)!r}{where}: {fault} ({option.help})") from None


def _sources(message: str, origins: Mapping[str, str]) -> str:
    """Where the fields that ``message`` names came from, those that are not as in code."""
    named = [f"{field} is from {origin}" for field, origin in origins.items() if re.search(rf"\b{field}\b", message)]
    return f" ({', '.join(named)})" if named else ""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    for name, value in values.items():
        if isinstance(value, dict):
            raise ConfigError(f"[{name}] in {path} is a table: settings stand at the top level, in no table")
    return values
