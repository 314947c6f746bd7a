"""S7, S8, S10, S19, S20: packets of Socket.IO and messages of bellwire.v1 that nobody should send."""

import json
from typing import Any

import msgspec
import pytest

from tests.attacks.peer import Ended, Peer, frame
from tests.attacks.target import Target

LIMIT = 1_000_000
MIB = 1024 * 1024

PLACE = '{"_placeholder":true,"num":%s}'


# --- S7: attachments


@pytest.mark.parametrize("count", ["9999999999", "11", "0", "", "-1", "1e1", "00000000000000000000001"])
def test_s7_attachments_are_counted_before_they_come(target: Target, count: str) -> None:
    attacker = target.join().say(f'45{count}-["parcel",[]]')
    assert attacker.ends() == 1000


@pytest.mark.parametrize("number", ["-1", "1", "99", '"x"', '"0"', "0.5", "true", "null", "1e400", "9" * 30])
def test_s7_a_placeholder_names_an_attachment_that_is_there(target: Target, number: str) -> None:
    attacker = target.join().say(f'451-["parcel",[{PLACE % number}]]').attach(b"x")
    assert attacker.ends() == 1000


def test_s7_a_placeholder_names_an_attachment_that_no_other_does(target: Target) -> None:
    attacker = target.join().say(f'452-["parcel",[{PLACE % 0},{PLACE % 0}]]').attach(b"x", b"y")
    assert attacker.ends() == 1000


def test_s7_text_in_the_middle(target: Target) -> None:
    attacker = target.join().say(f'452-["parcel",[{PLACE % 0},{PLACE % 1}]]').attach(b"x").say('42["echo","x"]')
    assert attacker.ends() == 1000


def test_s7_before_connect(target: Target) -> None:
    assert target.open().say(f'451-["parcel",[{PLACE % 0}]]').ends() == 1000
    assert target.open().attach(b"x").ends() == 1000


def test_s7_all_attachments_together_are_as_long_as_one_message(target: Target) -> None:
    places = ",".join([PLACE % number for number in range(10)])
    with target.grows_by_at_most(8 * MIB):
        attacker = target.join().say(f'4510-["parcel",[{places}]]')
        for _ in range(10):
            attacker.offer(frame(2, bytes(900_000)))
        assert attacker.ends() == 1000


def test_s7_ten_attachments_are_fine_both_ways_and_eleven_leave_nobody(target: Target) -> None:
    client = target.join()
    places = ",".join([PLACE % number for number in range(10)])
    client.say(f'4510-9["parcel",[{places}]]').attach(*[b"ab"] * 10)
    assert client.reply(9) == 20
    assert client.call("eleven") == "too_many_attachments"


# --- S8: a strict grammar


@pytest.mark.parametrize(
    "packet",
    [
        "4",
        "4x",
        "47",
        "42",
        "42x",
        "42{}",
        "42[]",
        "42[null]",
        '42[{"a":1}]',
        '42["echo","x"',
        '42["echo","x"]]',
        '42abc["echo","x"]',
        '42-1["echo","x"]',
        '42/,,["echo","x"]',
        "42/nowhere,[]",
        "40[]",
        '40"x"',
        "40{",
        "43[]x",
        "43",
        "44{}",
        '45["echo"]',
        '46-["echo"]',
        "0",
        "2probe",
        "5",
        "6",
        "b!",
        "\x00",
        "4\ud7ff",
    ],
    ids=ascii,
)
def test_s8_packets_that_break_the_grammar_end_their_connection(target: Target, packet: str) -> None:
    client = target.join().say(packet)
    assert client.ends() == 1000


@pytest.mark.parametrize("packet", ['42["echo","x"]', "430[]", "41", '42/members,["echo","x"]', "44{}"])
def test_s8_packets_before_connect_end_their_connection(target: Target, packet: str) -> None:
    assert target.open().say(packet).ends() == 1000


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[",
        b"{}",
        b"[]",
        b'["nonsense"]',
        b'["connect"]',
        b'["connect",1]',
        b'["connect","/",[]]',
        b'["connect","/",null,"i","x"]',
        b'["e","/","echo",["x"]]',
        b'["n","/",0,"echo",[]]',
        b'["r","/",-1,[]]',
        b'["ask","s","g",1e99,0]',
        b'["skip","/",1,99999999999999999999]',
        b"[" * 60_000,
        b'["connect","/",' + b'{"a":' * 33 + b"1" + b"}" * 33 + b"]",
    ],
    ids=lambda message: message[:30].decode(),
)
@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_s8_messages_of_bellwire_v1_that_are_none(target: Target, message: bytes, packed: bool) -> None:
    if packed:
        message = _packed(message)
    attacker = target.raw("bellwire.v1.msgpack" if packed else "bellwire.v1.json")
    attacker.send(frame(2 if packed else 1, message))
    assert attacker.ends() == 4500


def _packed(message: bytes) -> bytes:
    try:
        return msgspec.msgpack.encode(json.loads(message))
    except OverflowError:
        return b"\x94\xa4skip\xa1/\x01\xcf" + b"\xff" * 8
    except (ValueError, RecursionError):
        return message.replace(b"[", b"\x91").replace(b"{", b"\x81")


# --- S10: JSON that is deep, huge or odd


