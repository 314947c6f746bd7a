"""Clients of every kind, of two processes at once, in one manner of speaking."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

import msgspec
import socketio

from bellwire import Client, Event
from tests.chaos.program import PATIENCE, Program, program
from tests.interop.instances import JOIN, ME, QUESTION, SAID, SHOWN, TICKED
from tests.interop.processes import ServerProcess, program_path
from tests.interop.test_python_socketio import new_client

NODE: Final = program_path("node") or "node"
LISTENER: Final = str(Path(__file__).parents[1] / "chaos" / "js" / "listener.js")

AnyEvent: TypeAlias = Event[Any, *tuple[Any, ...]]

HEARD: Final = (SAID, SHOWN, TICKED)


class Member(ABC):
    """A client; ``node`` is 0 or 1."""

    def __init__(self, kind: str, node: int) -> None:
        self.kind = kind
        self.node = node
        self.id = ""

    def __repr__(self) -> str:
        return f"{self.kind} on {'AB'[self.node]}"

    @abstractmethod
    async def ask(self, event: AnyEvent, *payload: Any) -> Any:
        """Emit, and return the answer."""

    @abstractmethod
    def heard(self, event: AnyEvent) -> list[Any]:
        """What came as one event: the payload, in a list where it has several parts."""

    @abstractmethod
    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until something is so that this client hears of."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether the server has disconnected it."""

    async def hears(self, event: AnyEvent, *payloads: Any) -> None:
        """Wait until it has heard as many; these must be all."""
        await self.count(event, len(payloads))
        assert self.heard(event) == [*payloads], self

    async def count(self, event: AnyEvent, count: int) -> None:
        """Wait until it has heard so many."""
        await self.until(lambda: len(self.heard(event)) >= count, f"{self!r}: {count} times {event.name!r}")

    async def ends(self) -> None:
        """Wait until the server has disconnected it."""
        await self.until(lambda: self.ended, f"the end of {self!r}")


class NodeMember(Member):
    """Stock socket.io-client."""

    def __init__(self, kind: str, node: int, running: Program) -> None:
        super().__init__(kind, node)
        self._program = running
        self._asked = 0

    async def ask(self, event: AnyEvent, *payload: Any) -> Any:
        self._asked += 1
        self._program.tell(json.dumps([event.name, *payload]))
        name, answer = (await self._program.hear("answer", self._asked))[-1]
        assert name == event.name
        return answer

    def heard(self, event: AnyEvent) -> list[Any]:
        return [_plain(args) for args in self._program.of(event.name)]

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        await self._program.until(reached, what)

    @property
    def ended(self) -> bool:
        return ["disconnect", "io server disconnect"] in self._program.said


class InProcess(Member):
    """A client in the process of the test."""

    def __init__(self, kind: str, node: int) -> None:
        super().__init__(kind, node)
        self._heard: dict[str, list[Any]] = {event.name: [] for event in HEARD}
        self._changed = asyncio.Event()

    def keep(self, name: str, *args: Any) -> None:
        self._heard[name].append(_plain([*args]))
        self.change()

    def change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def heard(self, event: AnyEvent) -> list[Any]:
        return self._heard[event.name]

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}; {self._heard}") from None


class PythonMember(InProcess):
    """The client of python-socketio."""

    def __init__(self, kind: str, node: int, client: socketio.AsyncClient) -> None:
        super().__init__(kind, node)
        self._client = client
        self._reasons: list[str] = []
        for event in HEARD:
            client.on(event.name, partial(self.keep, event.name))
        client.on("disconnect", self._disconnected)
        client.on(QUESTION.name, lambda: self.id)

    def _disconnected(self, reason: str) -> None:
        self._reasons.append(reason)
        self.change()

    async def ask(self, event: AnyEvent, *payload: Any) -> Any:
        return await self._client.call(event.name, tuple(payload), timeout=PATIENCE)

    @property
    def ended(self) -> bool:
        return self._reasons == ["server disconnect"]


class OwnMember(InProcess):
    """Bellwire's own client."""

    def __init__(self, kind: str, node: int, client: Client) -> None:
        super().__init__(kind, node)
        self._client = client
        client.on(SAID)(partial(self.keep, SAID.name))
        client.on(SHOWN)(partial(self.keep, SHOWN.name))
        client.on(TICKED)(partial(self.keep, TICKED.name))
        client.on(QUESTION)(self._answer)
        client.on_state(lambda state: self.change())

    async def _answer(self) -> str:
        return self.id

    async def ask(self, event: AnyEvent, *payload: Any) -> Any:
        return msgspec.to_builtins(await self._client.call(event, *payload, timeout=PATIENCE))

    @property
    def ended(self) -> bool:
        return self._client.state == "disconnected"


def _plain(args: list[Any]) -> Any:
    """The payload, with bytes as they are written down."""
    found = [arg["hex"] if isinstance(arg, dict) else arg.hex() if isinstance(arg, bytes) else arg for arg in args]
    return found[0] if len(found) == 1 else found


class Crowd:
    """All of them."""

    def __init__(self, urls: tuple[str, str], modules: Path, stack: AsyncExitStack) -> None:
        self.members: list[Member] = []
        self.room = str(uuid4())
        """Where everybody is."""
        self._urls = urls
        self._modules = modules
        self._stack = stack

    def on(self, node: int) -> list[Member]:
        return [member for member in self.members if member.node == node]

    async def node(self, transport: str, node: int) -> NodeMember:
        options = json.dumps({"transports": [transport], "auth": {"token": f"node {transport}"}})
        command = NODE, LISTENER, self._urls[node], options
        running = await self._stack.enter_async_context(program(*command, environ={"NODE_PATH": str(self._modules)}))
        await running.hear("connect", 1)
        return NodeMember(transport, node, running)

    async def python(self, node: int) -> PythonMember:
        client = await self._stack.enter_async_context(new_client(reconnection=False))
        member = PythonMember("python", node, client)
        await client.connect(
            self._urls[node], transports=["websocket"], auth={"token": "python"}, wait_timeout=int(PATIENCE)
        )
        return member

    async def own(self, wire: str, node: int) -> OwnMember:
        url = self._urls[node]
        url = url if wire == "http" else f"{url.replace('http', 'ws', 1)}/bellwire"
        client = Client(url, auth={"token": wire})
        member = OwnMember(wire, node, client)
        await self._stack.enter_async_context(client)
        return member

    async def enter(self, member: Member) -> None:
        member.id = await member.ask(ME)
        await member.ask(JOIN, self.room)
        self.members.append(member)


@asynccontextmanager
async def crowd(servers: tuple[ServerProcess, ServerProcess], modules: Path) -> AsyncIterator[Crowd]:
    """Ten clients: stock ones over long-polling and WebSocket, python-socketio, and Bellwire's own over both wires."""
    async with AsyncExitStack() as stack:
        made = Crowd((servers[0].url, servers[1].url), modules, stack)
        for node in (0, 1):
            for member in (
                await made.node("polling", node),
                await made.node("websocket", node),
                await made.python(node),
                await made.own("http", node),
                await made.own("ws", node),
            ):
                await made.enter(member)
        yield made
