"""One function for each parser of bytes that others send: any input ends in a value or in the error that it declares.

`tests.fuzz` drives them with inputs that it finds by the code that they reach, `test_targets` with `SEEDS`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from bellwire.brokers.envelope import Unreadable, unseal
from bellwire.core.errors import ConnectRefused, EventRefused, PacketError, WebSocketError
from bellwire.core.events import Event, PlainText
from bellwire.delivery import offset
from bellwire.guard.origin import Origins, parse_origin
from bellwire.guard.proxies import Proxies
from bellwire.guard.sanitise import plain_text, rich_text
from bellwire.guard.schema import PayloadReader, ReplyReader
from bellwire.protocol import client_handshake, embedding, engineio, socketio, wire
from bellwire.protocol.deflate import Inflate, Parameters, compress, negotiate
from bellwire.protocol.handshake import HandshakeError, check_upgrade
from bellwire.protocol.post import Post
from bellwire.protocol.websocket import WebSocket
from bellwire.transports.base import Request, parse_query
from tests.protocol.plain import check_plain

Target: TypeAlias = Callable[[bytes], None]

LIMIT: Final = 4096
"""Bytes of a message; small, so that what passes it is found."""


# --- WebSocket


def websocket(data: bytes) -> None:
    """The first byte says whether compression was agreed, and in which portions the rest comes; then byte by byte.

    A byte is never a whole frame, so that nothing is read the short way then.
    """
    first, stream = data[:1] or b"\0", data[1:]
    compressed = bool(first[0] & 1)
    assert _conversation(stream, 1 + (first[0] >> 1), compressed) == _conversation(stream, 1, compressed)


def _conversation(stream: bytes, size: int, compressed: bool) -> tuple[object, ...]:
    """Receive it in portions of so many bytes; all that was seen of it."""
    inflate = Inflate(Parameters()) if compressed else None
    ws = WebSocket(max_message=LIMIT, max_fragments=16, inflate=inflate)
    received, messages = 0, []
    for portion in _portions(stream, size):
        received += len(portion)
        for message in _received(ws, portion):
            assert len(message.encode() if isinstance(message, str) else message) <= LIMIT
            messages.append(message)
        assert ws.unfinished <= LIMIT + (LIMIT >> 3) + 64 + 14 + 125
    assert len(ws.outgoing) <= received + 131
    assert ws.error is None or ws.error.close_code in (1002, 1007, 1009)
    return messages, bytes(ws.outgoing), ws.state, ws.close_code


def _portions(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _received(ws: WebSocket, data: bytes) -> Iterator[str | bytes]:
    yield from ws.receive(data)
    while ws.more:
        yield from ws.receive(b"")


def deflate(data: bytes) -> None:
    """An offer up to the first line break, and two messages of the rest."""
    offer, _, payload = data.partition(b"\n")
    agreed = negotiate(offer.decode("latin-1"))
    codec = Inflate(Parameters()) if agreed is None else agreed[0]
    try:
        for message in payload[::2], payload:
            assert len(codec.decompress(message, LIMIT)) <= LIMIT
    except WebSocketError as error:
        assert error.close_code in (1007, 1009)


def handshake(data: bytes) -> None:
    """A request's head, and what the server reads in it; then a response's, for the client."""
    line, _, fields = data.partition(b"\n")
    request = Request(path="/", query_string=line, head=fields)
    assert isinstance(request.cookies, dict)
    parse_query(line)
    negotiate(request.headers.get("sec-websocket-extensions"))
    try:
        check_upgrade("GET", "1.1", request.headers)
    except HandshakeError as error:
        assert error.status in (400, 405, 426)
    response = client_handshake.Response(b"dGhlIHNhbXBsZSBub25jZQ==", (wire.JSON,))
    with contextlib.suppress(client_handshake.ResponseError):
        response.receive(data)


def plain_head(data: bytes) -> None:
    """A head that needs no parser, and what a parser reads in it."""
    check_plain(data)


_ORIGINS: Final = Origins(["https://a.example", "https://*.b.example:*", "http://[::1]:8000"])
_PROXIES: Final = Proxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


def edge(data: bytes) -> None:
    """An ``Origin`` header and what a proxy adds, up to the first line break and behind it."""
    origin, _, forwarded = data.decode("latin-1").partition("\n")
    _ORIGINS.judge(origin, parse_origin("https://a.example"))
    for name in ("x-forwarded-for", "forwarded"):
        seen = _PROXIES.see(("127.0.0.1", 1), "http", {name: forwarded, "x-forwarded-proto": origin, "host": origin})
        assert seen.client is not None
        assert seen.scheme in ("http", "https")


# --- Engine.IO and Socket.IO


def engine_io(data: bytes) -> None:
    """A payload of long-polling, the packets in it, a handshake, an upgrade, a request."""
    upgrade = engineio.Upgrade()
    try:
        for packet in engineio.decode_payload(data, max_packets=64):
            upgrade.receive(packet)
            _declared(lambda packet=packet: engineio.read_packet(packet))  # type: ignore[misc]
    except PacketError:
        pass
    text = data.decode("latin-1")
    _declared(lambda: engineio.decode_handshake(text))
    query = parse_query(data)
    for method in ("GET", "POST"):
        try:
            engineio.check_request(
                method=method, query=query, transport_of={"x": "polling"}.get, is_upgrade=False, origin=text
            )
        except engineio.RequestError as error:
            assert error.status in (400, 403)


def socket_io(data: bytes) -> None:
    """A packet's text up to the first zero byte, and as many attachments as there are further ones."""
    head, *attachments = data.split(b"\0")
    _declared(lambda: _packet(head.decode(errors="replace"), attachments))


