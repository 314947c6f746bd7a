"""The brokers that the guarantee is tried on, and what one server sees of them.

`Memory` is one broker in this process, with faults on request. `Data` is what ``--data DIR`` runs: a nats-server of
one's own, whose process can be killed and whose directory can be copied, restored and emptied.
"""

import asyncio
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from typing_extensions import override

from bellwire.brokers.base import Broker, Kept, Listener
from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.nats import PARTITIONS, NatsBroker
from bellwire.brokers.nats_link import Link, Message
from bellwire.brokers.nats_streams import ask_api, partition_name, place_of
from bellwire.brokers.private_nats import PrivateNats
from bellwire.core.errors import BrokerUnavailable
from bellwire.delivery.answer import PAGE_BYTES, PAGE_MESSAGES, Answer, Unproved
from bellwire.delivery.entry import Draft, Entry
from bellwire.delivery.log import Appended, Limits
from bellwire.delivery.position import Position
from bellwire.testing.clock import VirtualClockLoop, advance

T = TypeVar("T")


class Ear:
    """Stands between a broker and one listener of one server, and ends with the server."""

    def __init__(self, broker: "NodeBroker", listener: Listener) -> None:
        self._broker = broker
        self._listener = listener

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        if self._broker.losing[stream]:
            self._broker.losing[stream] -= 1
        elif not self._broker.dead:
            self._listener.entry(stream, gen, entry)

    def volatile(self, stream: str, body: bytes) -> None:
        if not self._broker.dead:
            self._listener.volatile(stream, body)


