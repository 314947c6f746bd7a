"""The emitter with plain calls, for programs without an event loop: the same code, on the loop of a thread beside them.

The thread belongs to one process and is started by the first emit in it, so that whatever a server of processes forks
after its imports connects by itself::

    made          nothing is started
    first emit    the thread is started, and connects; whoever emits meanwhile waits for the same connection
    no broker     that emit raises, and those that waited with it; the next one tries again
    connected     a connection that is lost is made again by itself
    forked        the child starts anew with its first emit, and leaves what its parent has alone
    closed        by `BlockingEmitter.close`, when nothing refers to it any more, or at the end of the program
"""

import asyncio
import os
import threading
import weakref
from typing import Any, Final, Self, TypeVarTuple

from typing_extensions import override

from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError
from bellwire.core.events import Event
from bellwire.core.redaction import without_secrets
from bellwire.delivery.naming import Key
from bellwire.emitter.target import Emitting, Send
from bellwire.emitter.worker import Worker
from bellwire.guard.recipients import concrete_name

Ts = TypeVarTuple("Ts")


class BlockingEmitter:
    """`Emitter` with plain calls. All threads of a process may share one, and the processes that are forked from it."""

    def __init__(self, url: str, prefix: str, counters: Counters) -> None:
        self.counters = counters
        """What became of the connections to the broker."""
        self._url = url
        self._prefix = prefix
        self._closed = False
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._finalizer: weakref.finalize[[], BlockingEmitter] | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"Emitter({without_secrets(self._url)!r}).blocking()"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def namespace(self, name: str) -> "BlockingTarget":
        """Everyone in a namespace of the servers; see :meth:`Emitter.namespace`."""
        return BlockingTarget(self, concrete_name(name))

    def close(self) -> None:
        """Wait for what is under way, and disconnect. It emits nothing afterwards."""
        with self._lock:
            self._closed = True
            finalizer, self._finalizer, self._worker = self._finalizer, None, None
        if finalizer is not None:
            finalizer()

    def send(self, send: Send) -> None:
        """Send something that is checked and encoded; see :meth:`BlockingTarget.emit`."""
        _require_no_loop()
        with self._lock:
            sending = self._running().begin(send)
        try:
            sending.result()
        except BaseException:
            sending.cancel()  # Ctrl+C, or a time limit of a task queue: nobody waits for it any more
            raise

    def _running(self) -> Worker:
        if self._closed or (self._finalizer is not None and not self._finalizer.alive):  # the program is at its end
            raise BellwireError(f"{self!r} is closed: make another one")
        if self._worker is None:
            self._worker = Worker(self._url, self._prefix, self.counters)
            self._finalizer = weakref.finalize(self, self._worker.close)
        return self._worker

    def forked(self) -> None:
        """Start anew in a child: what its parent has is not touched, nor given up, which would touch it too."""
        if self._finalizer is not None:
            self._finalizer.detach()
            _of_parents.append(self._worker)
        self._lock = threading.Lock()  # a thread that is not here any more may have held it
        self._finalizer = self._worker = None


class BlockingTarget(Emitting["BlockingTarget"]):
    """Some of a namespace's sockets, on whatever servers they are; who they are is decided at each use."""

    __slots__ = ("_emitter",)

    def __init__(
        self, emitter: BlockingEmitter, name: str, keys: tuple[Key, ...] = (), excluded: tuple[str, ...] = ()
    ) -> None:
        super().__init__(name, keys, excluded)
        self._emitter = emitter

    @override
    def _with(self, keys: tuple[Key, ...], excluded: tuple[str, ...]) -> "BlockingTarget":
        return BlockingTarget(self._emitter, self._name, keys, excluded)

    def emit(self, event: Event[Any, *Ts], /, *payload: *Ts, mid: str | None = None) -> None:
        """Send ``event`` to all of them; when this returns, the broker has it. See :meth:`EmitterTarget.emit`.

        It raises the same, and:

        Raises:
            RuntimeError: an event loop runs in this thread, and would stand still meanwhile.
            BellwireError: the emitter is closed.

        """
        self._emitter.send(self._prepare(event, payload, mid))


_all: Final["weakref.WeakSet[BlockingEmitter]"] = weakref.WeakSet()
_of_parents: Final[list[Worker | None]] = []


def _require_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "a blocking emit in a thread with a running event loop, which would stand still: write async with Emitter(...) "
        "as emitter and await ...emit(...), or call it in asyncio.to_thread"
    )


def _forked() -> None:
    for emitter in list(_all):
        emitter.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
