"""S21, S22, S26: what a browser might run, what JavaScript might inherit, and what memory might leak."""

import pytest

from bellwire.protocol.frames import CLOSE
from tests.attacks.peer import frame, upgrade
from tests.attacks.target import Target

SCRIPT = "</script><script>alert(1)</script>"


@pytest.mark.parametrize(
    "path",
    [
        f"/socket.io/?EIO=4&transport={SCRIPT}",
        f"/socket.io/?EIO=4&transport=polling&sid={SCRIPT}",
        f"/socket.io/?EIO=4&transport=polling&sid=x&j={SCRIPT}",
        f"/socket.io/{SCRIPT}?EIO=4&transport=polling&sid=x",
        f"/{SCRIPT}",
        f"/bellwire?{SCRIPT}",
        f"/readyz?{SCRIPT}",
    ],
)
def test_s21_no_page_says_what_its_address_says(target: Target, path: str) -> None:
    client = target.dial()
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX: {SCRIPT}\r\nUser-Agent: {SCRIPT}\r\n\r\n"
    status, fields, body = client.send(head.replace(" alert", "").encode()).response()
    assert status in (200, 400, 404, 426)
    assert b"<script" not in body
    assert SCRIPT not in str(fields)


@pytest.mark.parametrize("path", ["/socket.io/?EIO=4&transport=" + SCRIPT, "/bellwire"])
def test_s21_nor_does_a_refused_upgrade(target: Target, path: str) -> None:
    client = target.dial()
    client.offer(upgrade(path, f"Sec-WebSocket-Protocol: {SCRIPT}\r\n"))
    assert b"<script" not in client.rest()


def test_s21_what_long_polling_brings_is_no_page(target: Target) -> None:
    client = target.dial()
    sid = client.polling()
    client.post(sid, b"40")
    client.get(sid)
    client.post(sid, f'421["echo","{SCRIPT}"]'.encode())
    client.send(f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    _, fields, body = client.response()
    assert SCRIPT in body.decode()
    assert fields["content-type"] == "text/plain; charset=UTF-8"
    assert fields["x-content-type-options"] == "nosniff"
    client.post(sid, b"1")


def test_s21_text_that_is_declared_plain_has_no_markup(target: Target) -> None:
    client = target.join()
    for written in (SCRIPT, "<img src=x onerror=alert(1)>", "<<script>script>alert(1)", "&lt;script&gt;", "\u003cb>"):
        assert "<" not in client.call("note", {"text": written})


@pytest.mark.parametrize("key", ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"])
def test_s22_keys_of_javascripts_prototypes_are_keys(target: Target, key: str) -> None:
    """They go through as they came: nothing is merged here, and what a client makes of them is its own affair."""
    client = target.join()
    value = {key: {"polluted": True}, "nested": [{key: 1}]}
    assert client.call("anything", value) == value
    assert client.call("anything", {}) == {}


@pytest.mark.parametrize(
    "attack",
    [
        frame(1, b"4secret-of-the-attacker"),
        frame(1, b"secret-of-the-attacker"),
        frame(1, b'42["connect","secret-of-the-attacker"]'),
        frame(3, b"secret-of-the-attacker"),
        frame(CLOSE, b"\x03\xe8secret-of-the-attacker"),
        frame(CLOSE, b"\x03\xe8\xff"),
        frame(CLOSE, b"\x00\x01secret-of-the-attacker"),
    ],
    ids=range(7),
)
def test_s26_reasons_for_closing_are_the_servers_own_words(target: Target, attack: bytes) -> None:
    """No buffer is sent that was not written whole: Python has no others. What is left is whose words are in it."""
    client = target.join().send(attack)
    opcode, payload = client.next_frame()
    while opcode != CLOSE:
        opcode, payload = client.next_frame()
    assert b"secret" not in payload
    assert payload[2:].isascii()
