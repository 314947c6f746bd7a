"""What a relay's handler emits: kept back until it has returned (the effect ``"relay"`` of `Namespace.on`).

While such a handler runs, `Collecting` stands around it, and whatever is emitted in it, or in a task that it started,
is added to a list. What a relay cannot do raises: it would take effect now, and again if the handler has to run again.
So does what a task emits when its handler has returned already: the list is closed then, and to send it all the same
would be to send it twice if the handler has to run again.
"""

from contextvars import ContextVar, Token
from typing import Final

from bellwire.delivery.effects import Emission

_ANOTHER: Final = "register the handler with another effect, on(event, effect='at_most_once') for instance"


class Collecting:
    """A context manager to run a relay's handler in: it gives the list of what is emitted."""

    __slots__ = ("_token", "emissions", "ended")

    def __init__(self) -> None:
        self.emissions: list[Emission] = []
        self.ended = False
        """Whether the handler has returned."""
        self._token: Token[Collecting | None] | None = None

    def __enter__(self) -> list[Emission]:
        self._token = _current.set(self)
        return self.emissions

    def __exit__(self, *error: object) -> None:
        self.ended = True
        if self._token is not None:
            _current.reset(self._token)


_current: Final[ContextVar[Collecting | None]] = ContextVar("bellwire_relay", default=None)


def running() -> bool:
    """Whether this is a relay's handler, or a task that one started, also after it has returned."""
    return _current.get() is not None


def collects(
    body: bytes, streams: tuple[str, ...], excluded: tuple[str, ...], *, volatile: bool, mid: str | None = None
) -> bool:
    """Keep an emission back if a relay's handler runs; False if none does.

    Raises:
        RuntimeError: it is volatile, or named by a ``mid``, or the handler that started this task has returned.

    """
    relay = _current.get()
    if relay is None:
        return False
    if relay.ended:
        raise RuntimeError(
            "this task was started by a relay's handler, which has returned: its emits have left. Await the task in "
            f"the handler, or {_ANOTHER}"
        )
    if volatile:
        raise RuntimeError(
            f"a relay cannot emit a volatile event, which is never sent twice: {_ANOTHER}, or do without volatile=True"
        )
    if mid is not None:
        raise RuntimeError(
            "mid= in a relay's handler, whose emits have ids of their own and go out once by that: leave it out, or "
            f"{_ANOTHER}"
        )
    relay.emissions.append(Emission(streams, body, excluded))
    return True


def forbid(what: str) -> None:
    """Raise RuntimeError if a relay's handler runs, or ran when it started this task; ``what`` is for the message."""
    if _current.get() is not None:
        raise RuntimeError(f"{what} in a relay's handler, which may only emit, because it may run again: {_ANOTHER}")
