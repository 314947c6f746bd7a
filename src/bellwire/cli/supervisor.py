"""``bellwire run --workers N``: N processes that serve one application on one port, and this one, which watches them.

Each worker imports the application anew, binds the address for itself, and is dealt an even share of the connections by
the kernel (SO_REUSEPORT). An even share is what long-lived connections need; of workers that take turns at one socket
the quickest gets most of them. What waits to be accepted by a worker that dies is reset, and comes back to another one.
This process imports no application and serves nobody: it keeps the port, and the private nats-server if the workers
need one.

What becomes of all when a worker ends::

    a worker ends           when some have not served yet      when all have served         when told to
    before it served        all end, with its exit code        tried again, as long as      counted
                                                               another one serves
    after it had served     it is started again                it is started again          counted

And of signals::

    signal      starting, running                              stopping
    SIGINT      stop: SIGTERM to each worker                   SIGKILL to each worker
    SIGTERM     stop: SIGTERM to each worker                   go on stopping
    SIGHUP      with TLS, to each worker once it listens,      go on stopping
                without, as SIGTERM

The first worker starts alone: what is wrong with the application is told once. A second start in a row waits, and each
one after it longer. The kernel kills the workers when this process dies, however that happens.
"""

import asyncio
import contextlib
import random
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from bellwire.brokers.private_nats import tied_to_parent
from bellwire.cli.binding import reserve
from bellwire.cli.broker import BrokerError, Private, private_nats
from bellwire.cli.logs import set_up_logging
from bellwire.cli.serve import FORCED
from bellwire.cli.worker import SERVING, Order
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError

MAX_PAUSE: Final = 10.0
"""Seconds before a worker is started again, at most: none at first, then `_FIRST_PAUSE`, then twice that, and so on."""

CALM_AFTER: Final = 60.0
"""Seconds after which an end is no longer the next one of a series."""

_FIRST_PAUSE: Final = 0.5


def supervise(order: Order, count: int, *, ready: Callable[[str], None]) -> None:
    """Serve as ``order`` says with ``count`` workers until a signal comes; ``ready`` is called once all listen.

    Raises:
        BindError: the address cannot be had.
        BrokerError: the private nats-server does not start.
        ClickException: a worker was killed before it served.
        click.exceptions.Exit: a worker could not serve, and said why; or it failed at the end; or a second SIGINT came.

    """
    set_up_logging(order.log_level)
    sockets = reserve(order.host, order.port)
    order = msgspec.structs.replace(order, port=sockets[0].getsockname()[1])
    try:
        code = asyncio.run(_supervise(order, count, ready))
    except BellwireError as error:
        raise BrokerError(error) from None
    finally:
        for bound in sockets:
            bound.close()
    if code:
        raise click.exceptions.Exit(code)


async def _supervise(order: Order, count: int, ready: Callable[[str], None]) -> int:
    return await _Supervisor(order, count, ready).run()


