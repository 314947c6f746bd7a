"""What a NATS server must have before anything is kept there, and what is said if it does not.

All of it is the operator's to change, so it ends a start as a `ConfigError`; what passes by itself is no fault here.
"""

from collections.abc import Iterable
from typing import Any, Final

from bellwire.core.errors import BrokerUnavailable, ConfigError

OLDEST: Final = (2, 12)
"""The first nats-server that is known to keep what `NatsBroker` needs."""

NOT_FOR_ACCOUNT: Final = 10039
"""JetStream's code for an account that it is not enabled for."""

_TOO_FEW_PEERS: Final = (10005, 10074)
"""JetStream's codes for more replicas than there are servers, and than a server alone can have."""

_OFFLINE: Final = "peer offline"
"""What it says beside the first of them if there would be enough, and one is away for now."""


def check_version(version: str) -> None:
    """Check the version that a server says it has. Raises `ConfigError`."""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()) or (int(parts[0]), int(parts[1])) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ConfigError(f"this nats-server has version {version!r}: {wanted} or newer is needed")


def missing_jetstream() -> ConfigError:
    """Return what is said where nobody answers to JetStream's API."""
    return ConfigError(
        "this NATS has no JetStream: write jetstream {} into the configuration of nats-server, or start it with -js"
    )


def denied(what: str) -> ConfigError:
    """Return what is said where the server lets us not publish or subscribe."""
    return ConfigError(
        f"NATS refuses {what}: give this user the permissions that are listed in Bellwire's documentation, "
        '"Run on a NATS cluster"'
    )


def check_account(answer: dict[str, Any]) -> None:
    """Check JetStream's answer to ``INFO``.

    Raises:
        ConfigError: it is not enabled for our account.
        BrokerUnavailable: it takes no requests at the moment, as in a cluster that has no majority.

    """
    error = answer.get("error")
    if error is None:
        return
    if error.get("err_code") == NOT_FOR_ACCOUNT:
        raise ConfigError("JetStream is not enabled for this account of NATS: enable it there, with jetstream: enabled")
    raise BrokerUnavailable(f"JetStream takes no requests: {error.get('description')}")


def check_replicas(infos: Iterable[dict[str, Any]], wanted: int | None) -> bool:
    """Return whether any of these JetStream streams has replicas; ``wanted`` is how many each must have, if any.

    Raises:
        ConfigError: one has another number.

    """
    found = {str(info["config"]["name"]): int(info["config"].get("num_replicas", 1)) for info in infos}
    others = sorted(name for name, replicas in found.items() if wanted not in (None, replicas))
    if others:
        raise ConfigError(
            f"broker: replicas={wanted} is asked for, and {others[0]} has {found[others[0]]}: change all of them while "
            f"nobody is served, with nats stream edit --replicas={wanted} {' '.join(others)} (one at a time), or ask "
            f"for replicas={found[others[0]]}"
        )
    return any(replicas > 1 for replicas in found.values())


def refused(name: str, error: dict[str, Any], replicas: int | None) -> Exception:
    """Return what is said of a stream that JetStream does not make or change."""
    description = str(error.get("description", ""))
    if error.get("err_code") in _TOO_FEW_PEERS and (replicas or 1) > 1 and _OFFLINE not in description:
        return ConfigError(
            f"JetStream cannot keep {replicas} replicas of {name} ({description}): replicas={replicas} needs a cluster "
            f"of at least {replicas} servers with JetStream"
        )
    return BrokerUnavailable(f"JetStream refused the stream {name}: {description}")
