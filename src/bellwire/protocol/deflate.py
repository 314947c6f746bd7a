"""The permessage-deflate extension (RFC 7692): negotiation, and the compression of messages.

No message of ours refers to one before it (``server_no_context_takeover``, which a server may demand, section 7.1.1.1).
So a broadcast is compressed once for all that agreed on the same window, and a connection has no compressor: zlib takes
``2^(bits + 2) + 2^(level + 9)`` bytes for one (zconf.h), 32 KiB at the default of 12 bits with the memory level that
follows the window here. A decompressor takes ``2^bits`` bytes and some 7 KiB. It is made for the first compressed
message of a client, and kept if those that follow may refer to it.
"""

import re
import struct
import zlib
from typing import Final, NamedTuple

from bellwire.core.errors import WebSocketError

NAME: Final = "permessage-deflate"

DEFAULT_WINDOW_BITS: Final = 12

COMPRESSED_FROM: Final = 256
"""Bytes of a message from which it is compressed, as RFC 7692 leaves to the sender, message by message (section 6).

JSON of a chat becomes 80 per cent of 196 bytes and 75 per cent of 264, for 6 us: both fit the same packet. Of 1,160
bytes 56 per cent are left, of 4,232 bytes 44.
"""

# Section 7.2.1: a sender takes these four bytes, the end of an empty stored block, off its message.
_TAIL: Final = b"\x00\x00\xff\xff"

# Section 7.2.3.4 allows blocks with BFINAL set in a message. Each ends a stream, and what follows is
# copied into the next; a message of nothing else would cost quadratic time, so their number is capped.
_MAX_STREAMS: Final = 16

# RFC 6455, section 9.1: extension-param = token [ "=" ( token | quoted-string ) ], and a quoted value
# must be a token as well once the quotes are off.
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = re.compile(rf'[ \t]*({_WORD})[ \t]*(?:=[ \t]*(?:({_WORD})|"({_WORD})")[ \t]*)?')
_BITS: Final = re.compile(r"8|9|1[0-5]")  # section 7.1.2: decimal, no leading zeros, 8 to 15

_FLAGS: Final = frozenset(("server_no_context_takeover", "client_no_context_takeover"))

_MAX_STORED: Final = 65_535  # RFC 1951, section 3.2.4


def compress(payload: bytes, bits: int) -> bytes:
    """Return the payload of a compressed message (section 7.2.1) that refers at most ``2^bits`` bytes back."""
    if not payload:
        return b"\x00"  # section 7.2.3.6
    compressor = _new_compressor(bits)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def extend(payload: bytes, rest: bytes) -> bytes:
    """Return the compressed message ``payload`` with ``rest`` behind its text, as it is: for an end that others lack.

    Compressed messages can be put together of blocks (section 7.2.3.5), and a block may be stored (RFC 1951, section
    3.2.4).
    """
    blocks = [payload]
    for start in range(0, len(rest), _MAX_STORED):
        stored = rest[start : start + _MAX_STORED]
        blocks += [_TAIL, struct.pack("<BHH", 0, len(stored), len(stored) ^ 0xFFFF), stored, b"\x00"]
    return b"".join(blocks)


class Parameters(NamedTuple):
    """What was agreed beside ``server_no_context_takeover`` (section 7.1)."""

    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


class Inflate:
    """Decompresses the messages of one connection, in their order."""

    __slots__ = ("_decompressor", "parameters")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._decompressor: zlib._Decompress | None = None

    def decompress(self, payload: bytes, limit: int) -> bytes:
        """Return the message that was compressed to ``payload`` (section 7.2.2), at most ``limit`` bytes.

        Raises WebSocketError: 1009 as soon as there is more output than ``limit``, whatever the input
        still holds; 1007 for a payload that is not DEFLATE (RFC 1951). The connection must end then,
        the state of the decompressor is of no use any more.
        """
        decompressor = self._decompressor or _new_decompressor(self.parameters.client_max_window_bits)
        streams = 1
        try:
            message = decompressor.decompress(payload + _TAIL, limit + 1)
            while decompressor.eof and len(message) <= limit and streams <= _MAX_STREAMS:
                # Who ends a stream starts over as well, so no window is carried into the next one.
                rest, streams = decompressor.unused_data, streams + 1
                decompressor = _new_decompressor(self.parameters.client_max_window_bits)
                message += decompressor.decompress(rest, limit + 1 - len(message))
        except zlib.error:
            raise WebSocketError(1007, "compressed message is damaged") from None
        if len(message) > limit:
            raise WebSocketError(1009, "message is too long")
        if streams > _MAX_STREAMS:
            raise WebSocketError(1007, "compressed message has too many final blocks")
        self._decompressor = None if self.parameters.client_no_context_takeover else decompressor
        return message


