"""What a session is to the server, whichever protocol its client speaks."""

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from bellwire.protocol.outgoing import Message
from bellwire.transports.base import NO_RECEIVER, Carrier, Receiver, Request

if TYPE_CHECKING:
    from bellwire.transports.engine import Engine


class BaseSession(ABC):
    """One client, reached by the carrier of the moment: the link of its carriers, and its receiver's way back."""

    __slots__ = (
        "_congested",
        "_engine",
        "_questions",
        "alive",
        "carrier",
        "closed",
        "missed",
        "newcomer",
        "overflowed",
        "paused",
        "receiver",
        "request",
    )

    receiver: Receiver

    def __init__(self, engine: "Engine", carrier: Carrier, request: Request) -> None:
        self.request = request
        """The HTTP request that opened it."""
        self.carrier = carrier
        """What reaches the client at the moment."""
        self.alive = True
        """Whether a byte came from the client since the last ping."""
        self.missed = 0
        """Pings in a row that were not answered in time."""
        self.newcomer = True
        """Whether it counts among those that have not joined a namespace yet."""
        self.closed = False
        """Whether it has ended, or is ending: nothing is received any more."""
        self.overflowed = False
        """Whether more was sent than the client may leave unread; the session is about to end."""
        self.paused = False
        """Whether the client is made to wait, since its events come faster than they are handled."""
        self._engine = engine
        self._congested = False
        self._questions: list[asyncio.Future[bool]] | None = None

    # --- from the carrier

    @abstractmethod
    def received(self, carrier: Carrier, packet: str | bytes) -> None:
        """A message arrived on ``carrier``."""

    @abstractmethod
    def lost(self, carrier: Carrier, reason: str) -> None:
        """``carrier`` ended by itself: ``transport close`` or ``transport error``."""

    def congested(self, carrier: Carrier) -> None:
        """``carrier`` has stopped being writable: the client does not keep up."""
        if carrier is self.carrier and not self._congested and not self.closed:
            self._congested = True
            self.receiver.congested()

    def drained(self, carrier: Carrier) -> None:
        """The client has read most of what was waiting on ``carrier``."""
        if carrier is self.carrier and self._congested and not self.closed:
            self._congested = False
            self.receiver.drained()

    def _carried_on(self) -> None:
        """Another carrier took over, with what was waiting; it writes first, and may get rid of it at once."""
        self._engine.loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        notice = self.congested if self.carrier.congested else self.drained
        notice(self.carrier)

    # --- to the client

    def send(self, message: Message) -> None:
        """Send on the carrier of the moment."""
        self.carrier.send(message)

    def pause(self, paused: bool) -> None:
        """Stop reading from the client, or go on."""
        if paused is not self.paused:
            self.paused = paused
            self.carrier.set_reading(not paused)

    @abstractmethod
    def close(self, reason: str, *, code: int = 1000, abort: bool = False) -> None:
        """End the session, and tell the receiver why; nothing happens if it has ended.

        A WebSocket closes with ``code``. What was sent before is still written, unless ``abort`` says that nobody
        reads.
        """

    def _ended(self) -> None:
        """No more notices, and no to those who wait for an answer."""
        self.closed = True
        self._settle(False)

    def _part(self, reason: str) -> None:
        """Tell the receiver that it is over, and let go of it."""
        receiver, self.receiver = self.receiver, NO_RECEIVER
        receiver.closed(reason)

    # --- signs of life

    @abstractmethod
    def ping(self) -> None:
        """Ask for a sign of life: ``alive`` is false until one comes."""

    @property
    def upgrading(self) -> bool:
        """Whether the client is about to change carriers, and cannot be expected to answer."""
        return False

    @property
    def asked(self) -> bool:
        """Whether somebody waits in `answers`: ``alive`` then means less time than the heartbeat's."""
        return self._questions is not None

    async def answers(self, within: float) -> bool:
        """Ping the client now; return whether a byte came from it within so many seconds. False if it has ended.

        It returns as soon as that is known. Of a client that is not read from, or is about to change carriers, nothing
        can be known: it is taken to be there.
        """
        if self.closed:
            return False
        if self._deaf:
            return True
        question = self._ask()
        try:
            await asyncio.wait((question,), timeout=within)
            return question.result() if question.done() else self.alive or self._deaf
        finally:
            self._withdraw(question)

    @property
    def _deaf(self) -> bool:
        """Whether the server would not hear the client's answer."""
        return self.paused or self.upgrading

    def _ask(self) -> "asyncio.Future[bool]":
        question: asyncio.Future[bool] = self._engine.loop.create_future()
        if self._questions is None:
            self._questions = [question]
            self.ping()
        else:
            self._questions.append(question)
        return question

    def _withdraw(self, question: "asyncio.Future[bool]") -> None:
        if self._questions is not None and question in self._questions:
            self._questions.remove(question)
            if not self._questions:
                self._questions = None

    def _heard(self) -> None:
        """The client said something."""
        self._settle(True)

    def _settle(self, answer: bool) -> None:
        questions, self._questions = self._questions, None
        for question in questions or ():
            question.set_result(answer)