class NodeBroker(Broker):
    """A broker as one server has it.

    Once that server is dead it hears of nothing, and whatever it asks for is never done and never answered; so what
    is left of it in this process cannot go on. ``trip`` is called before and after everything that is asked for, and
    may kill the server there. ``latency`` says how long each way takes.
    """

    def __init__(self, inner: Broker, *, shared: bool) -> None:
        self.inner = inner
        self.dead = False
        self.asked: Counter[str] = Counter()
        """How often each method was called."""
        self.losing: Counter[str] = Counter()
        """How many of the next live entries of a stream are lost on the way."""
        self.trip: Callable[[str], None] | None = None
        self.latency: Callable[[], float] | None = None
        self._shared = shared
        self._ears: dict[tuple[str, Listener], Ear] = {}

    def ear(self, stream: str) -> Ear:
        """Return what the broker tells of ``stream``, the only one there is here."""
        (ear,) = [ear for (name, _), ear in self._ears.items() if name == stream]
        return ear

    async def kill(self) -> None:
        """The server is dead: its connections to the broker end."""
        self.dead = True
        await self._let_go()

    async def _let_go(self) -> None:
        ears, self._ears = self._ears, {}
        if not self._shared:
            await self.inner.close()
            return
        for (stream, _), ear in ears.items():
            while True:
                try:
                    await self.inner.unsubscribe(stream, ear)
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0.1)

    async def _through(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.asked[name] += 1
        await self._way(f"before {name}")
        try:
            answer = await call()
        except Exception:
            if self.dead:
                await _for_ever()
            raise
        await self._way(f"after {name}")
        return answer

    async def _way(self, where: str) -> None:
        if self.latency is not None:
            await asyncio.sleep(self.latency())
        if self.trip is not None and not self.dead:
            self.trip(where)
        if self.dead:
            await _for_ever()

    @override
    async def start(self) -> None:
        await self.inner.start()

    @override
    async def close(self) -> None:
        if not self.dead:
            await self._let_go()

    @override
    def clock(self) -> float:
        return self.inner.clock()

    @override
    def limit(self, limits: Limits) -> None:
        self.inner.limit(limits)

    @override
    async def append(self, stream: str, draft: Draft, *, deadline: float | None = None) -> Appended:
        return await self._through("append", lambda: self.inner.append(stream, draft, deadline=deadline))

    @override
    async def read(
        self,
        stream: str,
        after: Position,
        *,
        messages: int = PAGE_MESSAGES,
        size: int = PAGE_BYTES,
        confirmed: bool = False,
    ) -> Answer:
        return await self._through(
            "read", lambda: self.inner.read(stream, after, messages=messages, size=size, confirmed=confirmed)
        )

    @override
    async def top(self, stream: str) -> Position:
        return await self._through("top", lambda: self.inner.top(stream))

    @override
    async def forget(self, stream: str) -> None:
        await self._through("forget", lambda: self.inner.forget(stream))

    @override
    async def subscribe(self, stream: str, listener: Listener, *, new: bool = False) -> None:
        ear = self._ears.setdefault((stream, listener), Ear(self, listener))
        await self._through("subscribe", lambda: self.inner.subscribe(stream, ear, new=new))

    @override
    async def unsubscribe(self, stream: str, listener: Listener) -> None:
        ear = self._ears.pop((stream, listener), None)
        if ear is not None:
            await self._through("unsubscribe", lambda: self.inner.unsubscribe(stream, ear))

    @override
    async def publish(self, stream: str, body: bytes) -> None:
        await self._through("publish", lambda: self.inner.publish(stream, body))

    @override
    def has_log(self, stream: str) -> bool:
        return self.inner.has_log(stream)

    @override
    def generation(self) -> str:
        return self.inner.generation()

    @override
    async def get(self, key: str) -> Kept | None:
        return await self._through("get", lambda: self.inner.get(key))

    @override
    async def put(self, key: str, value: bytes, *, expected: int | None = None, ttl: float | None = None) -> int | None:
        return await self._through("put", lambda: self.inner.put(key, value, expected=expected, ttl=ttl))

    @override
    async def delete(self, key: str, *, expected: int | None = None) -> bool:
        return await self._through("delete", lambda: self.inner.delete(key, expected=expected))


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


class Backend(ABC):
    """A broker that servers connect to, and that stays when they die."""

    ahead = 0.0
    """By how many seconds its clock is ahead, as all servers see it."""

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def connect(self) -> NodeBroker:
        """Return the broker of one more server."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let the broker's clock go on, as all servers see it."""

    @abstractmethod
    async def history(self, stream: str) -> list[Entry]:
        """Return all entries that the log of ``stream`` holds now."""

    @abstractmethod
    async def expire(self, key: str) -> None:
        """Remove a key, as its time to live does."""


async def history(broker: Broker, stream: str) -> list[Entry]:
    """Read a log from where it begins."""
    after = (await broker.top(stream))._replace(seq=0, tag=0)
    answer = await broker.read(stream, after, confirmed=True)
    if isinstance(answer, Unproved):
        answer = await broker.read(stream, after := answer.restart, confirmed=True)
    assert not isinstance(answer, Unproved)
    entries = [*answer.entries]
    while answer.more:
        answer = await broker.read(stream, Position(after.gen, *entries[-1].point), confirmed=True)
        assert not isinstance(answer, Unproved)
        entries += answer.entries
    return entries


class _Recording(MemoryBroker):
    """Remembers everything that was ever appended."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(limits, clock=clock)
        self.appended: dict[str, list[Entry]] = {}

    @override
    def has_log(self, stream: str) -> bool:
        return stream in self.appended  # though all of it may have been taken back

    @override
    def _tell(self, stream: str, gen: str, entry: Entry) -> None:
        self.appended.setdefault(stream, []).append(entry)
        super()._tell(stream, gen, entry)


class Memory(Backend):
    """One `MemoryBroker` for all servers; on the virtual clock."""

    def __init__(self, limits: Limits) -> None:
        self.broker = _Recording(limits, lambda: asyncio.get_running_loop().time() + self.ahead)
        self.faults = self.broker.faults

    def appended(self, stream: str) -> list[Entry]:
        """Return what was ever appended to ``stream``, what was lost since included."""
        return self.broker.appended.get(stream, [])

    @override
    async def start(self) -> None:
        await self.broker.start()

    @override
    async def close(self) -> None:
        await self.broker.close()

    @override
    def connect(self) -> NodeBroker:
        return NodeBroker(self.broker, shared=True)

    @override
    async def pass_time(self, seconds: float) -> None:
        await advance(seconds)

    @override
    async def history(self, stream: str) -> list[Entry]:
        return await history(self.broker, stream)

    @override
    async def expire(self, key: str) -> None:
        assert await self.broker.delete(key)


class _Ahead(NatsBroker):
    """A broker whose clock is ahead of the nats-server's."""

    def __init__(self, url: Callable[[], str], ahead: Callable[[], float], limits: Limits) -> None:
        self._ahead = ahead
        super().__init__(url, limits)

    @override
    def clock(self) -> float:
        return super().clock() + self._ahead()


class Snapshot(NamedTuple):
    """A JetStream stream as it was (nats.docs, "JetStream wire API": STREAM.SNAPSHOT and STREAM.RESTORE)."""

    name: str
    config: dict[str, Any]
    state: dict[str, Any]
    chunks: list[bytes]

    @classmethod
    async def take(cls, link: Link, name: str) -> "Snapshot":
        chunks: list[bytes] = []
        done = asyncio.Event()

        def chunk(_subject: str, message: Message) -> None:
            if message.data:
                chunks.append(message.data)
            else:
                done.set()

        inbox = f"snapshot.{name}"
        subscription = await link.subscribe(inbox, chunk)
        answer = await ask_api(link, f"STREAM.SNAPSHOT.{name}", {"deliver_subject": inbox, "no_consumers": True})
        async with asyncio.timeout(10):
            await done.wait()
        await link.unsubscribe(subscription)
        return cls(name, answer["config"], answer["state"], chunks)

    async def restore(self, link: Link) -> None:
        request = {"config": self.config, "state": self.state}
        answer = await ask_api(link, f"STREAM.RESTORE.{self.name}", request)
        for chunk in self.chunks:
            await link.ask(answer["deliver_subject"], chunk)
        last = await link.ask(answer["deliver_subject"], b"")
        assert b'"error"' not in last.data, last.data


class Data(Backend):
    """What runs behind ``--data DIR``; each server has a connection of its own to the same nats-server."""

    def __init__(self, limits: Limits, folder: Path) -> None:
        self._folder = folder
        self._copy = folder.with_name(folder.name + ".copy")
        self._limits = limits
        self._private = PrivateNats(folder)
        self.broker = self._broker()
        """A connection of the tests' own."""

    def _broker(self) -> NatsBroker:
        return _Ahead(lambda: self._private.url, lambda: self.ahead, self._limits)

    @override
    async def start(self) -> None:
        await self._private.start()
        await self.broker.start()

    @override
    async def close(self) -> None:
        await self.broker.close()
        await self._private.close()

    @override
    def connect(self) -> NodeBroker:
        return NodeBroker(self._broker(), shared=False)

    @override
    async def pass_time(self, seconds: float) -> None:
        self.ahead += seconds

    @override
    async def history(self, stream: str) -> list[Entry]:
        return await self._patiently(lambda: history(self.broker, stream))

    @override
    async def expire(self, key: str) -> None:
        assert await self._patiently(lambda: self.broker.delete(key))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        async with asyncio.timeout(10):
            while True:
                try:
                    return await call()
                except BrokerUnavailable:
                    await asyncio.sleep(0.02)

    # --- what happens to it

    async def wipe(self, stream: str) -> None:
        """Remove the JetStream stream that a stream lies in."""
        name = partition_name("bellwire", place_of(stream, PARTITIONS).partition)
        await ask_api(await self.broker._next_link(), f"STREAM.DELETE.{name}")

    async def snapshot(self, stream: str) -> "Snapshot":
        """Take a snapshot of the JetStream stream that a stream lies in, as ``nats stream backup`` does."""
        name = partition_name("bellwire", place_of(stream, PARTITIONS).partition)
        return await Snapshot.take(await self.broker._next_link(), name)

    async def put_back(self, snapshot: "Snapshot") -> None:
        """Replace a JetStream stream by what it was, while all stay connected, as ``nats stream restore`` does."""
        link = Link()
        await link.open(self._private.url)
        assert "error" not in await ask_api(link, f"STREAM.DELETE.{snapshot.name}")
        await snapshot.restore(link)
        await link.close()

    async def unsubscribe(self, node: NodeBroker, stream: str) -> None:
        """End the subscription of one server to a stream; it does not know."""
        broker = node.inner
        assert isinstance(broker, NatsBroker)
        subscription = broker._lives[stream].subscription
        assert subscription is not None
        await (await broker._next_link()).unsubscribe(subscription)

    async def kill(self) -> None:
        """Kill the nats-server as a crash does; it is started again by itself."""
        pid = self._private.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while self._private.pid in (pid, None):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)

    def freeze(self) -> None:
        """Let it stand still: connections stay open, and nothing is answered."""
        assert self._private.pid is not None
        os.kill(self._private.pid, signal.SIGSTOP)

    async def back_up(self) -> None:
        """Copy the directory as it is now."""
        await self._stopped(lambda: shutil.copytree(self._folder, self._copy))

    async def restore(self) -> None:
        """Go back to the copy, as somebody does who restores a backup."""
        await self._stopped(self._put_back)

    def _put_back(self) -> None:
        shutil.rmtree(self._folder)
        shutil.copytree(self._copy, self._folder)

    async def _stopped(self, change: Callable[[], Any]) -> None:
        await self._private.close()
        await asyncio.to_thread(change)
        self._private = PrivateNats(self._folder)
        await self._private.start()


def is_virtual() -> bool:
    """Whether the running loop has the virtual clock."""
    return isinstance(asyncio.get_running_loop(), VirtualClockLoop)
