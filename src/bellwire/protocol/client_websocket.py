"""One WebSocket connection as its client has it (RFC 6455): all that is not as in ``websocket``.

A client masks every frame that it sends with four bytes nobody can foresee, so that it cannot be made to write bytes
of an attacker's choice through a proxy; it receives frames without a mask (sections 5.1, 5.3 and 10.3).
"""

import secrets
from collections.abc import Callable
from typing import ClassVar, Final

from typing_extensions import override

from bellwire.protocol.frames import BINARY, TEXT, build_frame
from bellwire.protocol.websocket import WebSocket

_MASK_BYTES: Final = 4


class ClientWebSocket(WebSocket):
    """The client's end; ``random_bytes`` makes the masks. No compression: it offers none."""

    __slots__ = ("_random_bytes",)

    _peer_masks: ClassVar[int] = 0

    def __init__(
        self,
        *,
        max_message: int,
        max_fragments: int = 1024,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        super().__init__(max_message=max_message, max_fragments=max_fragments)
        self._random_bytes = random_bytes

    def encode(self, message: str | bytes) -> bytes:
        """Return the frame of one message. A lone surrogate in a text is a UnicodeEncodeError."""
        if isinstance(message, str):
            return build_frame(TEXT, message.encode(), mask=self._new_mask())
        return build_frame(BINARY, message, mask=self._new_mask())

    @override
    def _new_mask(self) -> bytes:
        return self._random_bytes(_MASK_BYTES)
