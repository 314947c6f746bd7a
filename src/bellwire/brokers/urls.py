"""Which broker an address means."""

from collections.abc import Callable, Mapping
from typing import Final

from bellwire.brokers.base import Broker
from bellwire.brokers.memory import MemoryBroker
from bellwire.core.counters import Counters
from bellwire.core.errors import ConfigError
from bellwire.core.redaction import without_secrets
from bellwire.delivery.log import DEFAULT_LIMITS, Limits

MISSING_NATS: Final = "a broker at nats:// or tls:// needs the NATS client: pip install 'bellwire[nats]'"
MISSING_REDIS: Final = "a broker at redis:// or rediss:// needs a parser: pip install 'bellwire[redis]'"


PREFIX: Final = "bellwire"
"""What keys, streams and subjects begin with if nothing else is said."""


def make_broker(url: str, limits: Limits | None, counters: Counters, *, prefix: str = PREFIX) -> Broker:
    """Return the broker at ``url``, not started: this touches neither the network nor an event loop.

    ``prefix`` keeps applications apart that share a broker. Without ``limits`` it leaves those of the servers as they
    are, and is to be told them (`Broker.limit`).

    ``memory://`` is this process, ``nats://host:4222,host:4222`` and ``tls://...`` are NATS with JetStream,
    ``redis://host:6379/0`` and ``rediss://...`` are Redis or Valkey.

    Raises:
        ConfigError: there is no such broker, the address is not well-formed, or a package is missing; the message
            shows the address without user, password and token.

    """
    scheme, mark, rest = url.partition("://")
    make = _BROKERS.get(scheme) if mark else None
    if make is None or (scheme == "memory" and rest):
        known = (
            "memory:// (this process), nats://host:4222 and tls://host:4222 (NATS with JetStream), redis://host:6379 "
            "and rediss://host:6379 (Redis, Valkey)"
        )
        raise ConfigError(f"broker = {without_secrets(url)!r} is none: there are {known}")
    return make(url, limits, counters, prefix)


def _memory(url: str, limits: Limits | None, counters: Counters, prefix: str) -> Broker:
    return MemoryBroker(limits or DEFAULT_LIMITS)


def _nats(url: str, limits: Limits | None, counters: Counters, prefix: str) -> Broker:
    from bellwire.brokers.nats_address import NatsAddress

    NatsAddress.parse(url)
    try:
        from nats.aio.client import Client  # noqa: F401
    except ImportError:
        raise ConfigError(MISSING_NATS) from None
    from bellwire.brokers.nats import NatsBroker

    return NatsBroker(url, limits, prefix=prefix, counters=counters)


def _redis(url: str, limits: Limits | None, counters: Counters, prefix: str) -> Broker:
    from bellwire.brokers.redis_address import RedisAddress

    RedisAddress.parse(url)
    try:
        import hiredis  # noqa: F401
    except ImportError:
        raise ConfigError(MISSING_REDIS) from None
    from bellwire.brokers.redis import RedisBroker

    return RedisBroker(url, limits or DEFAULT_LIMITS, prefix=prefix, counters=counters)


_BROKERS: Final[Mapping[str, Callable[[str, Limits | None, Counters, str], Broker]]] = {
    "memory": _memory,
    "nats": _nats,
    "tls": _nats,
    "redis": _redis,
    "rediss": _redis,
}
