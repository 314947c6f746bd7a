import re
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bellwire.core.errors import ConnectRefused, PacketError
from bellwire.core.events import OWN_NAME, RESERVED_NAMES
from bellwire.protocol import embedding, wire
from bellwire.protocol.embedding import (
    Control,
    Hello,
    Numbered,
    Placed,
    Plain,
    Request,
    Welcome,
    as_plain,
    embed,
    encode_hello,
    encode_message,
    encode_welcome,
    is_message,
    read_control,
    read_request,
    read_welcome,
    take_hello,
    take_number,
    take_place,
)
from bellwire.protocol.json_text import MAX_DEPTH
from bellwire.protocol.outgoing import Outgoing
from bellwire.protocol.socketio import (
    BINARY_EVENT,
    EVENT,
    Assembly,
    Packet,
    check_connect_payload,
    encode_event,
    parse_packet,
)
from bellwire.protocol.wire import MAX_CURSORS, MAX_OPAQUE, After, Ask, Cursor, Greeting, Skip
from tests.docs.pages import ROOT
from tests.protocol import test_wire
from tests.protocol.test_wire import PRODUCER, number, opaque, tag, text, trees, whole

NAMESPACE: Final = "/chat"

names = text.filter(lambda name: name not in RESERVED_NAMES and name != OWN_NAME)
payloads = st.lists(trees | st.binary(max_size=4), max_size=4)
namespaces = st.sampled_from(["/", "/chat", "/a[b{"])
placed = st.builds(Placed, number, number, tag, number, tag, st.text(max_size=9), st.none() | opaque)
after = st.builds(After, opaque, whole, tag)
numbered = st.builds(Numbered, st.integers(1, 2**53 - 1), st.none() | opaque, st.booleans())
lookalikes = st.builds(
    lambda value, more: {"bellwire": value, **more},
    trees | st.sampled_from([["e"], ["n", 1], ["s", 6, 2, 2, 1, 1, "m"]]),
    st.just({}) | st.dictionaries(text, trees, min_size=1, max_size=2),
)


def packet(event: Outgoing) -> Packet:
    return parse_packet(str(event.parts[0])[1:])


def event_packet(payload: str, **header: Any) -> Packet:
    return Packet(**{"type": EVENT, "namespace": NAMESPACE, "id": None, "attachments": 0, "payload": payload, **header})


def complaint(read: Any, *args: Any) -> str:
    """Why it cannot be read, empty if it can."""
    try:
        read(*args)
    except (PacketError, ConnectRefused) as error:
        return str(error)
    return ""


# --- trailers


@given(namespaces, names, payloads, placed)
def test_an_event_of_a_stream_is_the_event_and_its_place(ns: str, name: str, args: list[Any], at: Placed) -> None:
    event = encode_event(ns, (name, *args))
    sent = embed(event, at)
    assert sent.parts[1:] == event.parts[1:]
    assert take_place(packet(sent)) == (packet(event).payload, at)
    assert msgspec.json.decode(packet(sent).payload)[-1] == {"bellwire": trimmed(["s", *msgspec.structs.astuple(at)])}


@given(names, payloads, after, st.none() | st.integers(0, 99))
def test_an_event_behind_a_place_is_the_event_and_that_place(
    name: str, args: list[Any], place: After, ack: int | None
) -> None:
    event = encode_event(NAMESPACE, (name, *args), id=ack)
    sent = packet(embed(event, Plain(place)))
    assert take_place(sent) == (packet(event).payload, place)
    assert sent.id == ack


@given(namespaces, names, payloads, numbered)
def test_a_numbered_event_is_the_event_and_its_number(ns: str, name: str, args: list[Any], number: Numbered) -> None:
    event = encode_event(ns, (name, *args))
    sent = packet(embed(event, number))
    assert take_number(sent) == (packet(event).payload, number)
    expected = ["n", number.number, number.generation, number.resent]
    assert msgspec.json.decode(sent.payload)[-1] == {"bellwire": trimmed(expected)}


def trimmed(array: list[Any]) -> list[Any]:
    while array[-1] is None or array[-1] is False:
        array.pop()
    return array


