"""Events: the one place where an event's name, payload types and reply type are declared."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Generic, Literal, NoReturn, TypeAlias, TypeVar, TypeVarTuple, overload

import msgspec
from msgspec import inspect
from typing_extensions import TypeForm

from bellwire.core.rate import parse_rate

__all__ = [
    "OWN_NAME",
    "RESERVED_NAMES",
    "Event",
    "PlainText",
    "RichText",
    "TextKind",
    "require_event",
    "text_kind",
    "walk_types",
]

PlainText = Annotated[str, msgspec.Meta(extra={"bellwire": "plain"})]
"""Text without markup: tags are taken away, ``<``, ``>`` and ``&`` become entities before a handler sees it.

Lengths are checked on what arrived, before that: ``Annotated[PlainText, msgspec.Meta(max_length=2000)]``.
"""

RichText = Annotated[str, msgspec.Meta(extra={"bellwire": "rich"})]
"""Text with the markup of a list of harmless tags; all others are taken away before a handler sees it.

Lengths are checked on what arrived, before that; the result may be longer. `bellwire.guard.sanitise.rich_text`.
"""

TextKind: TypeAlias = Literal["plain", "rich"]
"""What is done to a text before a handler sees it."""

MAX_PAYLOAD_TYPES: Final = 5
MAX_NAME_LENGTH: Final = 128

RESERVED_NAMES: Final = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names that socket.io-parser 4.2 refuses on the wire, because its sockets emit them themselves."""

