"""To whom a program that is no server emits: checked and encoded here, then sent the way that a server sends."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias, TypeVar, TypeVarTuple

from typing_extensions import override

from bellwire.brokers.publisher import Publisher
from bellwire.core.errors import OutcomeUnknown
from bellwire.core.events import Event
from bellwire.delivery.naming import Key, direct_of
from bellwire.guard.packets import check_mid, post
from bellwire.guard.recipients import Recipients

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Send: TypeAlias = Callable[[Publisher], Coroutine[Any, Any, None]]
"""An event that is checked and encoded: what sends it with a publisher."""


class Emitting(Recipients[T]):
    """Recipients of an emitter, whichever kind that is."""

    __slots__ = ()

    def _prepare(self, event: Event[Any, *Ts], payload: tuple[*Ts], mid: str | None) -> Send:
        message = post(self._name, event, payload)
        check_mid(event, mid)
        return partial(self._send, message.body, event.volatile, mid)

    async def _send(self, body: bytes, volatile: bool, mid: str | None, publisher: Publisher) -> None:
        streams = self._streams()
        try:
            await publisher.emit(streams, body, self._excluded, volatile, mid)
        except OutcomeUnknown as error:
            raise self._unknown(error) from None
        published = streams if volatile else [stream for stream in streams if direct_of(stream) is not None]
        if published:  # the program may end right after this
            await publisher.confirm(published)


class EmitterTarget(Emitting["EmitterTarget"]):
    """Some of a namespace's sockets, on whatever servers they are; who they are is decided at each use."""

    __slots__ = ("_publisher",)

    def __init__(
        self,
        publisher: Callable[[], Publisher],
        name: str,
        keys: tuple[Key, ...] = (),
        excluded: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name, keys, excluded)
        self._publisher = publisher

    @override
    def _with(self, keys: tuple[Key, ...], excluded: tuple[str, ...]) -> "EmitterTarget":
        return EmitterTarget(self._publisher, self._name, keys, excluded)

    async def emit(self, event: Event[Any, *Ts], /, *payload: *Ts, mid: str | None = None) -> None:
        """Send ``event`` to all of them; when this returns, the broker has it.

        ``mid`` names the message: what is emitted again under the same one within two minutes is not doubled, whoever
        emits it. Give one of your own, at most 128 characters, where you want to try again after an error.

        Raises:
            TypeError: the payload is not what the event declares.
            ValueError: ``mid`` is empty or too long, or the event volatile, which has none.
            BrokerUnavailable: nothing was sent.
            OutcomeUnknown: it may have been sent; ``done`` names the rooms that have it for certain.
            MessageTooLarge: it is larger than the broker takes.
            BellwireError: the emitter was not entered, or on another event loop.

        """
        send = self._prepare(event, payload, mid)
        await send(self._publisher())
