import inspect
import re
from typing import Any, Final, NamedTuple, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bellwire.core.config import Config
from bellwire.core.errors import PacketError
from bellwire.protocol import wire
from bellwire.protocol.json_text import MAX_DEPTH
from bellwire.protocol.wire import (
    MAX_CURSORS,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_NAMESPACE,
    MAX_OPAQUE,
    MAX_REASON,
    After,
    ClientEvent,
    ClientMessage,
    CloseCode,
    Connected,
    Cursor,
    Disconnect,
    Greeting,
    NumberedEvent,
    Ping,
    Pong,
    Reply,
    ServerMessage,
    StreamEvent,
    choose_subprotocol,
    encode,
    encode_args,
    may_return,
    parse,
    parse_server,
)
from tests.docs.pages import ROOT

CLIENT: Final = get_args(ClientMessage)
SERVER: Final = get_args(ServerMessage)
PRODUCER: Final = "00112233445566778899aabbccddeeff"

msgpack = msgspec.msgpack.encode


def event(args: Any, *, packed: bool = False) -> ClientEvent:
    return ClientEvent("/", "x", encode_args(args, msgpack=packed))


# --- any message

ENCODINGS = pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
opaque = text
whole = st.integers(0, 2**53 - 1)
number = st.integers(1, 2**53 - 1)
tag = st.integers(0, 2**32 - 1)
producer = st.text("0123456789abcdef", min_size=32, max_size=32)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    scalars | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
ELEMENTS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "namespace": text,
    "name": text,
    "message": text,
    "mid": st.text(st.characters(exclude_categories=["Cs"])),
    "reason": st.none() | text,
    "auth": st.none() | st.dictionaries(text, trees, max_size=3),
    "data": trees,
    "instance": st.none() | opaque,
    "session": st.none() | opaque,
    "stream": opaque,
    "generation": st.none() | opaque,
    "cursors": st.lists(st.builds(Cursor, opaque, opaque, whole, tag), max_size=3).map(tuple),
    "after": st.none() | st.builds(After, opaque, whole, tag),
    "resumed": st.booleans(),
    "resent": st.booleans(),
    "seq": whole,
    "back": number,
    "prev_seq": whole,
    "last": whole,
    "tag": tag,
    "prev_tag": tag,
    "max_message": number,
    "number": number,
    "expect": number,
    "first": number,
    "upto": number,
    "retry_after": st.none() | st.floats(0, 86_400),
    "reconnect_after": st.floats(0, 86_400),
    "attempt": whole,
}


def element(cls: Any, field: str, *, packed: bool) -> st.SearchStrategy[Any]:
    if field == "args":
        return st.lists(trees, max_size=3).map(lambda args: encode_args(args, msgpack=packed))
    if field == "id":
        return opaque if cls is Connected else whole if cls is Reply else st.none() | whole
    if field == "seq" and cls is StreamEvent:
        return number
    if field == "alias":
        return whole if cls is wire.Open else number
    if field == "gen":
        return st.none() | opaque if cls is StreamEvent else opaque
    if field == "producer":
        return st.none() | (st.builds(Greeting, producer, whole, opaque) if cls is Connected else producer)
    if field == "reason" and cls is wire.Reset:
        return opaque
    return ELEMENTS[field]


def messages(classes: tuple[Any, ...], *, packed: bool) -> st.SearchStrategy[Any]:
    return st.one_of(
        [
            st.builds(cls, **{field: element(cls, field, packed=packed) for field in cls.__struct_fields__})
            for cls in classes
        ]
    )


@ENCODINGS
@given(data=st.data())
def test_what_a_client_writes_is_what_the_server_reads(packed: bool, data: st.DataObject) -> None:
    message = data.draw(messages(CLIENT, packed=packed))
    data_sent = encode(message, msgpack=packed)
    assert isinstance(data_sent, bytes if packed else str)
    assert parse(data_sent) == message