@given(namespaces, names, st.lists(trees | lookalikes, max_size=3), st.none() | st.integers(0, 99))
def test_what_is_in_no_stream_arrives_as_it_was_and_has_no_place(
    ns: str, name: str, args: list[Any], ack: int | None
) -> None:
    event = encode_event(ns, (name, *args), id=ack)
    sent = packet(as_plain(event))
    assert take_place(sent) == (packet(event).payload, None)
    assert take_number(sent) == (packet(event).payload, None)


@pytest.mark.parametrize(
    "last",
    [
        '{"bellwire":["s",6,42,9,1,7,"m-42"]}',
        '{"bellwire":["n",7]}',
        '{"bellwire":["e"]}',
        '{"bellwire":1}',
        '{"bellwire":{"a":[1]}}',
        '{"bellwire":"zz","bellwire":["n",7]}',
        '{ "bellwire" : [ "n" , 7 ] }',
        '{\n"bellwire":["n",7]\t}',
        '{"bellwire":["n",7]} ',
        '{"b\\u0065llwire":["n",7]}',
        '{"\\u0062\\u0065llwire":1,"bellwire":["n",7]}',
        '{"bellwire":["\\ud800"]}',
    ],
)
def test_nobody_passes_off_an_argument_as_a_place(last: str) -> None:
    """An application may send on what it got from one client, undecoded, to the others."""
    for start, event in (
        ('"note",', encode_event("/", ("note", msgspec.Raw(last.encode())), binary=False)),
        ('"note",1,', encode_event("/", ("note", 1, msgspec.Raw(last.encode())), binary=False)),
    ):
        sent = as_plain(event)
        assert str(sent.parts[0]) == f'42[{start}{last},{{"bellwire":["e"]}}]'
        assert take_place(packet(sent)) == (packet(event).payload, None)
        assert take_number(packet(sent)) == (packet(event).payload, None)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["bellwire"],
        [{"text": "hi"}],
        [{"bellwire": ["n", 7]}, 1],
        [[{"bellwire": ["n", 7]}]],
        [{"bellwire": ["n", 7], "more": 1}],
        [{"a": [0, {"bellwire": ["n", 7]}]}],
        [{"a": {"bellwire": ["n", 7]}}],
        [',{"bellwire":["n",7]}]'],
        [{"a": '"bellwire"', "b": ["]"]}],
        [{"\\u": ["\x01"]}],
    ],
)
def test_what_is_no_trailer_is_shared_with_those_who_know_of_none(args: list[Any]) -> None:
    event = encode_event(NAMESPACE, ("note", *args))
    assert as_plain(event) is event
    assert take_place(packet(event)) == (packet(event).payload, None)
    assert take_number(packet(event)) == (packet(event).payload, None)


def test_what_is_left_without_the_trailer_is_what_came() -> None:
    """White space, escapes and the spelling of numbers stay: an event that is sent again is the same."""
    written = '[ "x" ,\t{"a": 1.0e0, "b":"\\u00e9\\ud83d"} , { "bellwire" :\n["n", 7, "g\\ud83d", true] } ]\n'
    payload, number = take_number(event_packet(written))
    assert payload == '[ "x" ,\t{"a": 1.0e0, "b":"\\u00e9\\ud83d"} ]'
    assert number == Numbered(7, "g�", True)
    assert take_number(event_packet('["x","é😀" , {"bellwire": ["n",7]}]')) == ('["x","é😀" ]', Numbered(7))


def test_what_a_later_version_adds_to_a_trailer_is_passed_over() -> None:
    assert take_number(event_packet('["x",{"bellwire":["n",7,null,false,{"a":[1]}]}]')) == ('["x"]', Numbered(7))
    assert take_place(event_packet('["x",{"bellwire":["e",null,1]}]')) == ('["x"]', None)


@pytest.mark.parametrize(
    "trailer",
    [
        "1",
        "null",
        "{}",
        "[]",
        '["e"',
        '["zz"]',
        '["s",6,2,2,1,1,"m"]',
        '["n"]',
        '["n",0]',
        '["n",1.0]',
        '["n",-1]',
        '["n",9007199254740992]',
        '["n",1,""]',
        '["n",1,1]',
        '["n",1,"g",1]',
        f'["n",1,"{"g" * (MAX_OPAQUE + 1)}"]',
        '["n",{"_placeholder":true,"num":0}]',
    ],
)
def test_a_number_that_is_none_is_a_packet_error(trailer: str) -> None:
    for payload in (f'["x",{{"bellwire":{trailer}}}]', f'["x", {{ "bellwire":{trailer} }} ]'):
        assert complaint(take_number, event_packet(payload))


