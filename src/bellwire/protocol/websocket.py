"""One WebSocket connection after the opening handshake: bytes in, messages out (RFC 6455).

This is the server's side; what a client does otherwise is in ``client_websocket``.

The life of a connection (section 7; a row is ``(state, event): (next state, is a close frame sent?)``)
is the table below. CLOSED means that the protocol is done: write what is outgoing, then close the TCP
connection, which is the server's part to do first (section 7.1.1).
"""

import codecs
from typing import ClassVar, Final

from bellwire.core.errors import WebSocketError
from bellwire.protocol.deflate import Inflate
from bellwire.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL,
    FIN,
    MASK,
    PING,
    PONG,
    RSV1,
    TEXT,
    build_close,
    build_frame,
    parse_close,
    parse_header,
    unmask,
)

OPEN: Final = 0
CLOSING: Final = 1
CLOSED: Final = 2

_WE_CLOSE: Final = "we close"
_PEER_CLOSES: Final = "peer closes"
_FAILED: Final = "failed"

TRANSITIONS: Final = {
    (OPEN, _WE_CLOSE): (CLOSING, True),  # section 7.1.2: start the closing handshake
    (OPEN, _PEER_CLOSES): (CLOSED, True),  # section 5.5.1: answer a close frame with one
    (OPEN, _FAILED): (CLOSED, True),  # section 7.1.7: send the code of what was wrong
    (CLOSING, _WE_CLOSE): (CLOSING, False),
    (CLOSING, _PEER_CLOSES): (CLOSED, False),  # section 7.1.4: the handshake is complete
    (CLOSING, _FAILED): (CLOSED, False),  # section 5.5.1: nothing follows a close frame
    (CLOSED, _WE_CLOSE): (CLOSED, False),
}

_WHOLE_TEXT: Final = FIN | TEXT
_WHOLE_BINARY: Final = FIN | BINARY
_WHOLE: Final = (_WHOLE_TEXT, _WHOLE_BINARY)

_NO_MASK: Final = bytes(4)  # taking it off changes nothing