OWN_NAME: Final = "bellwire"
"""The name under which Bellwire's own messages travel inside Socket.IO, to clients that asked for them."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")
Q = TypeVar("Q")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


class Event(Generic[R, *Ts]):
    """An event that travels between server and clients: ``Event(name, *payload_types, reply=None)``.

    The payload types, at most five, are the types of the Socket.IO arguments in order: anything that
    msgspec reads from JSON (``str``, ``list[int]``, ``Annotated[str, msgspec.Meta(max_length=64)]``,
    unions, Structs, dataclasses, TypedDicts, ``Any``) and ``bytes``, which travel as attachments.
    ``reply`` is the type of the acknowledgement's one argument, None for an empty acknowledgement.

    Args:
        name: 1 to 128 characters, neither `OWN_NAME` nor one of `RESERVED_NAMES`.
        payload_types: the types of the arguments, in order.
        reply: the type of the reply.
        volatile: the event may be dropped for a receiver that is slow to read.
        rate: how often one connection may send it, within ``Config.message_rate``: ``"10/s"``, ``"30/min"``,
            ``"100/h"``; ``"off"`` leaves it out of ``Config.message_rate`` too.

    Raises:
        ValueError: the name or the rate has the wrong form.
        TypeError: a type cannot travel; there are more than five.

    An event is immutable, and equal to itself only: declare it once, import it everywhere.

    """

    __slots__ = (
        "binary",
        "name",
        "payload_types",
        "plain",
        "rate",
        "reply",
        "reply_binary",
        "volatile",
    )

    name: str
    """The name on the wire."""
    payload_types: tuple[Any, ...]
    """The types of the arguments."""
    reply: Any
    """The type of the reply, None if there is none."""
    volatile: bool
    """Whether the event may be dropped for a slow receiver."""
    rate: str | None
    """How often one connection may send it, as declared; None if nothing is said but in ``Config.message_rate``."""
    binary: bool
    """Whether a payload can hold bytes; False promises that JSON alone carries it."""
    reply_binary: bool
    """Whether the reply can hold bytes."""
    plain: bool
    """Whether there is a `PlainText` anywhere in the payload."""

    @overload
    def __init__(
        self: "Event[None]",
        name: str,
        /,
        *,
        reply: None = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[Q]",
        name: str,
        /,
        *,
        reply: TypeForm[Q],
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[None, T1]",
        name: str,
        p1: TypeForm[T1],
        /,
        *,
        reply: None = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[Q, T1]",
        name: str,
        p1: TypeForm[T1],
        /,
        *,
        reply: TypeForm[Q],
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[None, T1, T2]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        /,
        *,
        reply: None = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[Q, T1, T2]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        /,
        *,
        reply: TypeForm[Q],
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[None, T1, T2, T3]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        p3: TypeForm[T3],
        /,
        *,
        reply: None = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[Q, T1, T2, T3]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        p3: TypeForm[T3],
        /,
        *,
        reply: TypeForm[Q],
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[None, T1, T2, T3, T4]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        p3: TypeForm[T3],
        p4: TypeForm[T4],
        /,
        *,
        reply: None = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[Q, T1, T2, T3, T4]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        p3: TypeForm[T3],
        p4: TypeForm[T4],
        /,
        *,
        reply: TypeForm[Q],
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[None, T1, T2, T3, T4, T5]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        p3: TypeForm[T3],
        p4: TypeForm[T4],
        p5: TypeForm[T5],
        /,
        *,
        reply: None = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: "Event[Q, T1, T2, T3, T4, T5]",
        name: str,
        p1: TypeForm[T1],
        p2: TypeForm[T2],
        p3: TypeForm[T3],
        p4: TypeForm[T4],
        p5: TypeForm[T5],
        /,
        *,
        reply: TypeForm[Q],
        volatile: bool = False,
        rate: str | None = None,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        /,
        *payload_types: Any,
        reply: Any = None,
        volatile: bool = False,
        rate: str | None = None,
    ) -> None:
        _check_name(name)
        if len(payload_types) > MAX_PAYLOAD_TYPES:
            raise TypeError(
                f"Event({name!r}) has {len(payload_types)} payload types, {MAX_PAYLOAD_TYPES} are allowed: "
                "put the fields into one msgspec.Struct"
            )
        _check_rate(name, rate)
        payload = [info for type_ in payload_types for info in _check_type(name, "payload", type_)]
        answer = _check_type(name, "reply", reply) if reply is not None else []
        for attribute, value in (
            ("name", name),
            ("payload_types", payload_types),
            ("reply", reply),
            ("volatile", volatile),
            ("rate", rate),
            ("binary", any(map(_may_hold_bytes, payload))),
            ("reply_binary", any(map(_may_hold_bytes, answer))),
            ("plain", "plain" in map(text_kind, payload)),
        ):
            object.__setattr__(self, attribute, value)

    def __setattr__(self, attribute: str, value: object) -> NoReturn:
        raise AttributeError(f"{attribute!r} of {self!r} cannot be changed: declare another Event")

    def __delattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(f"{attribute!r} of {self!r} cannot be deleted")

    def __copy__(self) -> "Event[R, *Ts]":
        return self

    def __deepcopy__(self, memo: object) -> "Event[R, *Ts]":
        return self

    def __repr__(self) -> str:
        parts = [repr(self.name), *map(_type_name, self.payload_types)]
        if self.reply is not None:
            parts.append(f"reply={_type_name(self.reply)}")
        if self.volatile:
            parts.append("volatile=True")
        if self.rate is not None:
            parts.append(f"rate={self.rate!r}")
        return f"Event({', '.join(parts)})"


def require_event(value: object, where: str) -> None:
    """Raise the TypeError that names the fix if ``value`` is no `Event`; ``where`` is e.g. ``"chat.on"``."""
    if isinstance(value, Event):
        return
    if isinstance(value, str):
        constant = re.sub(r"\W+", "_", value).strip("_").upper() or "MESSAGE"
        if constant[0].isdigit():
            constant = f"EVENT_{constant}"
        raise TypeError(
            f"{where}({value!r}): events are declared once and passed as objects, not as strings; "
            f"declare {constant} = Event({value!r}, ...) and pass {constant}"
        )
    raise TypeError(
        f"{where} takes an Event, not {type(value).__name__}; "
        "declare one, such as MESSAGE = Event('message', ...), and pass it"
    )


def walk_types(info: inspect.Type) -> Iterator[inspect.Type]:
    """Yield ``info`` and every type inside it once; types may contain themselves."""
    seen, waiting = {id(info)}, [info]
    while waiting:
        here = waiting.pop()
        yield here
        for inner in _inner_types(here):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)


def text_kind(info: inspect.Type) -> TextKind | None:
    """What ``info`` is marked as, `PlainText` or `RichText`; None if it is not."""
    mark = (info.extra or {}).get("bellwire") if isinstance(info, inspect.Metadata) else None
    return mark if mark in ("plain", "rich") else None


def _inner_types(info: inspect.Type) -> list[inspect.Type]:
    single = (getattr(info, attribute, None) for attribute in ("type", "item_type", "key_type", "value_type"))
    inner: list[inspect.Type] = [one for one in single if one is not None]
    for attribute in ("types", "item_types"):
        inner.extend(getattr(info, attribute, ()))
    inner.extend(field.type for field in getattr(info, "fields", ()))
    return inner


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"an event's name is a str, not {type(name).__name__}: Event('message', ...)")
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"an event's name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}: choose another name")
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved by Socket.IO: choose another name, such as {f'app:{name}'!r}")
    if name == OWN_NAME:
        raise ValueError(f"{name!r} is reserved for Bellwire's own messages: choose another name, such as 'app:{name}'")
    if not name.isprintable():  # control characters and lone surrogates, which are no UTF-8
        raise ValueError(f"the event's name {name!r} has characters that cannot be printed: take them out")


def _check_rate(name: str, rate: object) -> None:
    try:
        if rate is not None:
            parse_rate(str(rate))
    except ValueError as error:
        raise ValueError(f"rate of Event({name!r}): {error}") from None


def _check_type(name: str, role: str, type_: Any) -> list[inspect.Type]:
    if isinstance(type_, str):
        raise TypeError(f"the {role} type of Event({name!r}) is the text {type_!r}: pass the type, not its name")
    # msgspec finds some mistakes when it describes a type, others when it builds the decoder.
    try:
        info = inspect.type_info(type_)
        msgspec.json.Decoder(type_)
    except (TypeError, NameError) as error:
        raise TypeError(
            f"the {role} type {_type_name(type_)} of Event({name!r}) cannot be read from JSON: {error}"
        ) from error
    inside = list(walk_types(info))
    for here in inside:
        if isinstance(here, inspect.CustomType) and here.cls is not object:
            raise TypeError(
                f"the {role} type {_type_name(type_)} of Event({name!r}) holds {_type_name(here.cls)}, "
                "which cannot travel as JSON: make it a msgspec.Struct, a dataclass or a TypedDict"
            )
        kind = text_kind(here)
        if kind is not None and not _holds_text(here):
            what = f"{kind.capitalize()}Text"
            raise TypeError(f"{what} of Event({name!r}) marks {_type_name(type_)}: it can only mark a str")
    return inside


def _holds_text(info: inspect.Type) -> bool:
    while isinstance(info, inspect.Metadata):
        info = info.type
    return isinstance(info, inspect.StrType)


def _may_hold_bytes(info: inspect.Type) -> bool:
    # A CustomType that passed the check is object.
    return isinstance(
        info,
        inspect.AnyType | inspect.CustomType | inspect.BytesType | inspect.ByteArrayType | inspect.MemoryViewType,
    )


def _type_name(type_: Any) -> str:
    return type_.__qualname__ if isinstance(type_, type) else str(type_)