@pytest.mark.parametrize(
    "trailer",
    [
        '["n",1]',
        '["s",6,2,2,1,1]',
        '["s",6,2,4294967296,1,1,"m"]',
        '["s",0,2,2,1,1,"m"]',
        '["s",6,2,2,0,1,"m"]',
        '["s",6,2,2,1,1,"m",""]',
        '["e",["r",1]]',
        '["e","r"]',
    ],
)
def test_a_place_that_is_none_is_a_packet_error(trailer: str) -> None:
    assert complaint(take_place, event_packet(f'["x",{{"bellwire":{trailer}}}]'))


def test_an_event_without_a_name_is_left_to_those_who_look_for_it() -> None:
    for payload in ('[{"bellwire":["n",7]}]', '[ {"bellwire":["n",7]}]', "[]"):
        assert take_number(event_packet(payload)) == (payload, None)


def test_a_numbered_event_asks_for_no_acknowledgement() -> None:
    payload = '["x",{"bellwire":["n",7]}]'
    assert take_number(event_packet(payload)) == ('["x"]', Numbered(7))
    assert "acknowledgement" in complaint(take_number, event_packet(payload, id=3))
    assert take_number(event_packet('["x",{"bellwire":["e"]}]', id=3)) == ('["x"]', None)


def test_a_binary_event_keeps_its_attachments() -> None:
    sent = embed(encode_event(NAMESPACE, ("image", b"\x01\xff", {"of": [b"\x02"]})), Numbered(3))
    header = packet(sent)
    assert header.type == BINARY_EVENT
    assembly = Assembly(header, max_bytes=9)
    for part in sent.parts[1:]:
        assert isinstance(part, bytes)
        assembly.add(part)
    payload, number = take_number(header)
    assert number == Numbered(3)
    assert assembly.resolve()[:-1] == ["image", b"\x01\xff", {"of": [b"\x02"]}]
    assert msgspec.json.decode(payload)[:1] == ["image"]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_depth_is_limited_where_an_event_has_a_number() -> None:
    """As in bellwire.v1, the list of arguments is the first level."""
    for siblings in ("", '"[[[[",', "[],[],{}," * 30):
        for depth, refused in ((MAX_DEPTH - 1, False), (MAX_DEPTH, True), (100_000, True)):
            payload = f'["x",{siblings}{nested(depth)},{{"bellwire":["n",7]}}]'
            assert ("32 levels" in complaint(take_number, event_packet(payload))) is refused
        assert complaint(take_place, event_packet(f'["x",{siblings}{nested(40)},{{"bellwire":["e"]}}]')) == ""


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_what_is_nested_beyond_all_limits_is_a_packet_error(depth: int) -> None:
    for payload in (
        f'["x",{{"bellwire":["n",7,"g",true,{nested(depth)}]}}]',
        f'["x",{nested(depth)}, {{ "bellwire":["n",7] }}]',
        f'["x",{{"bellwire":{nested(depth)}}}]',
        f'["x",{{"bellwire":{nested(depth)},"more":1}} ]',
        '["x",' + '{"bellwire":' * depth + "1" + "}" * depth + "]",
        '["x",{"bellwire":' + "[" * depth + "}]",
    ):
        complaint(take_place, event_packet(payload))
        complaint(take_number, event_packet(payload))
        complaint(as_plain, Outgoing(f"42{payload}"))
    for request in (
        f'["bellwire",["ask","s","g",1,1,{nested(depth)}]]',
        f'["bellwire",["n","/chat",1,{nested(depth)}]]',
        f'["bellwire",{nested(depth)}]',
    ):
        assert complaint(read_request, event_packet(request))
        assert complaint(read_control, event_packet(request))


# --- any bytes