@pytest.mark.parametrize(
    "payload",
    [
        '["anything",' + "[" * 200_000,
        '["anything",' + "[" * 200_000 + "]" * 200_000 + "]",
        '["anything",' + '{"a":' * 150_000 + "1" + "}" * 150_000 + "]",
        '["anything",' + "[" * 32 + "]" * 33,
        '["note",{"text":"x","more":' + "[" * 200_000 + "]" * 200_000 + "}]",
        '["\\u0061nything",' + "[" * 200_000,
        '["anything",NaN]',
        '["anything",Infinity]',
        '["anything",01]',
    ],
    ids=lambda payload: payload[:24],
)
def test_s10_json_that_is_too_deep_or_none_ends_its_connection(target: Target, payload: str) -> None:
    with target.grows_by_at_most(16 * MIB):
        assert target.join().offer(frame(1, b"42" + payload.encode())).ends() == 1000


@pytest.mark.parametrize("start", ["40/members,", "43", f"451-{'['}"], ids=["CONNECT", "ACK", "BINARY_EVENT"])
def test_s10_other_packets_are_no_deeper(target: Target, start: str) -> None:
    attacker = target.join()
    opening = '{"a":' if start.startswith("40") else "["
    attacker.offer(frame(1, (start + opening * 3_000).encode()))
    attacker.offer(frame(2, b"x"))
    assert attacker.ends() == 1000


@pytest.mark.parametrize("digits", [20, 309, 4_300, 4_301, 900_000])
def test_s10_numbers_of_many_digits_are_refused(target: Target, digits: int) -> None:
    client = target.join()
    client.say(f'421["count",{"9" * digits}]', f'422["relay",{"9" * digits}]')
    for number in (1, 2):
        assert client.reply(number)["error"]["code"] == "invalid_payload"
    assert client.call("count", 2**63) == 2**63


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"__proto__":{"admin":true},"constructor":1}', {"__proto__": {"admin": True}, "constructor": 1}),
        (r'"\ud800"', "\ufffd"),
        (r'{"\udfff":1}', {"\ufffd": 1}),
        ("1e-999", 0),
        ("-0", 0),
        (r'"\u0000"', "\0"),
    ],
)
def test_s10_what_is_odd_and_legal_means_one_thing(target: Target, payload: str, value: Any) -> None:
    client = target.join().say(f'421["anything",{payload}]')
    assert client.reply(1) == value


def test_s10_many_small_containers_cost_little_more_than_their_text(target: Target) -> None:
    with target.grows_by_at_most(64 * MIB):
        client = target.join().say('421["relay",[' + "{}," * 300_000 + "0]]")
        assert client.reply(1) is True


# --- S19: names of events


@pytest.mark.parametrize(
    "name",
    ["__class__", "__init__", "on_connect", "_handlers", "emit", "disconnect_all", "", " ", "\\u0000", "../echo"],
)
def test_s19_a_name_is_looked_up_among_those_of_events_only(target: Target, name: str) -> None:
    client = target.join().say(f'421["{name}"]')
    assert client.reply(1)["error"]["code"] == "unknown_event"


def test_s19_names_that_nobody_knows_leave_nothing_behind(target: Target) -> None:
    series = len(target.vitals()["counters"])
    client = target.join()
    client.offer(b"".join([frame(1, f'42["name-{number}"]'.encode()) for number in range(2_000)]))
    with target.grows_by_at_most(8 * MIB):
        for start in range(0, 20_000, 1_000):
            data = [frame(1, f'42["name-{number}"]'.encode()) for number in range(start, start + 1_000)]
            client.offer(b"".join(data))
            target.serves()
    client.close()
    assert len(target.vitals()["counters"]) <= series + 8


def test_s19_a_name_as_long_as_a_message(target: Target) -> None:
    client = target.join()
    with target.grows_by_at_most(16 * MIB):
        for number in range(20):
            client.say(f'42{number}["{"n" * 900_000}"]')
            assert len(json.dumps(client.reply(number))) < 1_000
    client.close()
    assert "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" not in target.log()


# --- S20: acknowledgements


@pytest.mark.parametrize("number", ["0", "7", "999999999999999"])
def test_s20_answers_that_nobody_asked_for_are_passed_over(target: Target, number: str) -> None:
    client = target.join().say(f'43{number}["forged"]', f'43{number}["forged"]')
    assert client.call("echo", "x") == "x"


@pytest.mark.parametrize("number", ["9999999999999999", "9" * 100, "9" * 100_000, "-1", "1.5"])
def test_s20_numbers_of_answers_have_15_digits(target: Target, number: str) -> None:
    assert target.join().say(f"43{number}[]").ends() == 1000
    assert target.join().say(f'42{number}["echo","x"]').ends() == 1000


def test_s20_nobody_answers_in_the_place_of_somebody_else(target: Target) -> None:
    asked, forger = target.join(), target.join()
    asked.say('421["ask me"]')
    question = asked.text()
    number = question[2 : question.index("[")]
    forger.say(*[f'43{n}["forged"]' for n in range(int(number) + 50)])
    forger.call("echo", "done")
    asked.say(f'43{number}["mine"]')
    assert asked.reply(1) == "mine"


def test_s20_two_answers_are_one(target: Target) -> None:
    client = target.join().say('421["ask me"]')
    question = client.text()
    number = question[2 : question.index("[")]
    client.say(f'43{number}["first"]', f'43{number}["second"]')
    assert client.reply(1) == "first"


def test_s20_a_flood_of_answers_keeps_nothing(target: Target) -> None:
    client = target.join()
    with target.grows_by_at_most(8 * MIB):
        for start in range(0, 50_000, 1_000):
            client.offer(b"".join([frame(1, f"43{number}[]".encode()) for number in range(start, start + 1_000)]))
            target.serves()
    _is_served_or_gone(client)


def _is_served_or_gone(client: Peer) -> None:
    """Who sends too much may be made to go; there is no third way."""
    try:
        assert client.call("echo", "x")
        client.close()
    except (Ended, OSError):
        pass