@ENCODINGS
@given(data=st.data())
def test_what_a_server_writes_is_what_the_client_reads(packed: bool, data: st.DataObject) -> None:
    message = data.draw(messages(SERVER, packed=packed))
    assert parse_server(encode(message, msgpack=packed)) == message


@ENCODINGS
@given(data=st.data())
def test_a_message_is_an_array_whose_end_may_be_left_out(packed: bool, data: st.DataObject) -> None:
    """The tag, the elements in their order, nothing at the end that has its default; what follows is passed over."""
    message = data.draw(messages((*CLIENT, *SERVER), packed=packed))
    array = [message.__struct_config__.tag, *(getattr(message, field) for field in message.__struct_fields__)]
    read = parse if isinstance(message, CLIENT) else parse_server
    assert read(written(array, packed=packed)) == message
    assert read(written([*array, "for a later version"], packed=packed)) == message
    for default in reversed(message.__struct_defaults__):
        if array[-1] is not default:
            break
        array.pop()
    assert encode(message, msgpack=packed) == written(array, packed=packed)


def written(array: list[Any], *, packed: bool) -> str | bytes:
    return msgpack(array) if packed else msgspec.json.encode(array).decode()


# --- any bytes


def complaint(read: Any, data: str | bytes) -> str:
    """Why it is no message, empty if it is one."""
    try:
        read(data)
    except PacketError as error:
        return str(error)
    return ""


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_anything_is_a_message_or_a_packet_error(data: str | bytes) -> None:
    assert len(complaint(parse, data)) <= 256
    assert len(complaint(parse_server, data)) <= 256


@given(st.data())
def test_a_damaged_message_is_a_message_or_a_packet_error(data: st.DataObject) -> None:
    packed = data.draw(st.booleans())
    whole_message = encode(data.draw(messages(CLIENT, packed=packed)), msgpack=packed)
    raw = bytearray(whole_message if isinstance(whole_message, bytes) else whole_message.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert len(complaint(parse, bytes(raw) if packed else raw.decode(errors="replace"))) <= 256
    assert len(complaint(parse, bytes(raw[: data.draw(st.integers(0, len(raw)))]))) <= 256


@pytest.mark.parametrize(
    "data",
    [
        "",
        "null",
        "[]",
        "{}",
        "[1]",
        '["zz"]',
        '["connected","/","id",1]',  # a server's
        '["e","/","x"]',
        '["e","/","x",]',
        '["e","/","x",[1}]',
        '["e","/","x",[01]]',
        '["e","/","x",[]] ["ping"]',
        '["e","","x",[]]',
        '["e","/","",[]]',
        '["e","/","x",[],-1]',
        '["e","/","x",[],1.5]',
        '["e","/","x",[],9007199254740992]',
        '["n","/",0,"x",[]]',
        '["skip","/",0,1]',
        '["ask","s","g",1,4294967296]',
        '["ask","","g",1,1]',
        '["connect","/",[]]',
        '["connect","/",null,""]',
        f'["connect","/",null,"i","{PRODUCER.upper()}"]',
        f'["connect","/",null,"i","{PRODUCER}\\n"]',
        '["connect","/",null,"i","f00"]',
        '["connect","/",null,"i",null,"s",[["r","g",1]]]',
        '["e","/","x",["\udc00"]]',
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\xa4ping\x00",
        b"\xdd\xff\xff\xff\xff\xa4ping",
        b"\x94\xa1e\xa1/\xa1x\xdd\xff\xff\xff\xff",
        b"\x94\xa1e\xa1/\xa1x\xc1",
        b"\x94\xa1e\xa1\xff\xa1x\x90",
        b"\x93\xa7connect\xa1/\x81\x90\x01",
    ],
)
def test_what_is_no_message_is_a_packet_error(data: str | bytes) -> None:
    with pytest.raises(PacketError):
        parse(data)


def test_an_error_quotes_no_more_than_a_little() -> None:
    with pytest.raises(PacketError) as caught:
        parse(f'["{"z" * 60_000}"]')
    assert len(str(caught.value)) <= 256


# --- limits


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda n: ["disconnect", "/" * n], MAX_NAMESPACE),
        (lambda n: ["disconnect", "/", "r" * n], MAX_REASON),
        (lambda n: ["e", "/", "é" * n, []], MAX_NAME),
        (lambda n: ["ask", "s" * n, "g", 1, 1], MAX_OPAQUE),
        (lambda n: ["ask", "s", "g" * n, 1, 1], MAX_OPAQUE),
        (lambda n: ["connect", "/", None, "i" * n], MAX_OPAQUE),
        (lambda n: ["connect", "/", None, "i", None, "s" * n], MAX_OPAQUE),
        (lambda n: ["n", "/", 1, "x", [], "g" * n], MAX_OPAQUE),
        (lambda n: ["connect", "/", None, "i", None, "s", [["r", "g", 1, 1]] * n], MAX_CURSORS),
    ],
)
def test_lengths_are_limited(make: Any, limit: int) -> None:
    parse(msgspec.json.encode(make(limit)).decode())
    parse(msgpack(make(limit)))
    with pytest.raises(PacketError, match=f"length <= {limit}"):
        parse(msgspec.json.encode(make(limit + 1)).decode())
    with pytest.raises(PacketError, match=f"length <= {limit}"):
        parse(msgpack(make(limit + 1)))


