"""A proxy with a recipe's own file, in front of two nodes; only what the file's head calls yours is replaced."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import aiohttp
import trustme

from tests.interop.processes import ROOT, Lines, ServerProcess
from tests.ports import free_port

RECIPES: Final = ROOT / "deploy"

PATIENCE: Final = 25.0
"""Seconds for anything to happen."""

# Debian keeps them where a user's PATH does not look.
_PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

Nodes: TypeAlias = tuple[ServerProcess, ServerProcess]

HAPROXY: Final = shutil.which("haproxy", path=_PATH)
NGINX: Final = shutil.which("nginx", path=_PATH)


class Authority:
    """Who signs the certificates of these tests; clients must trust ``pem``."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost", "127.0.0.1")
        self.pem = folder / "authority.pem"
        self.chain = folder / "chain.pem"
        self.key = folder / "key.pem"
        self.both = folder / "both.pem"
        authority.cert_pem.write_to_path(str(self.pem))
        leaf.private_key_pem.write_to_path(str(self.key))
        self.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.both.write_bytes(self.chain.read_bytes() + self.key.read_bytes())


class Front(NamedTuple):
    """A running proxy; ``port`` has TLS, ``plain`` has not."""

    port: int
    plain: int
    nodes: Nodes
    authority: Authority
    file: Path
    process: subprocess.Popen[str]

    def rewrite(self, text: str, reload: signal.Signals) -> None:
        """Give it another file, to be read at once."""
        self.file.write_text(text)
        self.process.send_signal(reload)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ws(self) -> str:
        return f"wss://localhost:{self.port}/bellwire"

    def connector(self, address: str = "127.0.0.1") -> aiohttp.TCPConnector:
        """How aiohttp connects: trusting, and from an address of the loopback network."""
        context = ssl.create_default_context(cafile=self.authority.pem)
        return aiohttp.TCPConnector(ssl=context, local_addr=(address, 0), family=socket.AF_INET)

    async def where(self, address: str = "127.0.0.1") -> int:
        """The process that a client without a history is led to."""
        async with aiohttp.ClientSession(self.url, connector=self.connector(address)) as http:
            return await where(http)

    def node(self, pid: int) -> ServerProcess:
        """The node that this process is."""
        (found,) = [node for node in self.nodes if node.pid == pid]
        return found

    async def tell(self, command: str) -> str:
        """Ask HAProxy itself."""
        reader, writer = await asyncio.open_unix_connection(self.file.with_name("admin.sock"))
        writer.write(f"{command}\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return answer


async def where(http: aiohttp.ClientSession) -> int:
    """The process that answers."""
    async with http.get("/where") as answer:
        return int(await answer.text())


def render(recipe: str, changes: Mapping[str, str]) -> str:
    """A recipe with other addresses and paths; each that is replaced has to be there."""
    text = (RECIPES / recipe).read_text()
    for theirs, ours in changes.items():
        assert theirs in text, f"{recipe} has no {theirs!r}"
        text = text.replace(theirs, ours)
    return text


@contextmanager
def two_nodes(broker: str) -> Iterator[Nodes]:
    """Two processes that share a broker."""
    flags = "--broker", broker, "--connection-state-recovery", "--behind-proxy", "127.0.0.1"
    with ExitStack() as stack:
        yield stack.enter_context(_node(*flags)), stack.enter_context(_node(*flags))


@contextmanager
def _node(*flags: str) -> Iterator[ServerProcess]:
    process = ServerProcess(*flags, target="tests.deploy.application:server")
    try:
        yield process
    finally:
        output = process.end(signal.SIGTERM)
    assert "Traceback" not in output, output


@contextmanager
def haproxy(folder: Path, authority: Authority, nodes: Nodes, *more: tuple[str, str]) -> Iterator[Front]:
    """HAProxy with its recipe."""
    assert HAPROXY is not None
    port, plain, file = free_port(), free_port(), folder / "haproxy.cfg"
    changes = _addresses(nodes) | {
        "/run/haproxy/admin.sock": str(folder / "admin.sock"),
        "bind :80\n": f"bind 127.0.0.1:{plain}\n",
        "bind :443 ": f"bind 127.0.0.1:{port} ",
        "/etc/haproxy/chat.pem": str(authority.both),
        **dict(more),
    }
    if os.geteuid() != 0:
        changes |= {"    user haproxy\n": "", "    group haproxy\n": ""}
    file.write_text(render("haproxy/haproxy.cfg", changes))
    with _running([HAPROXY, "-W", "-db", "-f", str(file)], port) as process:
        yield Front(port, plain, nodes, authority, file, process)


@contextmanager
def nginx(folder: Path, authority: Authority, nodes: Nodes, *more: tuple[str, str]) -> Iterator[Front]:
    """The same for nginx."""
    assert NGINX is not None
    port, plain, file = free_port(), free_port(), folder / "nginx.conf"
    changes = _addresses(nodes) | {
        "/run/nginx.pid": str(folder / "nginx.pid"),
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/chat.pem": str(authority.chain),
        "/etc/ssl/chat.key": str(authority.key),
        **dict(more),
    }
    file.write_text(render("nginx/nginx.conf", changes))
    with _running([NGINX, "-e", "stderr", "-g", "daemon off;", "-c", str(file)], port) as process:
        yield Front(port, plain, nodes, authority, file, process)


def _addresses(nodes: Nodes) -> dict[str, str]:
    return {
        f"127.0.0.1:{port}": node.url.removeprefix("http://") for port, node in zip((8001, 8002), nodes, strict=True)
    }


@contextmanager
def _running(command: list[str], port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = Lines(process.stdout)
    try:
        until = time.monotonic() + PATIENCE
        while not _listens(port):
            assert process.poll() is None, "".join(output.seen)
            assert time.monotonic() < until, f"it does not listen: {''.join(output.seen)}"
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)
        output.join()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