def negotiate(offer: str | None, *, max_window_bits: int = DEFAULT_WINDOW_BITS) -> tuple[Inflate, str] | None:
    """Choose among the client's offers: the first acceptable one (section 7.1), or None.

    ``offer`` is the value of ``Sec-WebSocket-Extensions``. Returns what decompresses for the connection, and the
    value for the response's field of the same name. ``max_window_bits`` (8 to 15) bounds both windows
    where the client lets us.

    An offer is declined if a parameter is unknown, comes twice or has an impossible value (section
    7.1) or does not follow the grammar (RFC 6455, section 9.1): a connection without compression is
    what every client must be prepared for.
    """
    if offer is None:
        return None
    for item in offer.split(","):
        name, *parameters = item.split(";")
        if name.strip() == NAME:
            asked = _parse_parameters(parameters)
            if asked is not None:
                agreed = _agree(asked, max_window_bits)
                return Inflate(agreed), _describe(agreed, asked)
    return None


def _parse_parameters(parameters: list[str]) -> dict[str, str | None] | None:
    """Return the parameters of one offer, None if it must be declined."""
    asked: dict[str, str | None] = {}
    for parameter in parameters:
        match = _PARAMETER.fullmatch(parameter)
        if match is None or match[1] in asked or not _is_valid(match[1], match[2] or match[3]):
            return None
        asked[match[1]] = match[2] or match[3]
    return asked


def _is_valid(name: str, value: str | None) -> bool:
    if name in _FLAGS:
        return value is None
    if name == "client_max_window_bits":  # without a value it says only that the client knows it
        return value is None or _BITS.fullmatch(value) is not None
    return name == "server_max_window_bits" and value is not None and _BITS.fullmatch(value) is not None


def _agree(asked: dict[str, str | None], max_window_bits: int) -> Parameters:
    client_bits = 15
    if "client_max_window_bits" in asked:  # else the answer must not name it, section 7.1.2.2
        client_bits = min(int(asked["client_max_window_bits"] or 15), max_window_bits)
    return Parameters(
        client_no_context_takeover="client_no_context_takeover" in asked,
        server_max_window_bits=min(int(asked.get("server_max_window_bits") or 15), max_window_bits),
        client_max_window_bits=client_bits,
    )


def _describe(agreed: Parameters, asked: dict[str, str | None]) -> str:
    """Return the response's field value; what is the default and was not asked for stays unsaid."""
    words = [NAME, "server_no_context_takeover"]
    if agreed.client_no_context_takeover:
        words.append("client_no_context_takeover")
    for name in ("server_max_window_bits", "client_max_window_bits"):
        bits = getattr(agreed, name)
        if bits < 15 or asked.get(name) is not None:
            words.append(f"{name}={bits}")
    return "; ".join(words)


def _new_compressor(bits: int) -> "zlib._Compress":
    """Return a raw compressor that never refers further back than ``2^bits`` bytes.

    zlib has no raw window of 256 bytes (deflateInit2 in its manual); with the run-length strategy it
    refers back by one byte only, which fits the smallest window that may be agreed.
    """
    if bits == 8:
        return zlib.compressobj(wbits=-9, memLevel=2, strategy=zlib.Z_RLE)
    return zlib.compressobj(wbits=-bits, memLevel=bits - 7)


def _new_decompressor(bits: int) -> "zlib._Decompress":
    """Return a raw decompressor; a larger window is harmless, and some senders take nine bits for eight."""
    return zlib.decompressobj(wbits=-max(bits, 9))
