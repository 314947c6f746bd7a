from typing import Any, cast

import pytest

from bellwire import Event, TooManyAttachments
from bellwire.guard.packets import MAX_MID, check_mid, pack, post
from tests.server.house import ASK, BLOB, PAIR, POKE, SAY


def test_an_event_becomes_a_packet_of_its_namespace() -> None:
    assert pack("/", SAY, ("hi",)).parts == ('42["say","hi"]',)
    assert pack("/chat", PAIR, (1, 2)).parts == ('42/chat,["pair",1,2]',)
    assert pack("/", POKE, ()).parts == ('42["poke"]',)


def test_a_number_asks_for_an_acknowledgement() -> None:
    assert pack("/chat", ASK, ("hi",), 12).parts == ('42/chat,12["ask","hi"]',)
    assert pack("/", ASK, ("hi",), 0).parts == ('420["ask","hi"]',)


def test_bytes_become_attachments() -> None:
    assert pack("/", BLOB, (b"\x00\x01",)).parts == ('451-["blob",{"_placeholder":true,"num":0}]', b"\x00\x01")


def test_a_wrong_number_of_payload_arguments_is_a_type_error_that_names_both() -> None:
    with pytest.raises(TypeError, match=r"'pair' takes 2 payload argument\(s\), 1 were given"):
        pack("/", cast("Any", PAIR), (1,))


def test_what_cannot_be_encoded_is_a_type_error() -> None:
    for encode in (pack, post):
        with pytest.raises(TypeError, match=r"'say' cannot be sent: .*object.*what its Event declares.*Pydantic"):
            encode("/", SAY, (object(),))


def test_a_string_in_the_place_of_an_event_is_a_type_error_that_names_the_fix() -> None:
    with pytest.raises(TypeError, match=r"declare SAY = Event\('say', \.\.\.\) and pass SAY"):
        pack("/", cast("Any", "say"), ("hi",))
    with pytest.raises(TypeError, match=r"^call\('say'\)"):
        post("/", cast("Any", "say"), ("hi",), 0)


def test_an_event_in_no_log_has_no_mid() -> None:
    cursor = Event("cursor", int, volatile=True)
    check_mid(cursor, None)
    check_mid(SAY, "order-7")
    with pytest.raises(ValueError, match="mid= with 'cursor', which is volatile"):
        check_mid(cursor, "order-7")


def test_more_attachments_than_clients_take_are_refused() -> None:
    many = Event("many", list[bytes])
    with pytest.raises(TooManyAttachments):
        pack("/", many, ([b"x"] * 11,))


@pytest.mark.parametrize("mid", ["", "x" * (MAX_MID + 1)])
def test_a_mid_has_a_length(mid: str) -> None:
    with pytest.raises(ValueError, match=f"mid has {len(mid)} characters: give 1 to {MAX_MID}"):
        check_mid(SAY, mid)


def test_a_mid_is_text() -> None:
    with pytest.raises(TypeError, match=r"mid is a str, not int: emit\(..., mid=str\(order.id\)\)"):
        check_mid(SAY, 7)
