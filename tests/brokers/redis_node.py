"""What a server does with one stream, for one member."""

import asyncio
from collections.abc import Sequence

from bellwire.brokers.base import Broker
from bellwire.delivery.answer import Answer
from bellwire.delivery.entry import Entry
from bellwire.delivery.feed import Cast, Feed, Output, Own, Told
from bellwire.delivery.position import Position
from tests.brokers.redis_server import again


class Node:
    """Serves one stream to one member, as a server does, and keeps what the member is told."""

    def __init__(self, broker: Broker, stream: str) -> None:
        self.told: list[str] = []
        self._broker = broker
        self._stream = stream
        self._feed: Feed[str] = Feed(lambda entry: (), lambda _: None)
        self._came = asyncio.Event()

    async def open(self) -> None:
        await self._broker.subscribe(self._stream, self)
        self._take(self._feed.opened(await self._broker.top(self._stream)))
        self._feed.join("member")

    def entry(self, stream: str, gen: str, entry: Entry) -> None:
        self._take(self._feed.live(gen, entry))
        self._came.set()

    def volatile(self, stream: str, body: bytes) -> None:
        raise AssertionError("nobody sends that")

    async def until(self, mid: str, seconds: float = 5) -> list[str]:
        """Repair what is missing, and return what the member was told when that includes ``mid``."""
        async with asyncio.timeout(seconds):
            while mid not in self.told:
                self._came.clear()
                while (question := self._feed.question) is not None:
                    self._take(self._feed.answered(await self._read(question)))
                if mid not in self.told:
                    await self._came.wait()
        return self.told

    async def _read(self, question: Position) -> Answer:
        answer: Answer = await again(lambda: self._broker.read(self._stream, question, confirmed=True), seconds=30)
        return answer

    def _take(self, outputs: Sequence[Output[str]]) -> None:
        for output in outputs:
            match output:
                case Cast() | Own():
                    self.told.append(output.entry.mid)
                case Told():
                    self.told.append(f"[{output.reason}]")
