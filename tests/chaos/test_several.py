"""Stock clients on several processes that die: workers of one machine, and servers behind a balancer that is no help.

Every client can recover, so each hears all that is said, once and in order, whatever dies; and what it says itself is
answered.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bellwire import Client
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer
from tests.chaos.application import ROOM, SAY
from tests.chaos.balancer import Balancer
from tests.chaos.program import PATIENCE, SCALE, Program, ServerProgram, program, serving
from tests.chaos.test_stock import LISTENER, NODE

pytestmark = [
    pytest.mark.node,
    pytest.mark.bellwire(clock="real"),
    pytest.mark.timeout(120 * SCALE),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers need Linux"),
]

TRANSPORTS = (["websocket"], ["polling"], ["polling", "websocket"])
RECOVERY = "--connection-state-recovery"


class Crowd:
    """Stock clients of every transport, and a client that says something to them."""

    def __init__(self, clients: list[Program], speaker: Client) -> None:
        self.clients = clients
        self._speaker = speaker
        self._said: list[str] = []

    async def say(self, *texts: str) -> None:
        for text in texts:
            assert await self._speaker.call(SAY, [ROOM], text, timeout=PATIENCE)
            self._said.append(text)

    async def hears_all(self) -> None:
        """Wait until each client has heard all that was said: once and in order, without having begun anew."""
        for client in self.clients:
            heard = await client.hear("said", len(self._said), 2 * PATIENCE)
            assert [text for text, _ in heard] == self._said
            (first, _), *later = client.of("connect")
            assert all([sid, recovered] == [first, True] for sid, recovered in later), client.said

    async def says(self, text: str) -> None:
        """Let each client say something, and wait for its answer."""
        counts = [len(client.of("answer")) for client in self.clients]
        for number, (client, count) in enumerate(zip(self.clients, counts, strict=True)):
            own = f"{text} {number}"
            client.tell(f'["say", ["{ROOM}"], "{own}"]')
            await client.hear("answer", count + 1, 2 * PATIENCE)
            self._said.append(own)
        await self.hears_all()


@asynccontextmanager
async def crowd(url: str, modules: Path, size: int) -> AsyncIterator[Crowd]:
    options = '{"transports": ["%s"], "auth": {"rooms": []}}'
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                program(
                    NODE,
                    LISTENER,
                    url,
                    options % '", "'.join(TRANSPORTS[number % len(TRANSPORTS)]),
                    environ={"NODE_PATH": str(modules)},
                )
            )
            for number in range(size)
        ]
        for client in clients:
            await client.hear("connect", 1)
        yield Crowd(clients, await stack.enter_async_context(Client(url)))


def workers_of(server: ServerProgram) -> list[int]:
    """The processes of the workers, in the order in which they were started."""
    pid = server._program.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"bellwire.cli.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


async def test_workers_that_are_killed_one_after_the_other(node_modules: Path) -> None:
    async with serving("--workers", "2", RECOVERY) as server, crowd(server.url, node_modules, 9) as everybody:
        await everybody.says("before")
        for life in range(2):
            victim = (await asyncio.to_thread(workers_of, server))[0]
            await everybody.say(*[f"{life} while all are there {n}" for n in range(5)])
            os.kill(victim, signal.SIGKILL)
            await everybody.say(*[f"{life} while one is dead {n}" for n in range(20)])
            await everybody.hears_all()
            again = f"(process {victim}) was killed by SIGKILL: it is started again"
            assert again in server._program.errors
            await server._program.until(lambda: server._program.errors.count("serves again") > life, "a new one")  # noqa: B023 - it is over before the next
            await everybody.says(f"{life} after all")


@pytest.fixture(params=[NatsServer, RedisServer])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a broker that two servers share."""
    running: NatsServer | RedisServer = request.param(tmp_path)
    try:
        yield running.url
    finally:
        running.kill()


async def test_two_servers_behind_a_balancer_that_keeps_nobody_where_he_is(node_modules: Path, broker: str) -> None:
    async with (
        serving("--broker", broker, RECOVERY) as one,
        serving("--broker", broker, RECOVERY) as other,
        Balancer(one.port, other.port) as balancer,
        crowd(f"http://127.0.0.1:{balancer.port}", node_modules, 9) as everybody,
    ):
        await everybody.says("before")
        await everybody.say(*[f"live {n}" for n in range(20)])
        await everybody.says("é" * 20_000)
        await one.kill()
        await everybody.say(*[f"while one is dead {n}" for n in range(20)])
        await everybody.hears_all()
        await one.start()
        await everybody.says("after all")
        assert balancer.requests > 100