class _Worker:
    """What one process after the other is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: Process | None = None
        self.serving = asyncio.Event()
        """Whether the process of the moment listens."""
        self.outdated = False
        """Whether it may have read the certificate before the last SIGHUP."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process of the moment."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class _Supervisor:
    """Keeps the workers, and their nats-server, until a signal comes or there can be none."""

    def __init__(self, order: Order, count: int, ready: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._order = order
        self._ready = ready
        self._workers = [_Worker(f"worker-{number}") for number in range(1, count + 1)]
        self._all_served = False
        self._url = ""
        self._over: asyncio.Future[None] = loop.create_future()
        self._forced: asyncio.Future[None] = loop.create_future()
        self._codes: list[int] = []
        self._nats = _Nats(order.data)

    async def run(self) -> int:
        """Return the exit code once all has ended, or raise what says more: `BellwireError`, an exception of click."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled, number)
        keepers: list[asyncio.Task[None]] = []
        try:
            for workers in (self._workers[:1], self._workers[1:]):
                keepers += [asyncio.create_task(self._keep(worker), name=worker.name) for worker in workers]
                await self._until_serving(workers)
            if not self._over.done():
                self._all_served = True
                self._ready(self._url)
            await asyncio.wait((self._over, *keepers), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._send(signal.SIGTERM)
            await asyncio.gather(*keepers)
            await self._end_nats()
        self._over.result()
        return FORCED if self._forced.done() else next((code for code in self._codes if code), 0)

    def _signalled(self, number: signal.Signals) -> None:
        if number == signal.SIGHUP and self._url.startswith("https:"):
            for worker in self._workers:
                worker.outdated = True
                self._bring_up_to_date(worker)
        elif not self._over.done():
            self._over.set_result(None)
        elif number == signal.SIGINT and not self._forced.done():
            self._forced.set_result(None)
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)

    def _bring_up_to_date(self, worker: _Worker) -> None:
        """Have a worker read its certificate again, if it listens: before that, the signal would end it."""
        if worker.outdated and worker.serving.is_set():
            worker.outdated = False
            worker.send(signal.SIGHUP)

    async def _until_serving(self, workers: Sequence[_Worker]) -> None:
        """Wait until all of these listen, or all is over."""
        for worker in workers:
            serving = asyncio.ensure_future(worker.serving.wait())
            await asyncio.wait((serving, self._over), return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()

    async def _end_nats(self) -> None:
        """End it in order, unless and until a second SIGINT comes; it dies with this process."""
        ending = asyncio.ensure_future(self._nats.close())
        await asyncio.wait((ending, self._forced), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()

    # --- one worker

    async def _keep(self, worker: _Worker) -> None:
        """Start processes for a worker, one after the other, until all is over; see the first table above."""
        loop = asyncio.get_running_loop()
        starts = 0
        while not self._over.done():
            began = loop.time()
            process, code = await self._live(worker)
            served = worker.serving.is_set()
            worker.serving.clear()
            if self._over.done():
                self._codes.append(_counted(code))
            elif not served and not (self._all_served and any(other.serving.is_set() for other in self._workers)):
                self._fail(worker, code)
            else:
                starts = 1 if loop.time() - began > CALM_AFTER else starts + 1
                pause = _pause(starts)
                when = f" in {pause:.1f} s" if pause else ""
                _tell(f"{worker.name} (process {process}) {_ended(code)}: it is started again{when}")
                await asyncio.wait((self._over,), timeout=pause)

    async def _live(self, worker: _Worker) -> tuple[int, int]:
        """Run one process to its end; return its number and its exit code."""
        ours, theirs = socket.socketpair()
        try:
            worker.process = process = await _start(theirs)
        except OSError as error:
            ours.close()
            _tell(f"Error: no process can be started: {error.strerror}")
            return 0, 1
        finally:
            theirs.close()
        if self._over.done():  # the signal for all came while it was being started
            worker.send(signal.SIGKILL if self._forced.done() else signal.SIGTERM)
        listening = asyncio.create_task(self._listen(worker, ours), name=f"{worker.name}: messages")
        try:
            return process.pid, await process.wait()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, worker: _Worker, end: socket.socket) -> None:
        """Give a process its order, and hear what it says."""
        reader, writer = await asyncio.open_connection(sock=end)
        try:
            writer.write(msgspec.structs.replace(self._order, worker=worker.name).encode())
            while line := await reader.readline():
                word, _, url = line.decode().strip().partition(" ")
                if word == SERVING:
                    if self._all_served:
                        _tell(f"{worker.name} serves again")
                    self._url = url
                    worker.serving.set()
                    self._bring_up_to_date(worker)
                else:
                    writer.write(f"{await self._nats.url()}\n".encode())
        except (BellwireError, click.ClickException) as error:
            self._give_up(error)
        finally:
            writer.close()

    def _fail(self, worker: _Worker, code: int) -> None:
        """A process ended before it served, and no other one does; it has said why if it could."""
        if code > 0:
            self._give_up(click.exceptions.Exit(code))
        else:
            self._give_up(click.ClickException(f"{worker.name} {_ended(code)} before it served"))

    def _give_up(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


class _Nats:
    """The private nats-server of the workers, started when the first one asks for it."""

    def __init__(self, data: Path | None) -> None:
        self._data = data
        self._private: Private | None = None
        self._starting = asyncio.Lock()

    async def url(self) -> str:
        """Return where it is.

        Raises:
            ConfigError, BrokerUnavailable: it does not start.
            SettingsError: there can be none.

        """
        async with self._starting:
            if self._private is None:
                private = private_nats(self._data, Counters())
                await private.start()
                self._private = private
        return self._private.url

    async def close(self) -> None:
        """End it, if it was needed."""
        if self._private is not None:
            await self._private.close()


async def _start(end: socket.socket) -> Process:
    """Start a worker that is told over ``end`` what to do. To be called in the main thread, as `PrivateNats`."""
    return await asyncio.create_subprocess_exec(
        *tied_to_parent(Path(sys.executable), "-m", "bellwire.cli.worker", str(end.fileno())),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(end.fileno(),),
        start_new_session=True,  # Ctrl+C in a terminal is for the supervisor, which stops the others in order
    )


def _pause(starts: int) -> float:
    """Return the seconds to wait before the next start, after so many of a series."""
    if starts <= 1:
        return 0.0
    longest: float = min(MAX_PAUSE, _FIRST_PAUSE * 2 ** (starts - 2))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret


def _counted(code: int) -> int:
    """Return the exit code to pass on; a process that had not come to take signals yet was ended by ours."""
    if code == -signal.SIGTERM:
        return 0
    return 1 if code < 0 else code


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was killed by signal {-code}"


def _tell(line: str) -> None:
    click.echo(line, err=True)
