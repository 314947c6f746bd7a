"""Where Redis is: ``redis://[[user]:password@]host[:port][/database]``, or ``rediss://`` of the same form.

Several hosts, separated by commas, are nodes of one Redis Cluster; a single one may be such a node as well. With
``?sentinel=name`` the hosts are Sentinels that know where the master of that name is; user, password and database are
the master's.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from bellwire.core.errors import ConfigError
from bellwire.core.redaction import without_secrets

PORT: Final = 6379
"""The port that Redis and Valkey listen on unless they are told another one."""

SENTINEL_PORT: Final = 26379
"""The same for Sentinel."""

_SCHEMES: Final = ("redis", "rediss")
_SENTINEL: Final = "sentinel="


class RedisAddress(NamedTuple):
    """One server, and who we are to it: a user with a password, the default user with one, or nobody.

    ``others`` are nodes of the same cluster. With ``sentinels`` the server is the one that they name as the master of
    ``service``, and ``host`` is empty.
    """

    host: str
    port: int
    encrypted: bool
    """Whether nothing may be sent before TLS is there."""
    user: str | None = None
    password: str | None = None
    database: int = 0
    others: tuple[tuple[str, int], ...] = ()
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Read an address; user and password are percent-encoded (RFC 3986 section 3.2.1).

        Raises:
            ConfigError: it is none; the message shows it without its secrets.

        """
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES:
            raise _wrong(url, "it begins with redis:// or rediss://")
        userinfo, at, place = rest.rpartition("@")
        if any(delimiter in userinfo for delimiter in "/?#@,"):
            raise _wrong(url, "write user and password once, before the host, with / as %2F, @ as %40")
        name, colon, password = userinfo.partition(":")
        if at and not (colon and password):
            raise _wrong(url, "a password stands behind a colon: redis://:password@host, redis://user:password@host")
        address = _place(url, place)._replace(encrypted=scheme == "rediss")
        return address._replace(user=unquote(name) or None, password=unquote(password)) if at else address


def _place(url: str, text: str) -> RedisAddress:
    place, mark, query = text.partition("?")
    hosts, _, path = place.partition("/")
    service = unquote(query.removeprefix(_SENTINEL))
    if mark and not (query.startswith(_SENTINEL) and service and "&" not in query):
        raise _wrong(
            url, "there is one option, ?sentinel=name, with the name that Sentinels know; a cluster needs none"
        )
    if path and not (path.isascii() and path.isdigit()):
        raise _wrong(url, "write redis://host:6379/0: a database is a number")
    first, *others = (_server(url, host, SENTINEL_PORT if mark else PORT) for host in hosts.split(","))
    database = int(path or "0")
    if mark:
        return RedisAddress("", 0, encrypted=False, database=database, sentinels=(first, *others), service=service)
    if others and database:
        raise _wrong(url, "several hosts are nodes of a cluster, which has no databases; leave the number away")
    return RedisAddress(*first, encrypted=False, database=database, others=tuple(others))


def _server(url: str, host: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"redis://{host}")
        port = default if parts.port is None else parts.port
    except ValueError:  # its text may repeat what it could not read
        raise _wrong(url, "a port is a number up to 65535, an IPv6 address stands in brackets") from None
    if not parts.hostname or not port or parts.netloc != host:
        raise _wrong(url, "write redis://host:6379 or redis://host:6379/0")
    return parts.hostname, port


def _wrong(url: str, remedy: str) -> ConfigError:
    return ConfigError(f"broker = {without_secrets(url)!r} is no address of Redis: {remedy}")
