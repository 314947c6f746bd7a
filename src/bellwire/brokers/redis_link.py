"""Connections to a Redis server: commands in a row, their answers in the same row, and what is published.

It is used once. Commands of one turn of the event loop are written together. Each has its place in the row, whoever
waits for it: the answer to a command whose sender was cancelled is taken out of the row and given to nobody, so no
answer is ever given to another (CVE-2023-28858 was that). When the row stands still the connection is dropped.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from bellwire.brokers.redis_address import RedisAddress
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError

try:
    import hiredis
except ImportError as error:  # pragma: no cover - the tests have it installed
    raise ConfigError("a broker at redis:// or rediss:// needs a parser: pip install 'bellwire[redis]'") from error

ANSWER_TIMEOUT: Final = 5.0
"""Seconds to wait for an answer: what takes a server less than a millisecond, unless it is on its way out."""

CONNECT_TIMEOUT: Final = 3.0

MAX_WAITING: Final = 65_536
"""How many commands may wait for their answers."""

MAX_UNSENT: Final = 64 * 1024 * 1024
"""How many bytes may wait to be taken by the server."""

_WATCH_EVERY: Final = 0.5
_NO_REDIS: Final = "what answers there is not Redis"

Part: TypeAlias = str | bytes | int


class Unanswered(Exception):  # noqa: N818 - it is no fault, it is what happened
    """A command may have reached the server, and no answer came."""


class Refused(Exception):  # noqa: N818
    """The server answered with an error; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Link(asyncio.Protocol):
    """A connection for commands, from `open` until it is lost or closed; ``lost`` is set then.

    ``disturbed``, which several connections may share, is set then too, and when the server answers that a slot is
    another's (MOVED). ``broker_refused_total`` counts the commands that nobody waited for and the server refused.
    """

    def __init__(self, counters: Counters | None = None, disturbed: asyncio.Event | None = None) -> None:
        self.lost = asyncio.Event()
        self.disturbed = asyncio.Event() if disturbed is None else disturbed
        self.why = "the connection to Redis is lost"
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._counters = Counters() if counters is None else counters
        self._reader = hiredis.Reader()
        self._row: deque[tuple[asyncio.Future[Any] | None, float]] = deque()
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._watch: asyncio.TimerHandle | None = None
        self._watched = 0.0

    async def open(self, address: RedisAddress) -> None:
        """Connect, and say who we are.

        Raises:
            BrokerUnavailable: nobody answers there, or it turned us away.

        """
        context = ssl.create_default_context() if address.encrypted else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._loop.create_connection(lambda: self, address.host, address.port, ssl=context)
                self._watch_on()
                await self._introduce(address)
        except (OSError, TimeoutError, Refused, Unanswered) as error:
            self.close()
            raise BrokerUnavailable(f"no connection to Redis: {str(error) or type(error).__name__}") from error
        except BaseException:
            self.close()
            raise

    async def _introduce(self, address: RedisAddress) -> None:
        if address.password is not None:
            await self.ask("AUTH", *([address.user] if address.user else []), address.password)
        if address.database:
            await self.ask("SELECT", address.database)

    def close(self) -> None:
        """End the connection now; what waits for an answer gets none."""
        self.lose(self.why)

    # --- commands

    def ask(self, *command: Part) -> "asyncio.Future[Any]":
        """Send a command and return its answer, to be awaited.

        Raises:
            BrokerUnavailable: the connection is lost, or takes no more; nothing was sent.
            Refused: the server answered with an error.
            Unanswered: the connection was lost, or the server took too long.

        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._send(command, future)
        return future

    def tell(self, *command: Part) -> None:
        """Send a command whose answer nobody waits for. Raises `BrokerUnavailable` as `ask` does."""
        self._send(command, None)

    def _send(self, command: tuple[Part, ...], future: "asyncio.Future[Any] | None") -> None:
        transport = self._transport
        if transport is None or self.lost.is_set():
            raise BrokerUnavailable(self.why)
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says: of one element
        size = self._unsent_size + len(packed)
        if len(self._row) >= MAX_WAITING or size + transport.get_write_buffer_size() > MAX_UNSENT:
            raise BrokerUnavailable("too much waits for Redis already")
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        self._unsent_size = size
        self._row.append((future, self._loop.time()))

    def _flush(self) -> None:
        unsent, self._unsent, self._unsent_size = self._unsent, [], 0
        if self._transport is not None and not self.lost.is_set():
            self._transport.write(b"".join(unsent))

    # --- answers

    def data_received(self, data: bytes) -> None:
        """Take what came (asyncio's callback)."""
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._take(reply)
        except hiredis.HiredisError:
            self.lose(_NO_REDIS)

    def _take(self, reply: Any) -> None:
        if not self._row:
            self.lose(_NO_REDIS)
            return
        future, _ = self._row.popleft()
        refused = isinstance(reply, hiredis.ReplyError)
        if refused and str(reply).startswith("MOVED "):
            self.disturbed.set()
        if future is None:
            if refused:
                self._counters.add("broker_refused_total")
        elif future.done():
            pass  # whoever waited was cancelled
        elif refused:
            future.set_exception(Refused(str(reply)))
        else:
            future.set_result(reply)

    # --- the end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio's callback)."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Find out that it is over (asyncio's callback)."""
        self.lose("the connection to Redis is lost")

    def lose(self, why: str) -> None:
        """Drop the connection: nothing is sent any more, and whoever waits is told."""
        if self.lost.is_set():
            return
        self.lost.set()
        self.disturbed.set()
        self.why = why
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        row, self._row = self._row, deque()
        for future, _ in row:
            if future is not None and not future.done():
                future.set_exception(Unanswered(why))
                future.exception()  # whoever waits is told; where nobody does any more, that is no fault

    def _watch_on(self) -> None:
        """Look at the head of the row. A process that stood still looks again before it judges."""
        now = self._loop.time()
        stood_still = now - self._watched > 2 * _WATCH_EVERY
        self._watched = now
        if not stood_still and self._row and now - self._row[0][1] > ANSWER_TIMEOUT:
            self.lose(f"Redis did not answer for {ANSWER_TIMEOUT:g} s")
        elif not self.lost.is_set():
            self._watch = self._loop.call_later(_WATCH_EVERY, self._watch_on)


class Subscriptions(Link):
    """A connection for sharded channels.

    ``take`` is called with this connection, the channel, and what was published to it. ``dropped`` is called with this
    connection and a channel that the server has ended the subscription to: its slot has moved to another server.
    """

    def __init__(
        self,
        take: "Callable[[Subscriptions, bytes, bytes], None]",
        dropped: "Callable[[Subscriptions, bytes], None]",
        counters: Counters | None = None,
        disturbed: asyncio.Event | None = None,
    ) -> None:
        super().__init__(counters, disturbed)
        self._published = take
        self._dropped = dropped
        self._commands: deque[tuple[Part, ...]] = deque()
        self.heard = self._loop.time()

    def hear(self) -> None:
        """Note that something was published to us now: `heard` is the time of that."""
        self.heard = self._loop.time()

    async def subscribe(self, channel: bytes) -> None:
        """Take what is published to ``channel`` from the return of this call on. Raises as `ask` does."""
        await self.ask("SSUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Take it no more."""
        if not self.lost.is_set():
            self.tell("SUNSUBSCRIBE", channel)

    def _send(self, command: tuple[Part, ...], future: "asyncio.Future[Any] | None") -> None:
        super()._send(command, future)
        self._commands.append(command)

    def _take(self, reply: Any) -> None:
        kind = reply[0] if type(reply) is list and len(reply) == 3 else None
        if kind == b"smessage":
            self._published(self, reply[1], reply[2])
        elif kind == b"sunsubscribe" and not self._is_answer("SUNSUBSCRIBE", reply[1]):
            self._dropped(self, reply[1])
        elif kind == b"ssubscribe" and not self._is_answer("SSUBSCRIBE", reply[1]):
            # The server ended a subscription in the moment that we did: an answer more than there were commands.
            self.lose("the answers of Redis do not fit its questions any more")
        else:
            if self._commands:
                self._commands.popleft()
            super()._take(reply)

    def _is_answer(self, command: str, channel: bytes) -> bool:
        return bool(self._commands) and self._commands[0] == (command, channel)
