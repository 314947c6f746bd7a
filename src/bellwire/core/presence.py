"""Who is in a room: the two events by which clients are told, and what they carry."""

from typing import Any

import msgspec

from bellwire.core.events import Event

__all__ = ["PRESENCE_DIFF", "PRESENCE_STATE", "PresenceDiff", "PresenceState"]


class PresenceDiff(msgspec.Struct, frozen=True):
    """What has changed in a room since the state, or the diff, before."""

    room: str
    joined: dict[str, list[Any]] = {}
    """Who has come: by user, what each of his sockets says of itself; a guest by his socket's id."""
    changed: dict[str, list[Any]] = {}
    """Who is still there, with more, fewer or other things said."""
    left: list[str] = []
    """Who has gone with his last socket."""

    def __bool__(self) -> bool:
        return bool(self.joined or self.changed or self.left)


class PresenceState(msgspec.Struct, frozen=True):
    """Who is in a room at a moment."""

    room: str
    present: dict[str, list[Any]] = {}
    """By user, what each of his sockets says of itself; a guest by his socket's id."""

    def after(self, diff: PresenceDiff) -> "PresenceState":
        """Return the state that ``diff`` leads to."""
        present = self.present | diff.joined | diff.changed
        return PresenceState(self.room, {name: said for name, said in present.items() if name not in diff.left})


PRESENCE_STATE = Event("presence:state", PresenceState)
"""Sent to a socket that `Socket.track` or `Socket.watch` was called for, once."""

PRESENCE_DIFF = Event("presence:diff", PresenceDiff)
"""Sent to it from then on, whenever something changes."""
