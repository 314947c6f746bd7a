"""One of several processes that serve an application: ``python -m bellwire.cli.worker FD``.

The supervisor starts it, with one end of a socket as the descriptor FD. On it go lines, each of a few words::

    from the supervisor    the order, as JSON          at once
    to the supervisor      broker                      where is the private nats-server? Asked only if it is needed
    from the supervisor    nats://token@127.0.0.1:1    there, for as long as the supervisor lives
    to the supervisor      serving http://0.0.0.0:1    it listens, there

Tokens pass there and not on a command line or in the environment, where others could see them.
"""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from bellwire.core.errors import BrokerUnavailable

BROKER: Final = "broker"
SERVING: Final = "serving"

_MOST: Final = 65_536


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to serve; the fields are the options of ``bellwire run``."""

    target: str
    host: str
    port: int
    data: Path | None
    log_level: str
    toml: Path | None
    flags: dict[str, Any]
    worker: str = ""
    """The name of the worker."""

    def encode(self) -> bytes:
        """Return it as a line."""
        return msgspec.json.encode(self, enc_hook=str) + b"\n"


class SupervisorLink:
    """The worker's end of the socket: a `bellwire.cli.serve.Supervisor`."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""
        self._url = ""
        while b"\n" not in self._buffer:
            self._take(end.recv(_MOST))
        self.order = msgspec.json.decode(self._line(), type=Order, dec_hook=lambda kind, value: kind(value))
        """What to serve."""
        end.setblocking(False)

    @property
    def worker(self) -> str:
        """The name of this process."""
        return self.order.worker

    async def start(self) -> None:
        """Ask for the private nats-server, and return when it is known.

        Raises:
            BrokerUnavailable: the supervisor has gone, and this process is about to.

        """
        self._tell(BROKER)
        while b"\n" not in self._buffer:
            self._take(await asyncio.get_running_loop().sock_recv(self._socket, _MOST))
        self._url = self._line().decode()

    @property
    def url(self) -> str:
        """The address of the private nats-server, once it is known."""
        return self._url

    async def close(self) -> None:
        """Leave the nats-server to the others."""

    def serving(self, url: str) -> None:
        """Say that this process listens, and where."""
        self._tell(f"{SERVING} {url}")

    def _tell(self, words: str) -> None:
        self._socket.sendall(f"{words}\n".encode())

    def _take(self, data: bytes) -> None:
        if not data:
            raise BrokerUnavailable("the supervisor of the workers has gone")
        self._buffer += data

    def _line(self) -> bytes:
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@click.command("worker")
@click.argument("descriptor", type=int)
def command(descriptor: int) -> None:
    """Serve as the supervisor orders; for the supervisor only."""
    os.set_inheritable(descriptor, False)  # no program that the application starts is to keep the socket open
    link = SupervisorLink(socket.socket(fileno=descriptor))
    order = link.order

    from bellwire.cli.loading import load_server
    from bellwire.cli.serve import serve

    serve(
        load_server(order.target),
        host=order.host,
        port=order.port,
        toml=order.toml,
        flags=order.flags,
        data=order.data,
        log_level=order.log_level,
        supervisor=link,
        ready=link.serving,
    )


if __name__ == "__main__":
    command(prog_name="bellwire run")