def _packet(text: str, attachments: list[bytes]) -> None:
    packet = socketio.parse_packet(text)
    assert msgspec.structs.replace(packet, name="") == socketio.parse_header(text, socketio.MAX_ATTACHMENTS)
    if packet.type == socketio.CONNECT:
        auth = socketio.check_connect_payload(packet.payload)
        embedding.take_hello(auth)
    elif packet.type == socketio.EVENT:
        assert socketio.event_name(packet.payload) == socketio.name_of(packet)
    elif packet.type == socketio.ACK:
        socketio.check_ack_payload(packet.payload)
    elif packet.type in (socketio.BINARY_EVENT, socketio.BINARY_ACK):
        assembly = socketio.Assembly(packet, max_bytes=LIMIT)
        for attachment in attachments:
            if assembly.add(attachment):
                assembly.resolve()
    elif packet.type == socketio.CONNECT_ERROR:
        socketio.read_refusal(packet.payload)


def embedded(data: bytes) -> None:
    """A packet whose event may be one of bellwire.v1, from either side."""
    text = data.decode(errors="replace")
    readers: tuple[Callable[[socketio.Packet], object], ...] = (
        embedding.take_number,
        embedding.take_place,
        embedding.is_message,
        embedding.read_request,
        embedding.read_control,
    )
    for read in readers:
        _declared(lambda read=read: read(socketio.parse_packet(text)))  # type: ignore[misc]
    _declared(lambda: embedding.read_welcome(text))


# --- bellwire.v1


def wire_v1(data: bytes) -> None:
    """A message from either side, in both encodings."""
    for read in (wire.parse, wire.parse_server):
        _declared(lambda read=read: read(data))  # type: ignore[misc]
        _declared(lambda read=read: read(data.decode(errors="replace")))  # type: ignore[misc]


# --- payloads


class Draft(msgspec.Struct):
    room: Annotated[str, msgspec.Meta(max_length=8)]
    text: PlainText
    below: list["Draft"] = []
    data: bytes = b""


_PAYLOADS: Final = ((), (int,), (Draft,), (Any, str | None), (float,), (str, list[bool]))
_READERS: Final = [PayloadReader(Event("x", *types)) for types in _PAYLOADS]
_REPLIES: Final = [
    ReplyReader(Event("x", reply=Draft)),
    ReplyReader(Event("x", reply=Any)),
    ReplyReader(Event("x", reply=int | None)),
]


def schema(data: bytes) -> None:
    """A payload, and a reply; what was read can be sent to all others."""
    text = data.decode(errors="replace")
    for reader in _READERS:
        arguments = _declared(lambda reader=reader: reader.read(text))  # type: ignore[misc]
        assert arguments == _declared(lambda reader=reader: reader.read_in_full(text))  # type: ignore[misc]
        for argument in arguments or ():
            msgspec.msgpack.encode(argument)
    for reply in _REPLIES:
        _declared(lambda reply=reply: reply.read(text))  # type: ignore[misc]


def sanitise(data: bytes) -> None:
    """What people type."""
    written = data.decode(errors="replace")
    text = plain_text(written)
    assert "<" not in text
    assert plain_text(text) == text
    rich = rich_text(written)
    assert "<script" not in rich.lower()
    assert rich_text(rich) == rich


def recovery_offset(data: bytes) -> None:
    """What a stock client says of where it stands."""
    try:
        found = offset.decode(data.decode("latin-1"))
    except ValueError:
        return
    assert 0 <= len(found.entries) <= offset.MAX_ENTRIES


# --- the bus


def envelope(data: bytes) -> None:
    """What a node reads on the streams of the nodes."""
    found = unseal(data)
    assert not isinstance(found, Unreadable) or found.reason in ("too_large", "version", "malformed")


def post(data: bytes) -> None:
    """An event that a broker brings."""
    try:
        found = Post.read("/", data)
    except PacketError:
        return
    for form in (found.stock, found.embedded, found.raw_json, found.raw_msgpack):
        assert form.frames
        assert form.payload


def _declared(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (PacketError, EventRefused, ConnectRefused):
        return None


_UPGRADE: Final = b"Host: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
_FIELDS: Final = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: a=b; c=d\r\nSec-WebSocket-Extensions: "
_RESPONSE: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: bellwire.v1.json\r\n\r\n"
)
_RAW_BOMB: Final = compress(b"a" * 4000, 15)
_POST: Final = Post("/", "message", ({"a": [1, None, "b"]}, b"bytes"), binary=True).body

