"""The emitter: a program that is no server reaches the clients of all servers that have the same broker."""

import asyncio
from contextlib import AsyncExitStack
from typing import Self

from bellwire.brokers.guest import check_address, visit
from bellwire.brokers.publisher import Publisher
from bellwire.brokers.urls import PREFIX
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError
from bellwire.core.redaction import without_secrets
from bellwire.emitter.blocking import BlockingEmitter
from bellwire.emitter.target import EmitterTarget
from bellwire.guard.recipients import concrete_name


class Emitter:
    """Emits beside the servers: ``async with Emitter("redis://host:6379") as emitter``.

    It is connected within the ``async with``, on that event loop; a connection that is lost is made again by itself.
    Where there is no event loop, `blocking` gives the same with plain calls.

    Args:
        broker: the address that the servers have as ``Config.broker``.
        prefix: what they have as ``Config.prefix``.

    Making one touches neither the network nor an event loop. Entering it raises `BrokerUnavailable` if nobody answers.

    Raises:
        TypeError: the address is no str.
        ConfigError: there is no such broker, it is the memory of one process, or a package is missing; or the prefix
            is none.

    """

    def __init__(self, broker: str, *, prefix: str = PREFIX) -> None:
        if not isinstance(broker, str):
            raise TypeError(f"Emitter takes a broker's address as a str, not {type(broker).__name__}: 'redis://host'")
        check_address(broker)
        self.counters = Counters()
        """What became of the connections to the broker."""
        self._url = broker
        self._prefix = Config(prefix=prefix).prefix
        self._stack = AsyncExitStack()
        self._taken = False
        self._entered: tuple[asyncio.AbstractEventLoop, Publisher] | None = None

    def __repr__(self) -> str:
        return f"Emitter({without_secrets(self._url)!r})"

    def namespace(self, name: str) -> EmitterTarget:
        """Everyone in a namespace of the servers, by its full name: ``"/chat"``, or ``"/org/7"`` of ``"/org/{org}"``.

        Raises:
            TypeError: ``name`` is no str.
            ValueError: it is no namespace's, or it is a pattern.

        """
        return EmitterTarget(self._publisher, concrete_name(name))

    def blocking(self) -> BlockingEmitter:
        """Return an emitter with plain calls, for threads without an event loop; it has connections of its own."""
        return BlockingEmitter(self._url, self._prefix, self.counters)

    async def __aenter__(self) -> Self:
        if self._taken:
            raise BellwireError(f"{self!r} is entered already: make another one")
        self._taken = True
        try:
            broker = await self._stack.enter_async_context(visit(self._url, self.counters, prefix=self._prefix))
        except BaseException:
            self._taken = False
            raise
        self._entered = asyncio.get_running_loop(), Publisher(broker)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._entered = None
        try:
            await self._stack.aclose()
        finally:
            self._taken = False

    def _publisher(self) -> Publisher:
        if self._entered is None:
            raise BellwireError(
                f"{self!r} is not connected: emit within async with Emitter(...) as emitter, or take "
                "Emitter(...).blocking(), which connects by itself"
            )
        loop, publisher = self._entered
        if asyncio.get_running_loop() is not loop:
            raise BellwireError(
                f"{self!r} was entered on another event loop: make one for each, or take Emitter(...).blocking(), "
                "which threads can share"
            )
        return publisher