FRAGMENTS: Final = [
    *('["x"', ',{"bellwire":', '["n",7]', '["s",6,2,2,1,1,"m"]', '["e"]', "}", "]", "]}]", '"', ",", " ", "\n", "1"),
    *("\\u0062", "\\ud800", "\ud800", "é", "bellwire", '"bellwire"', "[", "{", ":", '["bellwire",'),
]
junk = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=10).map("".join)
ARGUMENTS: Final = [
    *('{"bellwire":["n",7]}', '{ "bellwire":["n",7]}', '{"b\\u0065llwire":["n",7]}', '{"bellwire":["e"]}', "1", '"[{"'),
    *('[1,{"bellwire":["n",7]}]', '{"bellwire":["n",7],"a":1}', '{"a":1,"bellwire":["n",7]}', '{"bellwire":["n",0]}'),
    *('"a', '{"a":[0,{"bellwire":["n",7]}', '",{"bellwire":["n",7]}', '"\\"', '"\\\\"'),
]
nearly = st.builds(
    lambda arguments, end: f'["x"{"".join(arguments)}{end}',
    st.lists(st.builds("{}{}".format, st.sampled_from([",", " , "]), st.sampled_from(ARGUMENTS)), max_size=4),
    st.sampled_from(["]", " ] ", "", "]]", "}]", "}", "x"]),
)


@given(junk | nearly)
@example('["x",{"bellwire":["n",7]}')
@example('[{"bellwire":["n",7]}]')
@example('{"bellwire":["n",7]}]')
@example('["x","\ud800",{"bellwire":["n",7]}]')
@example('["bellwire",["ask","\ud800","g",1,1]]')
def test_anything_is_an_event_or_a_packet_error(payload: str) -> None:
    for read in (take_number, take_place, is_message, read_request, read_control):
        assert len(complaint(read, event_packet(payload))) <= 300
    assert len(complaint(read_welcome, payload)) <= 256


@given(junk | nearly, numbered)
def test_taking_a_trailer_off_and_putting_it_on_changes_nothing(payload: str, number: Numbered) -> None:
    payload = payload.replace("\ud800", "")  # what is no Unicode is never sent
    sent = packet(embed(Outgoing(f'42["x"{payload}]'), number))
    left, taken = take_number(sent)
    assert (left, taken) == (f'["x"{payload}]', number)


@given(junk | nearly)
@example('["x",{"bellwire":["n",7]}}')
@example('["x,{"bellwire":["n",7]}]')
@example('["x",[1,{"bellwire":["n",7]}]')
def test_if_what_is_left_is_valid_all_was(payload: str) -> None:
    """A trailer that is taken off as text stands where JSON has it: at the end of the list of arguments."""
    try:
        left, number = take_number(event_packet(payload))
        rest = msgspec.json.decode(left)
    except (PacketError, msgspec.DecodeError, ValueError):
        return
    if number is not None:
        *others, last = msgspec.json.decode(payload)
        assert others == rest
        assert list(last) == ["bellwire"]


@given(st.recursive(st.none() | st.integers() | text, lambda i: st.lists(i) | st.dictionaries(text, i), max_leaves=5))
def test_any_hello_is_one_or_refused(value: Any) -> None:
    assert len(complaint(take_hello, {"bellwire": value})) <= 256


# --- CONNECT

hellos = st.builds(
    Hello,
    st.just(embedding.VERSION),
    opaque,
    st.none() | test_wire.producer,
    st.none() | opaque,
    st.lists(st.builds(Cursor, opaque, opaque, whole, tag), max_size=3).map(tuple),
)
welcomes = st.builds(Welcome, opaque, st.booleans(), st.none() | st.builds(Greeting, test_wire.producer, whole, opaque))


@given(namespaces, st.none() | st.dictionaries(text.filter(lambda key: key != "bellwire"), trees), hellos)
def test_the_application_does_not_see_what_a_client_says_of_streams(
    ns: str, auth: dict[str, Any] | None, hello: Hello
) -> None:
    sent = check_connect_payload(packet(encode_hello(ns, auth, hello)).payload)
    assert take_hello(sent) == hello
    assert sent == (auth or {})


@given(namespaces, opaque, welcomes)
def test_what_the_server_answers_is_what_the_client_reads(ns: str, sid: str, welcome: Welcome) -> None:
    assert read_welcome(packet(encode_welcome(ns, sid, welcome)).payload) == (sid, welcome)


def test_a_client_that_says_nothing_of_streams_has_none() -> None:
    auth = {"token": "secret"}
    assert take_hello(auth) is None
    assert auth == {"token": "secret"}
    assert take_hello(None) is None
    assert take_hello({"bellwire": None}) is None


