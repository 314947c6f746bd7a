"""A message on its way out: every wire variant is made once, on first use, and shared by all recipients.

A broadcast to a thousand clients encodes and frames its message once; each connection writes the same
``bytes`` object. A run of messages (:func:`join`) stands in for a single one everywhere, so a connection
that has several to send writes one object too.
"""

from collections.abc import Sequence

from bellwire.protocol.deflate import COMPRESSED_FROM, compress, extend
from bellwire.protocol.engineio import SEPARATOR, encode_base64, encode_payload
from bellwire.protocol.frames import BINARY, TEXT, build_binary, build_frame, build_text, frame_text


class Message:
    """What a connection sends: one message (:class:`Outgoing`) or several (:class:`Run`)."""

    __slots__ = ("_base64_parts", "_deflated", "_frames", "_frames_base64", "_parts", "_payload", "_size")

    def __init__(self, parts: tuple[str | bytes, ...] | None = None, frames: bytes | None = None) -> None:
        self._parts = parts
        self._frames = frames
        self._size: int | None = None
        self._base64_parts: tuple[str | bytes, ...] | None = None
        self._deflated: dict[tuple[int, bool], bytes] | None = None
        self._frames_base64: bytes | None = None
        self._payload: str | None = None

    @property
    def parts(self) -> tuple[str | bytes, ...]:
        """The Engine.IO packets: ``str`` with the type digit (``42["a"]``), ``bytes`` for binary ones."""
        parts = self._parts
        if parts is None:
            parts = self._parts = self._make_parts()
        return parts

    @property
    def size(self) -> int:
        """The bytes that ``frames`` has or will have; long-polling sends about as many, of binary ones a third more."""
        size = self._size
        if size is None:
            size = self._size = self._measure()
        return size

    @property
    def base64_parts(self) -> tuple[str | bytes, ...]:
        """The parts for a client that asked for ``b64=1``: all are text, binary ones ``b`` and base64."""
        parts = self._base64_parts
        if parts is None:
            parts = self._base64_parts = self._make_base64_parts()
        return parts

    @property
    def frames(self) -> bytes:
        """The parts as unmasked WebSocket frames, one after the other (RFC 6455 section 5)."""
        frames = self._frames
        if frames is None:
            frames = self._frames = self._make_frames()
        return frames

    @property
    def frames_base64(self) -> bytes:
        """The frames of ``base64_parts``."""
        frames = self._frames_base64
        if frames is None:
            frames = self._frames_base64 = self._make_frames_base64()
        return frames

    def deflated(self, bits: int, *, base64: bool = False) -> bytes:
        """The frames, compressed where that is worth it, for all that agreed on a window of ``2^bits`` bytes.

        ``base64`` is for those that asked for ``b64=1``.
        """
        if self._deflated is None:
            self._deflated = {}
        frames = self._deflated.get((bits, base64))
        if frames is None:
            frames = self._deflated[bits, base64] = self._make_deflated(bits, base64)
        return frames

    @property
    def payload(self) -> str:
        r"""The parts as a long-polling payload, joined by ``\x1e`` (Engine.IO protocol v4)."""
        payload = self._payload
        if payload is None:
            payload = self._payload = self._make_payload()
        return payload

    def _make_parts(self) -> tuple[str | bytes, ...]:
        raise NotImplementedError

    def _measure(self) -> int:
        raise NotImplementedError

    def _make_base64_parts(self) -> tuple[str | bytes, ...]:
        raise NotImplementedError

    def _make_frames(self) -> bytes:
        raise NotImplementedError

    def _make_frames_base64(self) -> bytes:
        raise NotImplementedError

    def _make_deflated(self, bits: int, base64: bool) -> bytes:
        raise NotImplementedError

    def _make_payload(self) -> str:
        raise NotImplementedError


class Outgoing(Message):
    """One message: its packet, and the binary packets that belong to it."""

    __slots__ = ()

    def __init__(self, *parts: str | bytes) -> None:
        Message.__init__(self, parts)

    def __repr__(self) -> str:
        return f"Outgoing({', '.join(map(repr, self.parts))})"

    def _measure(self) -> int:
        return sum(map(_frame_size, self.parts))

    def _make_base64_parts(self) -> tuple[str | bytes, ...]:
        if all(isinstance(part, str) for part in self.parts):
            return self.parts
        return tuple([part if isinstance(part, str) else encode_base64(part) for part in self.parts])

    def _make_frames(self) -> bytes:
        parts = self.parts
        if len(parts) == 1:
            return _build(parts[0])
        return b"".join(map(_build, parts))

    def _make_frames_base64(self) -> bytes:
        parts = self.base64_parts
        return self.frames if parts is self.parts else b"".join(map(_build, parts))

    def _make_deflated(self, bits: int, base64: bool) -> bytes:
        parts = self.base64_parts if base64 else self.parts
        return b"".join([_build_deflated(part, bits) for part in parts])

    def _make_payload(self) -> str:
        return encode_payload(self.parts)


