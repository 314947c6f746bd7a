"""Events as packets: checked against their declaration, encoded once."""

from typing import Any

from bellwire.core.events import Event, require_event
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.post import Post
from bellwire.protocol.socketio import encode_event


def pack(
    namespace: str, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...], ack: int | None = None
) -> Outgoing:
    """The packet of ``event`` with ``payload``; ``ack``, a number, asks for an acknowledgement.

    Raises:
        TypeError: ``event`` is no :class:`Event`, ``payload`` has not as many items as the event has types, or one of
            them cannot be encoded.
        TooManyAttachments: there are more binary attachments in it than clients take.

    """
    _check(event, payload)
    return encode_event(namespace, (event.name, *payload), id=ack, binary=event.binary)


def post(namespace: str, event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...], ack: int | None = None) -> Post:
    """The same for every wire; see :func:`pack`."""
    _check(event, payload)
    return Post(namespace, event.name, payload, binary=event.binary, id=ack)


def _check(event: Event[Any, *tuple[Any, ...]], payload: tuple[Any, ...]) -> None:
    if type(event) is not Event:
        require_event(event, "emit")
    if len(payload) != len(event.payload_types):
        raise TypeError(
            f"{event.name!r} takes {len(event.payload_types)} payload argument(s), {len(payload)} were given: "
            "give one for each type of its Event"
        )
