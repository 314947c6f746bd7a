"""A thread with an event loop and a connection to the broker, for threads that have neither."""

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Final

from bellwire.brokers.guest import visit
from bellwire.brokers.publisher import Publisher
from bellwire.core.counters import Counters
from bellwire.emitter.target import Send

CLOSE_SECONDS: Final = 10.0
"""How long the end of a worker waits for what is under way. What is left is cancelled, in the thread that waits for it
too."""


class Worker:
    """Sends what other threads give it. It connects for the first, and again for the next if nobody answered."""

    def __init__(self, url: str, prefix: str, counters: Counters) -> None:
        self._url = url
        self._prefix = prefix
        self._counters = counters
        self._stack = AsyncExitStack()
        self._connecting: asyncio.Task[Publisher] | None = None
        self._sending: set[asyncio.Task[None] | None] = set()
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="bellwire: emitter", daemon=True)
        self._thread.start()
        self._loop, self._over = started.result()

    def begin(self, send: Send) -> "Future[None]":
        """Send it in the worker's thread. The future raises as :meth:`EmitterTarget.emit` does."""
        return asyncio.run_coroutine_threadsafe(self._send(send), self._loop)

    def close(self) -> None:
        """Wait for what is under way, disconnect and end the thread; nothing happens if it has ended."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._over.set)
        if threading.current_thread() is not self._thread:  # the garbage collector runs in any
            self._thread.join()

    def _run(self, started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
        main = self._main(started)
        try:
            asyncio.run(main)
        except BaseException as error:
            main.close()
            if started.done():
                raise
            started.set_exception(error)  # there is no loop, for want of file descriptors perhaps

    async def _main(self, started: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]") -> None:
        over = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), over))
        await over.wait()
        if self._sending:
            await asyncio.wait({task for task in self._sending if task is not None}, timeout=CLOSE_SECONDS)
        await self._stack.aclose()

    async def _send(self, send: Send) -> None:
        task = asyncio.current_task()
        self._sending.add(task)
        try:
            await send(await self._connected())
        finally:
            self._sending.discard(task)

    async def _connected(self) -> Publisher:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="bellwire: connecting to the broker")
            self._connecting.add_done_callback(self._settle)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Publisher:
        visiting = visit(self._url, self._counters, prefix=self._prefix)
        return Publisher(await self._stack.enter_async_context(visiting))

    def _settle(self, connecting: "asyncio.Task[Publisher]") -> None:
        if connecting.cancelled() or connecting.exception() is not None:
            self._connecting = None  # the next one tries again
