"""An upstream with its journal, the server that it talks to, and what was reported."""

import asyncio
from typing import Any

from bellwire import Event
from bellwire.client.codec import RawCodec
from bellwire.client.journal import Journal, MemoryJournal
from bellwire.client.reports import Failed
from bellwire.client.upstream import Upstream
from bellwire.core.counters import Counters
from bellwire.protocol import wire
from tests.client.desk import Desk, Line

SAY = Event("say", str)
ASK = Event("ask", str, reply=int)
TICK = Event("tick", str, volatile=True)


class Stage:
    """An upstream, its server, and what was reported."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = MemoryJournal() if journal is None else journal
        self.counters = Counters()
        self.failed: list[Failed] = []
        self.desk = Desk()
        self.up = self.begin()

    def begin(self) -> Upstream:
        """The program begins, or begins again with its journal."""
        self.up = Upstream(self.journal, RawCodec("/", wire.JSON), self.counters, self.failed.append)
        return self.up

    def join(self, *, plain: bool = False) -> Line:
        return Line(self.up, self.desk, plain=plain)

    def ask(self, text: str, timeout: float = 10) -> asyncio.Future[int]:
        return asyncio.ensure_future(self.up.call(ASK, (text,), timeout))

    @property
    def heard(self) -> list[Any]:
        return [text for _, text in self.desk.ran]