class Single(Outgoing):
    """A text for one recipient: ``data`` is its packet as an encoder gives it, in UTF-8, and is framed at once."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        Message.__init__(self, None, frame_text(data))
        self._data = data

    def _make_parts(self) -> tuple[str | bytes, ...]:
        return (self._data.decode(),)

    def _measure(self) -> int:
        return _framed(len(self._data))

    def _make_deflated(self, bits: int, base64: bool) -> bytes:
        return self.frames if len(self._data) < COMPRESSED_FROM else super()._make_deflated(bits, base64)


class Stem:
    """What messages have in common that differ in the end of their text only: it is made once for all of them."""

    __slots__ = ("_attached", "_attachments", "_data", "_packed", "_text")

    def __init__(self, text: str, attachments: tuple[str | bytes, ...] = ()) -> None:
        self._packed: dict[int, tuple[bytes, bytes]] = {}
        self._text = text
        self._data = text.encode()
        self._attachments = attachments
        self._attached = b"".join(map(_build, attachments)) if attachments else b""

    def end(self, text: str) -> Outgoing:
        """Return the message whose text ends with ``text``, which is ASCII; attachments follow."""
        return _Ended(self, text)

    def packed(self, bits: int) -> tuple[bytes, bytes]:
        """Return the text as a compressed message, and the attachments' frames, for a window of ``2^bits`` bytes."""
        packed = self._packed.get(bits)
        if packed is None:
            attached = b"".join([_build_deflated(part, bits) for part in self._attachments])
            packed = self._packed[bits] = compress(self._data, bits), attached
        return packed


class _Ended(Outgoing):
    """A message that shares the bytes of its stem."""

    __slots__ = ("_end", "_stem")

    def __init__(self, stem: Stem, end: str) -> None:
        Message.__init__(self)
        self._stem = stem
        self._end = end

    def _make_parts(self) -> tuple[str | bytes, ...]:
        return (self._stem._text + self._end, *self._stem._attachments)

    def _measure(self) -> int:
        return _framed(len(self._stem._data) + len(self._end)) + len(self._stem._attached)

    def _make_frames(self) -> bytes:
        stem = self._stem
        return frame_text(stem._data + self._end.encode()) + stem._attached

    def _make_deflated(self, bits: int, base64: bool) -> bytes:
        if base64 and self._stem._attachments:
            return super()._make_deflated(bits, base64)
        data, end = self._stem._data, self._end.encode()
        text, attached = self._stem.packed(bits)
        return _choose(TEXT, data + end, extend(text, end)) + attached


class Run(Message):
    """Several messages that leave together, made of what each of them has made already."""

    __slots__ = ("_members",)

    def __init__(self, members: Sequence[Message]) -> None:
        super().__init__()
        self._members = members

    def __repr__(self) -> str:
        return f"Run({list(self._members)!r})"

    def _make_parts(self) -> tuple[str | bytes, ...]:
        return tuple([part for member in self._members for part in member.parts])

    def _measure(self) -> int:
        return sum([member.size for member in self._members])

    def _make_base64_parts(self) -> tuple[str | bytes, ...]:
        return tuple([part for member in self._members for part in member.base64_parts])

    def _make_frames(self) -> bytes:
        return b"".join([member.frames for member in self._members])

    def _make_frames_base64(self) -> bytes:
        return b"".join([member.frames_base64 for member in self._members])

    def _make_deflated(self, bits: int, base64: bool) -> bytes:
        return b"".join([member.deflated(bits, base64=base64) for member in self._members])

    def _make_payload(self) -> str:
        return SEPARATOR.join([member.payload for member in self._members])


def join(messages: Sequence[Message]) -> Message:
    """Make one message of several, in their order; a single one is given back as it is.

    The sequence is kept: hand over one that is not changed afterwards. Raises ValueError if it is empty.
    """
    if len(messages) == 1:
        return messages[0]
    if not messages:
        raise ValueError("there is no message to join")
    return Run(messages)


def _build(part: str | bytes) -> bytes:
    return build_text(part) if isinstance(part, str) else build_binary(part)


def _build_deflated(part: str | bytes, bits: int) -> bytes:
    opcode, data = (TEXT, part.encode()) if isinstance(part, str) else (BINARY, part)
    return _choose(opcode, data, compress(data, bits) if len(data) >= COMPRESSED_FROM else data)


def _choose(opcode: int, data: bytes, packed: bytes) -> bytes:
    """Build the frame of what is shorter (RFC 7692 section 6: RSV1 says that a message is compressed)."""
    shorter = len(data) >= COMPRESSED_FROM and len(packed) < len(data)
    return build_frame(opcode, packed if shorter else data, rsv1=shorter)


def _frame_size(part: str | bytes) -> int:
    """Bytes of a part as an unmasked frame: UTF-8 and a head of 2, 4 or 10 bytes (RFC 6455 section 5.2)."""
    length = len(part)
    if isinstance(part, str) and not part.isascii():
        length = len(part.encode())
    return _framed(length)


def _framed(length: int) -> int:
    if length < 126:
        return length + 2
    return length + (4 if length < 65_536 else 10)
