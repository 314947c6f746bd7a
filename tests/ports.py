"""Ports for servers that must know theirs before they start, or keep it over restarts."""

import random
import socket
from pathlib import Path
from typing import Final


def _first_of_connections() -> int:
    """The lowest port that the kernel gives to connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 49_152  # RFC 6335 section 6; as on macOS


_LOWEST: Final = 10_000
_END: Final = max(_first_of_connections(), _LOWEST + 1_000)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no connection can be given meanwhile.

    The kernel gives connections ports from a range of its own: one from there may be in use when its server starts.
    """
    for port in random.sample(range(_LOWEST, _END), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not matter
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("of 100 ports not one is free")
