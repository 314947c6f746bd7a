"""Where NATS is: ``nats://[user:password@|token@]host[:port][,host[:port] ...]``, or ``tls://`` of the same form."""

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from bellwire.core.errors import ConfigError
from bellwire.core.redaction import without_secrets

PORT: Final = 4222
"""The port that nats-server listens on unless it is told another one."""

_SCHEMES: Final = ("nats", "tls")


class NatsAddress(NamedTuple):
    """The servers of a cluster, and who we are to them: a user with a password, a token, or nobody."""

    servers: tuple[str, ...]
    """``scheme://host:port`` each, without userinfo."""
    encrypted: bool
    """Whether nothing may be sent before TLS is there."""
    user: str | None = None
    password: str | None = None
    token: str | None = None

    @classmethod
    def parse(cls, url: str) -> "NatsAddress":
        """Read an address; userinfo stands once, before the first host, percent-encoded (RFC 3986 section 3.2.1).

        Raises:
            ConfigError: it is none; the message shows it without its secrets.

        """
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES:
            raise _wrong(url, "it begins with nats:// or tls://")
        userinfo, at, hosts = rest.rpartition("@")
        if any(delimiter in userinfo for delimiter in "/?#@,"):
            raise _wrong(url, "write user and password once, before the first host, with / as %2F, @ as %40")
        servers = tuple(_server(url, scheme, host) for host in hosts.removesuffix("/").split(","))
        if not at:
            return cls(servers, scheme == "tls")
        name, colon, password = userinfo.partition(":")
        if colon:
            return cls(servers, scheme == "tls", user=unquote(name), password=unquote(password))
        return cls(servers, scheme == "tls", token=unquote(name))


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