def nested(depth: int, kind: str) -> Any:
    tree: Any = None
    for level in range(depth):
        tree = [tree, "[{"] if kind == "arrays" or (kind == "both" and level % 2) else {'\\"': 1, "k": tree}
    return tree


@pytest.mark.parametrize("kind", ["arrays", "maps", "both"])
def test_depth_is_limited(kind: str) -> None:
    """``args`` are the first level; brackets in strings are none."""
    siblings: list[list[Any]] = [[], [[], {}] * 20]
    for packed in (False, True):
        for broad in siblings:
            parse(encode(event([*broad, nested(MAX_DEPTH - 1, kind)], packed=packed), msgpack=packed))
            with pytest.raises(PacketError, match="32 levels"):
                parse(encode(event([*broad, nested(MAX_DEPTH, kind)], packed=packed), msgpack=packed))


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_what_is_nested_beyond_all_limits_is_a_packet_error(depth: int) -> None:
    for data in (
        '["e","/","x",' + "[" * depth + "]" * depth + "]",
        '["e","/","x",' + "[" * depth,
        '["connect","/",' + '{"a":' * depth + "1" + "}" * depth + "]",
        b"\x94\xa1e\xa1/\xa1x" + b"\x91" * depth + b"\xc0",
        b"\x94\xa1e\xa1/\xa1x" + b"\x81" * depth,
        b"\x93\xa7connect\xa1/" + b"\x81\xa1a" * depth + b"\xc0",
    ):
        with pytest.raises(PacketError):
            parse(data)


def test_depth_in_the_keys_of_maps_counts() -> None:
    with pytest.raises(PacketError, match="32 levels"):
        parse(b"\x94\xa1e\xa1/\xa1x\x91\x81" + b"\x91" * 40 + b"\xc0\xc0")


@pytest.mark.parametrize(
    "args",
    [
        [[] for _ in range(1_000)],
        ["[" * 100, "]" * 3, '"', "\\", '\\"[', "\\\\"],
        ['"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[['],
        ["\\"] * 40 + [[]] * 40,
        [b"\x91" * 100],
        [{"a": {"b": [n]}} for n in range(50)],
    ],
)
@ENCODINGS
def test_breadth_is_not_depth(args: list[Any], packed: bool) -> None:
    message = event(args, packed=packed)
    assert parse(encode(message, msgpack=packed)) == message


@given(st.lists(trees, max_size=8), st.integers(0, 40))
def test_depth_is_counted_as_by_walking(args: list[Any], extra: int) -> None:
    tree = [*args, nested(extra, "both")]
    too_deep = depth(tree) > MAX_DEPTH
    for packed in (False, True):
        message = encode(event(tree, packed=packed), msgpack=packed)
        assert ("32 levels" in complaint(parse, message)) is too_deep


