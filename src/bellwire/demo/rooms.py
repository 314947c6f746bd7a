"""Who is in which room of the demo, and what was said there last: bookkeeping in this process, bounded.

A room is opened by the first to enter it and forgotten with its messages when the last has left;
the given rooms stay. Nothing here knows of sockets: a visit is any id, one per browser tab.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from bellwire import EventRefused
from bellwire.demo.events import ChatMessage, Person, Presence

MAX_HISTORY: Final = 50
"""Messages that a room remembers."""

MAX_ROOMS: Final = 100
"""Rooms open at one time. With MAX_HISTORY it bounds the memory: 100 rooms of 50 messages."""

MAX_ROOMS_PER_VISIT: Final = 20
"""Rooms that one browser tab can be in."""


class Room:
    """One room: its last messages, and its people with the visits (browser tabs) of each."""

    __slots__ = ("messages", "people", "visits")

    def __init__(self) -> None:
        self.messages: deque[ChatMessage] = deque(maxlen=MAX_HISTORY)
        self.people: dict[str, Person] = {}
        self.visits: dict[str, set[str]] = {}

    def presence(self) -> list[Presence]:
        """Everyone who is here, in order of arrival."""
        return [Presence(person, len(self.visits[person.id])) for person in self.people.values()]

    def _enter(self, person: Person, visit: str) -> int:
        self.people.setdefault(person.id, person)
        visits = self.visits.setdefault(person.id, set())
        visits.add(visit)
        return len(visits)

    def _leave(self, person: Person, visit: str) -> int:
        visits = self.visits[person.id]
        visits.discard(visit)
        if not visits:
            del self.visits[person.id], self.people[person.id]
        return len(visits)


class Rooms:
    """All rooms. ``given`` are there from the start and stay."""

    def __init__(self, given: Iterable[str]) -> None:
        self._given = frozenset(given)
        self._rooms = {name: Room() for name in given}
        self._entered: dict[str, list[str]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._rooms

    def __getitem__(self, name: str) -> Room:
        """The open room of this name; KeyError otherwise."""
        return self._rooms[name]

    def names(self) -> list[str]:
        """All open rooms: first the given ones, then in order of opening."""
        return list(self._rooms)

    def of(self, visit: str) -> tuple[str, ...]:
        """The rooms that this visit is in, in the order of entering."""
        return tuple(self._entered.get(visit, ()))

    def enter(self, name: str, person: Person, visit: str) -> int:
        """Let the visit in, opening the room if need be; returns the person's number of visits there.

        Raises EventRefused (``rooms_full``, ``too_many_rooms``) at a bound; nothing has changed then.
        """
        entered = self._entered.get(visit, [])
        if name not in entered:
            self._check_bounds(name, entered)
            self._entered[visit] = [*entered, name]
        if name not in self._rooms:
            self._rooms[name] = Room()
        return self._rooms[name]._enter(person, visit)

    def _check_bounds(self, name: str, entered: list[str]) -> None:
        if len(entered) >= MAX_ROOMS_PER_VISIT:
            message = f"You are in {MAX_ROOMS_PER_VISIT} rooms: leave one first."
            raise EventRefused("too_many_rooms", message, path="$.room")
        if name not in self._rooms and len(self._rooms) >= MAX_ROOMS:
            raise EventRefused("rooms_full", f"{MAX_ROOMS} rooms are open: join one of them.", path="$.room")

    def leave(self, name: str, person: Person, visit: str) -> int | None:
        """Let the visit out; returns the person's remaining visits there, None if it was not in the room."""
        entered = self._entered.get(visit, [])
        if name not in entered:
            return None
        entered.remove(name)
        if not entered:
            del self._entered[visit]
        room = self._rooms[name]
        remaining = room._leave(person, visit)
        if not room.people and name not in self._given:
            del self._rooms[name]
        return remaining
