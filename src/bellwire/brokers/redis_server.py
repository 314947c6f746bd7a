"""Whether a server can carry the guarantee: its version, and what it does when its memory is full."""

import logging
import re
from typing import Final

from bellwire.brokers.redis_link import Link, Refused
from bellwire.core.errors import BrokerUnavailable, ConfigError

OLDEST: Final = (7, 0)
"""The first version with sharded channels. Valkey tells 7.2 under this name, whatever its own version."""

_KEEPS_ALL: Final = "noeviction"

logger = logging.getLogger("bellwire.brokers")


async def check_server(link: Link, *, in_cluster: bool) -> None:
    """Ask the server what it is; ``in_cluster`` says whether it has told who holds which slot.

    A user without the right to ask is told that nothing was checked.

    Raises:
        ConfigError: it cannot be used; the message says what to set.
        BrokerUnavailable: it is a replica.
        Unanswered, Refused: as `Link.ask` does.

    """
    try:
        info = _parsed(await link.ask("INFO"))
    except Refused as error:
        if error.code != "NOPERM":
            raise
        logger.warning("The user may not ask Redis for INFO: failovers are found by the chain of messages alone, and "
                       "whether maxmemory-policy is noeviction was not checked")  # fmt: skip
        return
    version = info.get("redis_version", "0.0")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise ConfigError(f"the Redis server has version {version}: 7.0 or newer is needed, or Valkey")
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")) and not in_cluster:
        raise ConfigError("the Redis server is a node of a cluster; allow the user to ask it for CLUSTER SLOTS")
    policy = info.get("maxmemory_policy", _KEEPS_ALL)
    if policy != _KEEPS_ALL:
        raise ConfigError(
            f"the Redis server has maxmemory-policy {policy}, and would silently throw away messages and sessions when "
            "its memory is full: set it to noeviction, so that it refuses new ones instead"
        )
    if info.get("role", "master") != "master":
        raise BrokerUnavailable("the Redis server is a replica")


def _parsed(answer: bytes) -> dict[str, str]:
    lines = answer.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}