def depth(tree: Any) -> int:
    if isinstance(tree, dict):
        tree = list(tree.values())
    return 1 + max(map(depth, tree), default=0) if isinstance(tree, list) else 0


# --- arguments


def test_arguments_stay_the_bytes_that_came() -> None:
    read = parse('["n","/",1,"x",[ 1.0 , {"b":1,"a":"\\u00e9"} ]]')
    assert isinstance(read, NumberedEvent)
    assert bytes(read.args) == b'[ 1.0 , {"b":1,"a":"\\u00e9"} ]'


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    read = parse('["e","/","x",["a\\ud83d","\\ud83d\\ude00"]]')
    assert isinstance(read, ClientEvent)
    assert msgspec.json.decode(read.args) == ["a�", "😀"]


def test_bytes_are_base64_in_json_and_themselves_in_msgpack() -> None:
    assert encode(event([b"\x01\xff"]), msgpack=False) == '["e","/","x",["Af8="]]'
    assert encode(event([b"\x01\xff"], packed=True), msgpack=True) == b"\x94\xa1e\xa1/\xa1x\x91\xc4\x02\x01\xff"
    for packed, decode in ((False, msgspec.json.decode), (True, msgspec.msgpack.decode)):
        args = encode_args([b"\x01\xff"], msgpack=packed)
        assert decode(args, type=tuple[bytes]) == (b"\x01\xff",)


def test_what_cannot_be_encoded_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode_args([object()], msgpack=False)


def test_a_deliverys_numbers_fit() -> None:
    message = StreamEvent(2**53 - 1, 2**53 - 1, 0, 2**53 - 1, 2**32 - 1, "", "x", Raw(b"[]"))
    assert parse_server(encode(message, msgpack=False)) == message


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, float("inf")])
def test_seconds_are_a_time_to_wait(seconds: float) -> None:
    with pytest.raises(PacketError):
        parse_server(msgpack(["drain", seconds]))
    with pytest.raises(PacketError):
        parse_server(msgpack(["nack", "/", 1, 1, None, seconds]))


# --- sub-protocols and close codes


def test_the_first_subprotocol_that_is_known_is_taken() -> None:
    assert choose_subprotocol(["mqtt", "bellwire.v1.msgpack", "bellwire.v1.json"]) == "bellwire.v1.msgpack"
    assert choose_subprotocol(["bellwire.v1.json"]) == "bellwire.v1.json"
    assert choose_subprotocol(["bellwire.v2.json", "BELLWIRE.V1.JSON"]) is None
    assert choose_subprotocol([]) is None


def test_who_may_come_back() -> None:
    assert [code for code in CloseCode if may_return(code)] == [4000, 4001, 4002, 4003, 4004, 4005]
    assert all(may_return(code) for code in (1001, 1005, 1006, 1011, 1012, 1013, 3000, 4000, 4499, 5000))
    assert not any(may_return(code) for code in (1000, 1002, 1003, 1007, 1008, 1009, 1010, 4500, 4999))


# --- the specification

PAGE: Final = ROOT / "docs" / "reference" / "bellwire-v1.md"
DIRECTIONS: Final = {"client": CLIENT, "server": SERVER, "both": (Disconnect, Reply, Ping, Pong)}


class Described(NamedTuple):
    """A message as the page has it: elements with a question mark where they are optional, examples."""

    direction: str
    tag: str
    elements: list[str]
    examples: list[tuple[str, bytes]]


def described() -> list[Described]:
    found = []
    for direction, chapter in re.findall(
        r"^## Messages from (?:the )?(\w+)\n(.*?)(?=^## )", PAGE.read_text(), re.MULTILINE | re.DOTALL
    ):
        for name, section in re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", chapter, re.MULTILINE | re.DOTALL):
            elements = ["".join(pair) for pair in re.findall(r"^\| `(\w+)`(\??) \|", section, re.MULTILINE)]
            pairs = re.findall(r"```json\n(.*?)\n```\n\n```hex\n(.*?)```", section, re.DOTALL)
            examples = [(json, bytes.fromhex(digits)) for json, digits in pairs]
            assert len(examples) == section.count("```") // 4, name
            found.append(Described(direction, name, elements, examples))
    return found


