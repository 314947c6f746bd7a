"""Whom an event is for, as an application names it: everyone in a namespace, rooms, users, without some of them."""

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from bellwire.core.errors import OutcomeUnknown
from bellwire.delivery.naming import EVERYONE, Key, User, stream_of
from bellwire.guard.auth import require_user

MAX_NAME_LENGTH: Final = 255
"""Characters of a namespace's name; the server keeps the names that clients are in, and compares them to patterns."""

T = TypeVar("T")
K = TypeVar("K")


class Recipients(ABC, Generic[T]):
    """Some of a namespace's sockets, wherever they are; ``T`` is the class of what is made of it.

    Rooms add up (a socket in two of them is meant once), what ``except_`` names is taken away. A socket's id is a room
    that holds just that socket.
    """

    __slots__ = ("_excluded", "_keys", "_name")

    def __init__(self, name: str, keys: tuple[Key, ...] = (), excluded: tuple[str, ...] = ()) -> None:
        self._name = name
        self._keys = keys
        self._excluded = excluded

    @abstractmethod
    def _with(self, keys: tuple[Key, ...], excluded: tuple[str, ...]) -> T:
        """Return the same with other keys and exclusions."""

    def to(self, *rooms: str) -> T:
        """The members of these rooms, beside those already meant.

        Raises:
            TypeError: one is no str.
            ValueError: there is none; a list that happens to be empty must not mean everybody.

        """
        if not rooms:
            raise ValueError("to() names no room: name one, or use the namespace itself to reach everybody")
        return self._with(_more(self._keys, check_rooms(rooms)), self._excluded)

    def except_(self, *rooms: str) -> T:
        """Without the members of these rooms."""
        return self._with(self._keys, _more(self._excluded, check_rooms(rooms)))

    def user(self, id: str) -> T:  # noqa: A002 - the contract's word
        """The sockets of this user, beside those already meant. Raises :class:`TypeError` if ``id`` is no str."""
        require_user(id, "user")
        return self._with(_more(self._keys, (User(id),)), self._excluded)

    def _streams(self) -> tuple[str, ...]:
        """The names of their streams, in the order in which copies are appended."""
        return tuple([stream_of(self._name, key) for key in self._keys or (EVERYONE,)])

    def _unknown(self, error: OutcomeUnknown) -> OutcomeUnknown:
        """The same error with the names that the application gave in place of the streams'."""
        keys = self._keys or (EVERYONE,)
        done = [_spoken(key) for key, stream in zip(keys, self._streams(), strict=True) if stream in error.done]
        return OutcomeUnknown(error.mid, done)


def check_name(name: str) -> None:
    """Raise :class:`ValueError` if ``name`` can be no namespace's, :class:`TypeError` if it is no str."""
    if not isinstance(name, str):
        raise TypeError(f"a namespace's name is a str, like '/chat', not {type(name).__name__}")
    if not name.startswith("/") or "," in name or "?" in name or len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"{name!r} is no namespace: it begins with '/', has no ',' or '?' and at most {MAX_NAME_LENGTH} "
            "characters, like '/chat'"
        )


def concrete_name(name: str) -> str:
    """Return the name of a namespace that clients can be in. Raises as `check_name`, and ValueError for a pattern."""
    check_name(name)
    if "{" in name or "}" in name:
        raise ValueError(f"{name!r} is a pattern: name one of its namespaces, such as namespace(f'/org/{{org}}')")
    return name


def check_rooms(rooms: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``rooms``; raise :class:`TypeError` if one is no str."""
    for room in rooms:
        if not isinstance(room, str):
            raise TypeError(f"rooms are named by strings, not {type(room).__name__}: to('a', 'b')")
    return rooms


def _more(keys: tuple[K, ...], more: tuple[K, ...]) -> tuple[K, ...]:
    """Both, in the order in which they were named, each once: copies are appended in this order."""
    return tuple(dict.fromkeys((*keys, *more)))


def _spoken(key: Key) -> str:
    """How an error names whom an event was for."""
    return key if isinstance(key, str) else f"user {key.id}" if isinstance(key, User) else "the namespace"