TARGETS: Final[dict[str, tuple[Target, tuple[bytes, ...]]]] = {
    "websocket": (
        websocket,
        (
            b"\xfe\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            b"\x02\x01\x81\0\0\0\0a\x89\x81\0\0\0\0p\x80\x81\0\0\0\0b\x88\x82\0\0\0\0\x03\xe8",
            b"\xff\xc2" + bytes((0x80 | len(_RAW_BOMB),)) + bytes(4) + _RAW_BOMB,
            b"\xfe\x82\xff\x80" + bytes(12),
        ),
    ),
    "deflate": (
        deflate,
        (
            b"permessage-deflate; client_max_window_bits=9; server_no_context_takeover\n" + _RAW_BOMB,
            b'permessage-deflate; server_max_window_bits="8", permessage-deflate\n\x01\0\0\xff\xff',
        ),
    ),
    "handshake": (
        handshake,
        (
            b"EIO=4&transport=websocket&sid=x%00\n" + _UPGRADE + _FIELDS + b"permessage-deflate; a=b",
            _RESPONSE,
        ),
    ),
    "plain_head": (
        plain_head,
        (
            b"GET /socket.io/?EIO=4 HTTP/1.1\r\n" + _FIELDS.replace(b"\n", b"\r\n") + b"x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\nExpect: x\r\n\r\n",
        ),
    ),
    "edge": (
        edge,
        (
            b"https://x.b.example:8443\n203.0.113.9, 10.0.0.1",
            b'null\nfor="[fd00::1]:80";proto=https;host=a, for=127.0.0.1:1',
            b"http://[::1]:8000\nunknown, _hidden",
        ),
    ),
    "engineio": (
        engine_io,
        (
            b"2probe\x1e5\x1e4hello\x1ebAQID\x1e3\x1e1",
            b'0{"sid":"x","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}',
            b"EIO=4&transport=polling&sid=x",
        ),
    ),
    "socketio": (
        socket_io,
        (
            b'2/chat,12["message",{"a":1}]',
            b'52-["e",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]\0ab\0cd',
            b'0/chat,{"token":"x","bellwire":{"version":1,"instance":"i","cursors":[["a","b",1,2]]}}',
            b'3/chat,7[{"a":"\\ud800"}]',
            b'4{"message":"no","data":[1]}',
            b'61-3[{"_placeholder":true,"num":0}]\0',
        ),
    ),
    "embedding": (
        embedded,
        (
            b'2["x",1,{"bellwire":["n",7,"g",true]}]',
            b'2["x",1,{"bellwire":["s",6,3,4,1,2,"mid","gen"]}]',
            b'2["x",1,{"\\u0062ellwire":["e",["stream",1,2]]}]',
            b'2["bellwire",["skip","/",1,2]]',
            b'2["bellwire",["ask","stream","gen",1,2]]',
            b'2["bellwire",["reset","stream",6,"truncated","gen",1,2]]',
            b'{"sid":"x","bellwire":{"session":"s","resumed":true}}',
        ),
    ),
    "wire": (
        wire_v1,
        (
            b'["connect","/",{"token":"x"},"instance","0123456789abcdef0123456789abcdef","s",[["a","b",1,2]],3]',
            b'["e","/","message",[{"a":[1,2]}],7]',
            b'["n","/",1,"message",["x"],"gen",true]',
            b'["s",6,3,4,1,2,"mid","message",["x"],"gen"]',
            msgspec.msgpack.encode(["e", "/", "message", [{"a": [1, b"x"]}], 7]),
            msgspec.msgpack.encode(["connect", "/", {"token": "x"}, "instance", None, None, [["a", "b", 1, 2]]]),
        ),
    ),
    "schema": (
        schema,
        (
            b'["x",{"room":"a","text":"<b>x","below":[{"room":"b","text":"&lt;"}],"data":"AQID"}]',
            b'["x",18446744073709551615]',
            b'["x",{"a":"\\ud83d\\ude00\\ud800"},null]',
            b'[{"error":{"code":"a","message":"b","path":"$","retry_after":1.5}}]',
        ),
    ),
    "sanitise": (
        sanitise,
        (b"<script>alert(1)</script>", b"&#x41;&amp;&lt;b&gt; a < b", b'<img src=x onerror="y">&nbsp;'),
    ),
    "offset": (recovery_offset, (offset.CONNECTED.offset.encode(), b"A" * 50, b"A" * 88)),
    "envelope": (
        envelope,
        (
            b"\x01" + msgspec.msgpack.encode(["question", "00000000", 1, "kind", b"body", 1.5]),
            b"\x01" + msgspec.msgpack.encode(["answer", "00000000", 1, 0, b"body", True, False]),
            b"\x01" + msgspec.msgpack.encode(["direct", "stream", b"published"]),
            b"\x02\x80\x04cposix",
        ),
    ),
    "post": (post, (_POST, b"\x93\xa1a\xc2\x90")),
}
"""Each target by the name of what it drives, with inputs to begin with."""


def everything(data: bytes) -> None:
    """One target after the other, as the first byte says: for a run that is too short to be one for each."""
    target, _ = list(TARGETS.values())[data[0] % len(TARGETS) if data else 0]
    target(data[1:])