DESCRIBED: Final = described()


def fields(cls: Any) -> list[str]:
    required = len(cls.__struct_fields__) - len(cls.__struct_defaults__)
    return [name + "?" * (index >= required) for index, name in enumerate(cls.__struct_fields__)]


def test_the_page_describes_every_message_and_no_other() -> None:
    for direction, classes in DIRECTIONS.items():
        ours = classes if direction == "both" else [cls for cls in classes if cls not in DIRECTIONS["both"]]
        theirs = {message.tag: message.elements for message in DESCRIBED if message.direction == direction}
        assert theirs == {cls.__struct_config__.tag: fields(cls) for cls in ours}


@pytest.mark.parametrize("message", DESCRIBED, ids=lambda m: f"{m.direction}-{m.tag}")
def test_the_examples_are_these_bytes(message: Described) -> None:
    readers = {"client": (parse,), "server": (parse_server,), "both": (parse, parse_server)}[message.direction]
    assert message.examples
    for json, packed in message.examples:
        for read in readers:
            one, other = read(json), read(packed)
            assert one.__struct_config__.tag == message.tag
            assert encode(one, msgpack=False) == json
            assert encode(other, msgpack=True) == packed
            assert msgspec.json.encode(msgspec.msgpack.decode(packed)).decode() == json


def test_the_examples_show_every_element() -> None:
    for message in DESCRIBED:
        assert max(len(msgspec.json.decode(json)) for json, _ in message.examples) - 1 == len(message.elements)


def test_the_exchange_is_made_of_messages() -> None:
    _, _, exchange = PAGE.read_text().partition("## An exchange")
    said = re.findall(r"```json\n(.*?)\n```", exchange, re.DOTALL)
    assert len(said) >= 8
    for message in said:
        ours = message.startswith(('["connect",', '["n","/chat",1,"'))
        read = parse(message) if ours else parse_server(message)
        assert encode(read, msgpack=False) == message


def test_the_close_codes_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (4\d{3}) \| `(\w+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [(int(code), name) for code, name, _ in rows] == [(code.value, code.name) for code in CloseCode]
    source = inspect.getsource(CloseCode).replace('"', "")
    assert all(f"\n    {meaning.replace('`', '')}\n" in source.replace("`", "") for _, _, meaning in rows)


def test_the_limits_are_those_of_the_page() -> None:
    rows = dict(re.findall(r"^\| ([a-z][^|]*) \| ([0-9,]+)[^|]* \| [^|]* \|$", PAGE.read_text(), re.MULTILINE))
    assert {name: int(value.replace(",", "")) for name, value in rows.items()} == {
        "bytes of a message to the server": MAX_MESSAGE,
        "levels of arrays and maps, `args` being the first": MAX_DEPTH,
        "characters of a namespace's name": MAX_NAMESPACE,
        "characters of an event's name": MAX_NAME,
        "characters of an opaque string": MAX_OPAQUE,
        "characters of a reason to disconnect": MAX_REASON,
        "cursors in one `connect`": MAX_CURSORS,
        "seconds until the first `connect`": wire.CONNECT_SECONDS,
        "seconds for the rest of a message that has begun": Config().message_timeout,
        "numbered events without an answer": 32,
    }


def test_every_message_stands_in_the_modules_table() -> None:
    table = (wire.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0].splitlines()[1:]
    for start, end, classes in ((16, 37, CLIENT), (37, 56, SERVER)):
        rows = [(re.findall(r"\w+", line[4:16]), re.findall(r"\w+", line[start:end])) for line in table]
        listed = [pair for tags, names in rows if names for pair in zip(tags, names, strict=True)]
        assert sorted(listed) == sorted((cls.__struct_config__.tag, cls.__name__) for cls in classes)