def test_a_server_that_says_nothing_of_streams_has_none() -> None:
    assert read_welcome('{"sid":"abc","pid":"def"}') == ("abc", None)
    for payload in ("", "{}", "[]", '{"sid":1}', '{"sid":"a","bellwire":1}', '{"sid":"a","bellwire":{"session":"s"}}'):
        assert complaint(read_welcome, payload)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"instance": 1}, "$.instance"),
        ({"instance": ""}, "$.instance"),
        ({"instance": "i" * (MAX_OPAQUE + 1)}, "$.instance"),
        ({"producer": PRODUCER.upper()}, "$.producer"),
        ({"session": "s" * (MAX_OPAQUE + 1)}, "$.session"),
        ({"cursors": [["r", "g", 1]]}, "$.cursors"),
        ({"cursors": [["r", "g", 1, 2**32]]}, "$.cursors"),
        ({"cursors": [["r", "g", 1.0, 1]]}, "$.cursors"),
        ({"cursors": [["r", "g", 1, 1]] * (MAX_CURSORS + 1)}, "$.cursors"),
        ({"version": "1"}, "$.version"),
        ({"version": True}, "$.version"),
    ],
)
def test_a_hello_that_is_none_is_refused_with_where_the_fault_is(change: dict[str, Any], path: str) -> None:
    hello = {"version": 1, "instance": "i", "producer": PRODUCER, "session": "s", "cursors": [["r", "g", 1, 1]]}
    assert take_hello({"bellwire": {**hello, "more": 1}}) is not None
    with pytest.raises(ConnectRefused) as caught:
        take_hello({"bellwire": {**hello, **change}})
    assert path in caught.value.message
    assert caught.value.data == {"code": "invalid_hello"}


def test_another_version_is_refused_whatever_else_it_says() -> None:
    with pytest.raises(ConnectRefused, match="bellwire 2 is not spoken here: the version is 1") as caught:
        take_hello({"bellwire": {"version": 2, "instance": ["other"]}})
    assert caught.value.data == {"code": "unknown_version", "version": 1}


def test_as_many_cursors_as_in_bellwire_v1_are_taken() -> None:
    hello = take_hello({"bellwire": {"version": 1, "instance": "i", "cursors": [["r", "g", 1, 1]] * MAX_CURSORS}})
    assert hello is not None
    assert len(hello.cursors) == MAX_CURSORS


def test_the_key_is_not_the_applications() -> None:
    with pytest.raises(ValueError, match="auth cannot have the key 'bellwire'"):
        encode_hello("/", {"bellwire": 1}, Hello(1, "i"))


# --- messages


def own(message: Any) -> Any:
    """The message in the namespace of its packet."""
    return msgspec.structs.replace(message, namespace=NAMESPACE) if hasattr(message, "namespace") else message


@given(test_wire.messages(get_args(Request), packed=False).map(own))
def test_what_a_client_asks_is_what_the_server_reads(message: Request) -> None:
    sent = packet(encode_message(NAMESPACE, message))
    assert is_message(sent)
    assert read_request(sent) == message
    assert take_number(sent) == (sent.payload, None)


@given(test_wire.messages(get_args(Control), packed=False).map(own))
def test_what_a_server_tells_is_what_the_client_reads(message: Control) -> None:
    sent = packet(encode_message(NAMESPACE, message))
    assert is_message(sent)
    assert read_control(sent) == message
    assert sent.payload == f'["bellwire",{wire.encode(message, msgpack=False)}]'


def test_an_event_of_the_application_is_no_message() -> None:
    assert not is_message(event_packet('["bellwires",["ping"]]'))
    assert is_message(event_packet('[ "bellw\\u0069re" , ["ask","s","g",1,1] ]'))
    assert read_request(event_packet('[ "bellw\\u0069re" , ["ask","s","g",1,1] ]')) == Ask("s", "g", 1, 1)
    assert complaint(read_request, event_packet('["note",["ask","s","g",1,1]]'))


@pytest.mark.parametrize(
    "payload",
    [
        '["bellwire"]',
        '["bellwire",null]',
        '["bellwire",[]]',
        '["bellwire",["ping"]]',
        '["bellwire",["connect","/chat"]]',
        '["bellwire",["connected","/chat","id",1]]',
        '["bellwire",["e","/chat","x",[]]]',
        '["bellwire",["s","r",1,1,2,2,"m","x",[]]]',
        '["bellwire",["disconnect","/chat"]]',
        '["bellwire",["skip","/chat",0,1]]',
        '["bellwire",["skip","/other",1,1]]',
        '["bellwire",["nack","/other",1,1]]',
        '["bellwire",["open","/other","s","g",1,1]]',
        '["bellwire",["ask","s","g",1]]',
    ],
)
def test_what_has_a_form_of_its_own_or_is_none_is_a_packet_error(payload: str) -> None:
    assert complaint(read_request, event_packet(payload))
    assert complaint(read_control, event_packet(payload))


