"""Events as packets: checked against their declaration, encoded once."""

from typing import Any, Final

from bellwire.core.events import Event, require_event
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.post import Post
from bellwire.protocol.socketio import encode_event

MAX_MID: Final = 128
"""Characters of a message's id."""


def pack(
    namespace: str, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...], ack: int | None = None
) -> Outgoing:
    """The packet of ``event`` with ``payload``; ``ack``, a number, asks for an acknowledgement.

    Raises:
        TypeError: ``event`` is no :class:`Event`, ``payload`` has not as many items as the event has types, or one of
            them cannot be encoded.
        TooManyAttachments: there are more binary attachments in it than clients take.

    """
    _check(event, payload, "emit" if ack is None else "call")
    try:
        return encode_event(namespace, (event.name, *payload), id=ack, binary=event.binary)
    except TypeError as error:
        raise unsendable(event, error) from None


def post(namespace: str, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...], ack: int | None = None) -> Post:
    """The same for every wire; see :func:`pack`."""
    _check(event, payload, "emit" if ack is None else "call")
    try:
        return Post(namespace, event.name, payload, binary=event.binary, id=ack)
    except TypeError as error:
        raise unsendable(event, error) from None


def unsendable(event: Event[Any, *tuple[Any, ...]], error: TypeError) -> TypeError:
    """The error of a payload that msgspec cannot encode, with the event's name and what would be right."""
    return TypeError(
        f"{event.name!r} cannot be sent: {error}; pass what its Event declares, a Struct, a dataclass or plain values, "
        "and no Pydantic model"
    )


def check_mid(event: Event[Any, *tuple[Any, ...]], mid: object) -> None:
    """Check what the caller names a message.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty or too long, or the event is in no log, where a double of it could be found.

    """
    if mid is None:
        return
    if not isinstance(mid, str):
        raise TypeError(f"mid is a str, not {type(mid).__name__}: emit(..., mid=str(order.id))")
    if not 0 < len(mid) <= MAX_MID:
        raise ValueError(f"mid has {len(mid)} characters: give 1 to {MAX_MID}")
    if event.volatile:
        raise ValueError(f"mid= with {event.name!r}, which is volatile and in no history: leave it out")


def _check(event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...], where: str) -> None:
    if type(event) is not Event:
        require_event(event, where)
    if len(payload) != len(event.payload_types):
        raise TypeError(
            f"{event.name!r} takes {len(event.payload_types)} payload argument(s), {len(payload)} were given: "
            "give one for each type of its Event"
        )
