"""One WebSocket connection as its client has it (RFC 6455): all that is not as in ``websocket``.

A client masks every frame that it sends with four bytes nobody can foresee, so that it cannot be made to write bytes
of an attacker's choice through a proxy; it receives frames without a mask (sections 5.1, 5.3 and 10.3).
"""

import secrets
from collections.abc import Callable
from typing import ClassVar, Final

from typing_extensions import override

from bellwire.protocol.frames import BINARY, FIN, TEXT, build_frame
from bellwire.protocol.websocket import WebSocket

_WHOLE_TEXT: Final = FIN | TEXT
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

    @override
    def receive(self, data: bytes) -> list[str | bytes]:
        size = len(data)
        # As on the server's side: exactly one short text frame goes first, all else the general way.
        if self.fresh and size > 3 and data[0] == _WHOLE_TEXT and size - 2 <= self._max_message:
            length = data[1]
            try:
                if length == size - 2 and length < 126:
                    return [data[2:].decode()]
                if length == 126 and (data[2] << 8 | data[3]) == size - 4:
                    return [data[4:].decode()]
            except UnicodeDecodeError:
                pass
        return self._receive(data)

    @override
    def encode(self, message: str | bytes) -> bytes:
        """Return the frame of one message. A lone surrogate in a text is a UnicodeEncodeError."""
        if isinstance(message, str):
            return build_frame(TEXT, message.encode(), mask=self._new_mask())
        return build_frame(BINARY, message, mask=self._new_mask())

    @override
    def _new_mask(self) -> bytes:
        return self._random_bytes(_MASK_BYTES)
