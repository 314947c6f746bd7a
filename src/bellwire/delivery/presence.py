"""Who is in a room, as one node knows it: the parts of all nodes, and what changes for those who look at it.

Each node says what it shows itself, its *part*, in steps. A step names the version before it, and a node that stands
elsewhere has missed something and asks for the whole, which is a step that follows on nothing::

    a step             on the version that is known   what it is
    whole, newer       any                            taken in place of what was known
    follows            its own predecessor            taken
    changes nothing    its own                        a sign that nothing was missed
    newer than known   another one                    missed: the whole is to be asked for
    known or older     any                            late: ignored

A node's versions only grow, over all of its rooms, so that the whole of a room that it opened again is newer than what
it said before. Of nodes that are not there nothing is taken.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

from bellwire.core.presence import PresenceDiff, PresenceState

NOTHING: Final = 0
"""The version before a node's first step, and before a whole."""


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A socket that is shown."""

    id: str
    user: str | None
    info: Any
    """What it says of itself: plain JSON."""
    since: float
    """When it said so, in the broker's time. A socket that went from one node to another is shown by the later one."""

    @property
    def name(self) -> str:
        """Whom others see."""
        return self.id if self.user is None else self.user


class Step(msgspec.Struct, frozen=True, array_like=True):
    """What ``node`` shows from ``version`` on, after ``prev``."""

    node: str
    prev: int
    version: int
    shown: tuple[Shown, ...] = ()
    hidden: tuple[str, ...] = ()
    """The ids of sockets that it shows no longer."""


class _Part:
    __slots__ = ("shown", "version")

    def __init__(self, version: int = NOTHING) -> None:
        self.version = version
        self.shown: dict[str, Shown] = {}

    def take(self, step: Step) -> None:
        if step.prev == NOTHING:
            self.shown = {}
        self.version = step.version
        self.shown |= {shown.id: shown for shown in step.shown}
        for hidden in step.hidden:
            self.shown.pop(hidden, None)


class Presence:
    """One room on one ``node``, which has come to ``version`` with all its rooms; ``peers`` are the others."""

    __slots__ = ("_own", "_parts", "node", "said", "state")

    def __init__(self, room: str, node: str, version: int, peers: Iterable[str]) -> None:
        self.node = node
        self.said = False
        """Whether this node has shown, or hidden, anybody."""
        self.state = PresenceState(room)
        """What those see who look at it here."""
        self._own = _Part(version)
        self._parts = {node: self._own} | {peer: _Part() for peer in peers}

    def __len__(self) -> int:
        return sum(len(part.shown) for part in self._parts.values())

    # --- this node's part

    def shows(self, socket: str) -> bool:
        """Whether this node shows the socket with this id."""
        return socket in self._own.shown

    @property
    def shows_nobody(self) -> bool:
        """Whether this node shows none."""
        return not self._own.shown

    def show(self, shown: Shown, version: int) -> tuple[Step, PresenceDiff]:
        """Show a socket from ``version`` on. Return what to tell the other nodes, and those who look."""
        return self._step(version, shown=(shown,))

    def hide(self, sockets: Collection[str], version: int) -> tuple[Step, PresenceDiff]:
        """Show these no longer; the same."""
        return self._step(version, hidden=tuple(sockets))

    def _step(
        self, version: int, shown: tuple[Shown, ...] = (), hidden: tuple[str, ...] = ()
    ) -> tuple[Step, PresenceDiff]:
        prev = self._own.version if self.said else NOTHING
        self.said = True
        step = Step(self.node, prev, version, shown, hidden)
        self._own.take(step)
        return step, self._look()

    def whole(self) -> Step:
        """Return all that this node shows."""
        return Step(self.node, NOTHING, self._own.version, tuple(self._own.shown.values()))

    def unchanged(self) -> Step:
        """Return a step that changes nothing, by which others see whether they have missed one."""
        return Step(self.node, self._own.version, self._own.version)

    # --- the others'

    @property
    def shown_by(self) -> list[str]:
        """The other nodes that show somebody, as far as is known."""
        return [node for node, part in self._parts.items() if part.shown and node != self.node]

    def knows(self, node: str) -> bool:
        """Whether ``node`` is one of the others that are there."""
        return node in self._parts and node != self.node

    def version(self, node: str) -> int:
        """Return how far the part of ``node`` is known."""
        part = self._parts.get(node)
        return NOTHING if part is None else part.version

    def meet(self, node: str) -> None:
        """``node`` is there; nothing is known of it."""
        self._parts.setdefault(node, _Part())

    def lose(self, node: str) -> PresenceDiff:
        """``node`` is gone, and so are all whom it showed."""
        self._parts.pop(node, None)
        return self._look()

    def take(self, step: Step) -> PresenceDiff | None:
        """Take what another node said. Return what changes, None if its whole is to be asked for."""
        part = self._parts.get(step.node)
        if part is None or step.node == self.node or step.version <= part.version:
            return PresenceDiff(self.state.room)
        if step.prev not in (NOTHING, part.version):
            return None
        part.take(step)
        return self._look()

    # --- what is seen

    def _look(self) -> PresenceDiff:
        """Return how what is seen differs from what was seen before."""
        before, now = self.state.present, self._seen()
        self.state = PresenceState(self.state.room, now)
        return PresenceDiff(
            self.state.room,
            joined={name: said for name, said in now.items() if name not in before},
            changed={name: said for name, said in now.items() if name in before and before[name] != said},
            left=[name for name in before if name not in now],
        )

    def _seen(self) -> dict[str, list[Any]]:
        sockets: dict[str, Shown] = {}
        for part in self._parts.values():
            for shown in part.shown.values():
                known = sockets.get(shown.id)
                if known is None or known.since <= shown.since:
                    sockets[shown.id] = shown
        seen: dict[str, list[Any]] = {}
        for id_ in sorted(sockets):
            seen.setdefault(sockets[id_].name, []).append(sockets[id_].info)
        return seen
