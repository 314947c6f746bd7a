"""Where NATS is: ``nats://[user:password@|token@]host[:port][,host[:port] ...]``, or ``tls://`` of the same form.

Options stand behind the hosts, ``?replicas=3&ca=/etc/nats/ca.pem``:

===============  =====================================================================================================
``replicas``     on how many servers of a cluster each message is, 1 to 5; as it is if the option is not there
``ca``           a file with the certificates that a server at ``tls://`` is checked against, in place of the system's
``credentials``  a file with the JWT and the seed of a user, as nsc writes it
``nkey``         a file with the seed of an NKey
===============  =====================================================================================================
"""

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from bellwire.core.errors import ConfigError
from bellwire.core.redaction import without_secrets

PORT: Final = 4222
"""The port that nats-server listens on unless it is told another one."""

MAX_REPLICAS: Final = 5
"""What JetStream takes."""

_SCHEMES: Final = ("nats", "tls")
_OPTIONS: Final = ("replicas", "ca", "credentials", "nkey")


class NatsAddress(NamedTuple):
    """The servers of a cluster, and who we are to them: a user, with a password or keys, a token, or nobody."""

    servers: tuple[str, ...]
    """``scheme://host:port`` each, without userinfo."""
    encrypted: bool
    """Whether nothing may be sent before TLS is there."""
    user: str | None = None
    password: str | None = None
    token: str | None = None
    replicas: int | None = None
    """How many there are to be of each message, None for what is set."""
    ca: str | None = None
    credentials: str | None = None
    nkey: str | None = None

    @classmethod
    def parse(cls, url: str) -> "NatsAddress":
        """Read an address; userinfo stands once, before the first host, percent-encoded (RFC 3986 section 3.2.1).

        Raises:
            ConfigError: it is none; the message shows it without its secrets.

        """
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES:
            raise _wrong(url, "it begins with nats:// or tls://")
        place, mark, query = rest.partition("?")
        userinfo, at, hosts = place.rpartition("@")
        if any(delimiter in userinfo for delimiter in "/?#@,") or "@" in query:
            raise _wrong(url, "write user and password once, before the first host, with / as %2F, @ as %40, ? as %3F")
        servers = tuple(_server(url, scheme, host) for host in hosts.removesuffix("/").split(","))
        address = cls(servers, scheme == "tls")
        if mark:
            address = address._with(url, query)
        if not at:
            return address
        if address.credentials or address.nkey:
            raise _wrong(url, "credentials and nkey say who we are: leave out what stands before the @")
        name, colon, password = userinfo.partition(":")
        if colon:
            return address._replace(user=unquote(name), password=unquote(password))
        return address._replace(token=unquote(name))

    def _with(self, url: str, query: str) -> "NatsAddress":
        options: dict[str, str] = {}
        for option in query.split("&"):
            name, _, value = option.partition("=")
            if name not in _OPTIONS or name in options or not value:
                raise _wrong(url, f"its options are {', '.join(f'{known}=...' for known in _OPTIONS)}, each once")
            options[name] = unquote(value)
        replicas = options.pop("replicas", None)
        if replicas is not None and not (len(replicas) == 1 and replicas in "12345"):
            raise _wrong(url, f"replicas is a number from 1 to {MAX_REPLICAS}, 3 in a cluster of three")
        if "ca" in options and not self.encrypted:
            raise _wrong(url, "ca is for tls://")
        if len(options.keys() & {"credentials", "nkey"}) > 1:
            raise _wrong(url, "give credentials or nkey, not both")
        return self._replace(
            replicas=None if replicas is None else int(replicas),
            ca=options.get("ca"),
            credentials=options.get("credentials"),
            nkey=options.get("nkey"),
        )


def _server(url: str, scheme: str, host: str) -> str:
    try:
        parts = urlsplit(f"{scheme}://{host}")
        port = PORT if parts.port is None else parts.port
    except ValueError:  # its text may repeat what it could not read
        raise _wrong(url, "a port is a number up to 65535, an IPv6 address stands in brackets") from None
    if not parts.hostname or not port or parts.netloc != host:
        raise _wrong(url, "write nats://host:4222, several hosts separated by commas")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme}://{name}:{port}"


def _wrong(url: str, remedy: str) -> ConfigError:
    return ConfigError(f"broker = {without_secrets(url)!r} is no address of NATS: {remedy}")