class _Incoming:
    """A message that has begun and is not complete; its bytes are here, unmasked, as they arrive."""

    __slots__ = ("checked", "compressed", "data", "fin", "fragments", "mask", "remaining", "text")

    def __init__(self, text: bool, compressed: bool) -> None:
        self.text = text
        self.compressed = compressed
        self.data = bytearray()
        self.checked = 0  # bytes of data known to be the beginning of valid UTF-8
        self.fragments = 0
        # of the frame being received
        self.fin = False
        self.mask = b""
        self.remaining = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the current frame; raise 1007 at the first that cannot be UTF-8."""
        self.data += unmask(chunk, self.mask)
        size = len(chunk)
        self.remaining -= size
        if self.remaining:
            turn = size & 3
            self.mask = self.mask[turn:] + self.mask[:turn]
        if self.text and not self.compressed:
            try:
                self.checked += codecs.utf_8_decode(self.data[self.checked :], "strict", False)[1]
            except UnicodeDecodeError:
                raise WebSocketError(1007, "text is not UTF-8") from None


class WebSocket:
    """The state of one connection; it holds no buffer while no message is under way.

    ``max_message`` bounds a message in bytes, after decompression too, and is applied to the length in
    a frame's header, before its payload arrives; a compressed payload may be an eighth longer, which is
    more than DEFLATE ever adds. ``max_fragments`` bounds the frames of one message, empty ones too.
    What is held for a peer is at most one message of that size, or a control frame.

    - ``outgoing``: bytes to be written before anything else; take them with ``take_outgoing`` after
      each ``receive`` and ``close``. They are never more than what was received since, and a close frame.
    - ``state``: OPEN, CLOSING or CLOSED.
    - ``close_code``: the code of the peer's close frame, 1005 if it had none (section 7.1.5); 1006 if
      the connection failed before; None until then.
    - ``error``: why this side failed the connection, None if it did not.
    - ``fresh``: whether it is open, and at the boundary of a message; all that was received is dealt with.
    - ``more``: whether ``receive`` stopped before the end, because a few compressed bytes became as many as a message
      may have: ``receive(b"")`` gives what follows, when those before have been dealt with.
    """

    __slots__ = (
        "_incoming",
        "_inflate",
        "_inflated",
        "_max_fragments",
        "_max_message",
        "_rest",
        "close_code",
        "error",
        "fresh",
        "more",
        "outgoing",
        "state",
    )

    _peer_masks: ClassVar[int] = MASK
    """The mask bit of the frames that are received; section 5.1: a client masks all of its frames, a server none."""

    def __init__(self, *, max_message: int, max_fragments: int = 1024, inflate: Inflate | None = None) -> None:
        self.state: int = OPEN
        self.outgoing: bytes | bytearray = b""
        self.close_code: int | None = None
        self.error: WebSocketError | None = None
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._inflate = inflate
        self.fresh = True
        self.more = False
        self._inflated = 0  # bytes of compressed messages in this call of receive()
        self._rest = b""  # an incomplete header or control frame
        self._incoming: _Incoming | None = None

    def receive(self, data: bytes) -> list[str | bytes]:
        """Take bytes from the peer, in any portions, and return the messages they complete, in order.

        A text message is a ``str``, a binary one ``bytes``. Never raises: a peer that breaks the
        protocol finds the connection failed (``state`` CLOSED, ``error`` set, the close frame in
        ``outgoing``). Pings are answered and a close frame is echoed in ``outgoing``. After ``close``
        messages are ignored (section 1.4), after the end of the connection everything is.
        """
        messages: list[str | bytes] = []
        if not self.fresh:
            return self._receive(data, messages)
        start, size = 0, len(data)
        masked, longest = self._peer_masks, self._max_message
        # The most common first: messages of one short frame that is all here. Whatever else comes, or
        # is wrong with them, is left to the general way, from there on.
        while start + 4 <= size and (first := data[start]) in _WHOLE:
            length = data[start + 1] ^ masked
            body = start + (6 if masked else 2)
            if length == 126:
                length = data[start + 2] << 8 | data[start + 3]
                body += 2
            elif length > 126:  # longer, or with the wrong mask bit
                break
            end = body + length
            if end > size or length > longest:
                break
            payload = unmask(data[body:end], data[body - 4 : body]) if masked else data[body:end]
            try:
                messages.append(payload.decode() if first == _WHOLE_TEXT else payload)
            except UnicodeDecodeError:
                break
            start = end
        return messages if start == size else self._receive(data[start:], messages)

    def take_outgoing(self) -> bytes:
        """Return the bytes to be written now and forget them."""
        outgoing = bytes(self.outgoing)
        self.outgoing = b""
        return outgoing

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake (section 7.1.2); without effect if it has been started.

        Raises ValueError for a code or a reason that may not be sent.
        """
        self._step(_WE_CLOSE, code, reason)

    def _step(self, event: str, code: int, reason: str = "") -> None:
        state, sends_close = TRANSITIONS[self.state, event]
        if sends_close:
            self._send(build_close(code, reason, mask=self._new_mask()))
        self.state = state
        self.fresh = False

    def _new_mask(self) -> bytes:
        """The mask of the next frame that is sent: a server's has none."""
        return b""

    def _send(self, frame: bytes) -> None:
        if self.outgoing:
            self.outgoing += frame  # a bytearray from here on: many pings at once stay linear
        else:
            self.outgoing = bytearray(frame)

    def _receive(self, data: bytes, messages: list[str | bytes]) -> list[str | bytes]:
        """Receive what is not whole messages of one frame each; ``messages`` came before it."""
        if self.state == CLOSED:
            return []
        self._inflated, self.more = 0, False
        heard = self.state == OPEN
        try:
            self._read_frames(data, messages)
        except WebSocketError as error:
            self.error = WebSocketError(error.close_code, error.reason)  # without what led to it
            self.close_code = 1006
            self._step(_FAILED, error.close_code, error.reason)
        if self.state == CLOSED:
            self._rest, self._incoming = b"", None
        self.fresh = self.state == OPEN and not self._rest and self._incoming is None
        return messages if heard else []

    def _read_frames(self, data: bytes, messages: list[str | bytes]) -> None:
        start = self._continue_payload(data, messages)
        if self._rest:
            data, self._rest = self._rest + data, b""
        end = len(data)
        masked = self._peer_masks
        while start < end and self.state != CLOSED:
            if self._inflated >= self._max_message:
                self._rest, self.more = data[start:], True
                return
            first = data[start]
            header, size = parse_header(data, start, end, masked)
            body = start + header
            start = body + size
            mask = data[body - 4 : body] if masked else _NO_MASK
            if end < body or (first & CONTROL and end < start):
                self._rest = data[body - header :]
            elif first & CONTROL:
                self._take_control(first & 0x0F, unmask(data[body:start], mask))
            elif start <= end and self._incoming is None and first in (_WHOLE_TEXT, _WHOLE_BINARY):
                self._limit(size, self._max_message)
                payload = unmask(data[body:start], mask)
                messages.append(_decode(payload) if first == _WHOLE_TEXT else payload)
            else:
                incoming = self._begin_frame(first, size, mask)
                self._feed(incoming, data[body:start], messages)

    def _continue_payload(self, data: bytes, messages: list[str | bytes]) -> int:
        """Give the current frame what belongs to it; return how much that was."""
        incoming = self._incoming
        if incoming is None or not incoming.remaining:
            return 0
        taken = min(incoming.remaining, len(data))
        self._feed(incoming, data[:taken], messages)
        return taken

    def _begin_frame(self, first: int, size: int, mask: bytes) -> _Incoming:
        """Apply the rules of fragmentation (section 5.4) and of RSV1 (RFC 7692, section 6) to a header."""
        incoming = self._incoming
        if first & 0x0F == CONTINUATION:
            if incoming is None or first & RSV1:
                raise WebSocketError(1002, "nothing to continue")
        elif incoming is not None:
            raise WebSocketError(1002, "message within a message")
        elif first & RSV1 and self._inflate is None:
            raise WebSocketError(1002, "compression was not negotiated")
        else:
            incoming = self._incoming = _Incoming(first & 0x0F == TEXT, first & RSV1 != 0)
        limit = self._max_message
        self._limit(len(incoming.data) + size, limit + (limit >> 3) + 64 if incoming.compressed else limit)
        incoming.fragments += 1
        if incoming.fragments > self._max_fragments:
            raise WebSocketError(1009, "too many fragments")
        incoming.fin = first & FIN != 0
        incoming.mask = mask
        incoming.remaining = size
        return incoming

    def _feed(self, incoming: _Incoming, chunk: bytes, messages: list[str | bytes]) -> None:
        incoming.feed(chunk)
        if incoming.fin and not incoming.remaining:
            self._incoming = None
            payload = bytes(incoming.data)
            if incoming.compressed and self._inflate is not None:
                payload = self._inflate.decompress(payload, self._max_message)
                self._inflated += len(payload)
            messages.append(_decode(payload) if incoming.text else payload)

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._send(build_frame(PONG, payload, mask=self._new_mask()))  # section 5.5.2, as long as no close has come
        elif opcode == CLOSE:
            self.close_code = parse_close(payload)
            self._step(_PEER_CLOSES, self.close_code)

    @property
    def unfinished(self) -> int:
        """Bytes of a message that has begun and is not complete."""
        return len(self._rest) + (len(self._incoming.data) if self._incoming is not None else 0)

    @staticmethod
    def _limit(size: int, limit: int) -> None:
        if size > limit:
            raise WebSocketError(1009, "message is too long")


def _decode(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise WebSocketError(1007, "text is not UTF-8") from None