@pytest.mark.parametrize("header", [{"id": 0}, {"attachments": 1}])
def test_a_message_is_an_event_and_nothing_more(header: dict[str, Any]) -> None:
    for read, payload in (
        (read_request, '["bellwire",["ask","s","g",1,1]]'),
        (read_control, '["bellwire",["close","s"]]'),
    ):
        assert complaint(read, event_packet(payload)) == ""
        assert complaint(read, event_packet(payload, **header))


def test_the_depth_of_messages_is_that_of_bellwire_v1() -> None:
    for depth, refused in ((MAX_DEPTH, False), (MAX_DEPTH + 1, True)):
        outcome = event_packet(f'["bellwire",["n","/chat",1,{nested(depth)}]]')
        assert ("32 levels" in complaint(read_control, outcome)) is refused


# --- the specification

PAGE: Final = ROOT / "docs" / "reference" / "bellwire-v1.md"
SECTION: Final = PAGE.read_text().partition("\n## Inside Socket.IO\n")[2].partition("\n## ")[0]
EXAMPLES: Final = re.findall(r"```text\n(.*?)\n```", SECTION, re.DOTALL)


def written_again(example: str) -> Outgoing:
    """An example, read and written by the code."""
    header = parse_packet(example[1:])
    if header.type == 0:
        answer = '"sid"' in header.payload
        if answer:
            sid, welcome = read_welcome(header.payload)
            assert welcome is not None
            return encode_welcome(header.namespace, sid, welcome)
        auth = check_connect_payload(header.payload)
        hello = take_hello(auth)
        assert hello is not None
        return encode_hello(header.namespace, auth, hello)
    if is_message(header):
        request = '["ask"' in example or '["skip"' in example
        return encode_message(header.namespace, read_request(header) if request else read_control(header))
    ours = '["n"' in example
    payload, found = take_number(header) if ours else take_place(header)
    event = Outgoing(example[: example.index("[")] + payload)
    trailer = Plain(found) if isinstance(found, After) else found
    return as_plain(event) if trailer is None else embed(event, trailer)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_these_bytes(example: str) -> None:
    assert str(written_again(example).parts[0]) == example


def test_there_is_an_example_of_each_form() -> None:
    assert len(EXAMPLES) == 14
    assert {example[:2] for example in EXAMPLES} == {"40", "42", "45"}


def test_the_page_has_the_elements_of_the_code() -> None:
    keys = [
        "".join(pair)
        for pair in re.findall(r"^\| `(\w+)`(\??) \| (?:integer|opaque|string|array) \|", SECTION, re.MULTILINE)
    ]
    assert keys == test_wire.fields(Hello)
    rows = re.findall(r'^\| `(\w)` \| the (\w+) \| `\["\w"(?:, )?(.*)\]` \|$', SECTION, re.MULTILINE)
    client = [("n", test_wire.fields(Numbered)), ("e", [])]
    server = [("s", test_wire.fields(Placed)), ("e", test_wire.fields(Plain))]
    found = [(direction, tag, elements.split(", ") if elements else []) for tag, direction, elements in rows]
    assert found == [("server", *row) for row in server] + [("client", *row) for row in client]


def test_the_page_names_every_message() -> None:
    (listed,) = re.findall(r"^\| (`open`.*) \| EVENT named `bellwire` \|$", SECTION, re.MULTILINE)
    tags = {cls.__struct_config__.tag for cls in get_args(Control)}
    assert set(re.findall(r"`(\w+)`", listed)) == tags
    assert {cls.__struct_config__.tag for cls in get_args(Request)} == {"ask", "skip"}
    assert f"| `version` | integer | {embedding.VERSION} |" in SECTION


def test_a_skip_belongs_to_the_namespace_of_its_packet() -> None:
    assert read_request(packet(encode_message("/", Skip("/", 8, 9)))) == Skip("/", 8, 9)
