"""S8, S9, S25: bodies, parallel requests and requests that two servers would read differently."""

import contextlib

import pytest

from tests.attacks.peer import Ended, upgrade
from tests.attacks.target import Target

LIMIT = 1_000_000
MIB = 1024 * 1024


def begin(sid: str, *fields: str) -> bytes:
    lines = [f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1", "Host: localhost", *fields, "", ""]
    return "\r\n".join(lines).encode()


# --- S8: bodies


def test_s8_a_body_that_is_announced_too_long_is_not_read(target: Target) -> None:
    client = target.dial()
    sid = client.polling()
    with target.grows_by_at_most(4 * MIB):
        status, _ = client.request(begin(sid, "Content-Length: 100000000"))
        assert status == 413
        client.offer(b"4" * 20 * MIB)
    leave(target, sid)


def test_s8_a_chunked_body_is_counted_as_it_comes(target: Target) -> None:
    client = target.dial()
    sid = client.polling()
    with target.grows_by_at_most(4 * MIB):
        client.send(begin(sid, "Transfer-Encoding: chunked"))
        client.offer((b"10000\r\n" + b"4" * 65_536 + b"\r\n") * 300)
        assert client.answer()[0] == 413
    leave(target, sid)


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: -1",),
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: 1, 2",),
        ("Content-Length: 0x10",),
        ("Content-Length: " + "9" * 30,),
        ("Content-Length: 1", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: xchunked",),
        ("Content-Length : 1",),
        ("Content-Length: 1", " folded: 1"),
    ],
    ids="; ".join,
)
def test_s25_a_request_whose_end_is_in_doubt_smuggles_nothing(target: Target, fields: tuple[str, ...]) -> None:
    """Behind it stands what one server may take for its body, and the next one for another request."""
    victim, client = target.dial(), target.dial()
    sid = victim.polling()
    client.offer(begin(sid, *fields) + b"0\r\n\r\n" + f"GET /readyz?{sid} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    client.listen(1)
    client.offer(b"\r\n\r\n")
    assert client.rest().count(b"HTTP/1.1 200") == 0
    leave(target, sid)


@pytest.mark.parametrize("packets", [b"4" * 17_000, b"\x1e" * 17_000, b"3\x1e" * 17_000 + b"3"])
def test_s9_packets_of_one_body_are_counted_before_they_are_made(target: Target, packets: bytes) -> None:
    body = packets if b"\x1e" in packets else b"\x1e".join([packets[:1]] * len(packets))
    client = target.dial()
    sid = client.polling()
    assert client.post(sid, body)[0] == 400


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"x", b"2", b"bnot base64", b"4\x1e\x1e4", b"0{}", b"5", b"6", b"2probe"]
)
def test_s8_a_body_that_is_no_payload_ends_its_session(target: Target, body: bytes) -> None:
    client = target.dial()
    sid = client.polling()
    assert client.post(sid, body)[0] in (200, 400)
    assert client.post(sid, b"40")[0] == 400


# --- S9: what long-polling is abused for


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/octet-stream; charset=x"])
def test_s9_a_content_type_that_is_none_is_answered(target: Target, content_type: str) -> None:
    client = target.dial()
    sid = client.polling()
    assert client.post(sid, b"40", f"Content-Type: {content_type}\r\n")[0] == 400


@pytest.mark.parametrize("content_type", ["", "text/html", "application/x-www-form-urlencoded", "\xff", "a" * 8_000])
def test_s9_others_are_not_looked_at(target: Target, content_type: str) -> None:
    client = target.dial()
    sid = client.polling()
    assert client.post(sid, b"40", f"Content-Type: {content_type}\r\n") == (200, b"ok")
    client.post(sid, b"1")


def test_s9_two_requests_of_a_kind_at_once_end_the_session(target: Target) -> None:
    first, second = target.dial(), target.dial()
    sid = first.polling()
    first.send(f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    target.serves()
    assert second.get(sid)[0] == 400
    assert first.answer()[0] in (200, 400)

    sid = second.polling()
    first.send(begin(sid, "Content-Length: 2") + b"4")
    target.serves()
    assert second.post(sid, b"40")[0] == 400
    assert first.answer()[0] == 400


def test_s9_a_flood_of_pongs_makes_no_tasks(target: Target) -> None:
    client = target.dial()
    sid = client.polling()
    tasks = target.vitals()["tasks"]
    for _ in range(5):
        assert client.post(sid, b"\x1e".join([b"3"] * 10_000))[0] == 200
        assert target.vitals()["tasks"] <= tasks + 2
    client.post(sid, b"1")
    client.close()

    client = target.join()
    for _ in range(5):
        client.say(*["3"] * 10_000)
        assert target.vitals()["tasks"] <= tasks + 2


def test_s9_sessions_that_nobody_joins_do_not_stay(target: Target) -> None:
    """Their number is bounded by the time that they have; see `connect_timeout`."""
    before = target.vitals()["sessions"]
    client = target.dial()
    sids = [client.polling() for _ in range(200)]
    assert target.vitals()["sessions"] == before + 200
    for sid in sids:
        client.post(sid, b"1")
    assert target.vitals()["sessions"] == before


@pytest.mark.parametrize("upgrades", [2, 50])
def test_s9_of_several_websockets_for_a_session_one_is_probed(target: Target, upgrades: int) -> None:
    polling = target.dial()
    sid = polling.polling()
    candidates = [target.dial() for _ in range(upgrades)]
    for candidate in candidates:
        candidate.send(upgrade(f"/socket.io/?EIO=4&transport=websocket&sid={sid}"))
        assert candidate.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
    for candidate in candidates[1:]:
        assert candidate.ends() == 1000
    candidates[0].say("5")
    assert candidates[0].ends() == 1000
    polling.post(sid, b"1")
    polling.close()


def leave(target: Target, sid: str) -> None:
    """End a session that may have been ended before."""
    with contextlib.suppress(Ended):
        target.dial().post(sid, b"1")
