"""S1, S2, S3, S4: whose pages connect, and what comes before a connection is one."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.attacks.peer import Peer, frame, upgrade
from tests.attacks.target import PATIENCE, Target, running

MIB = 1024 * 1024


# --- S1: pages of others

OWN = ("http://localhost", "http://LOCALHOST", "http://localhost:80")
FOREIGN = (
    "http://evil.example",
    "null",
    "",
    "http://localhost.evil.example",
    "http://evil-localhost",
    "http://localhost:81",
    "https://localhost",
    "http://localhost@evil.example",
    "http://localhost, http://evil.example",
    "file://",
    "http://local\xe9host",
    "http://[::1",
)


def opened(target: Target, transport: str, fields: str) -> int:
    """The status of a handshake with such fields."""
    client = target.dial()
    if transport == "polling":
        status, body = client.get(fields=fields)
        end(client, body)
        return status
    path = "/bellwire" if transport == "bellwire.v1" else "/socket.io/?EIO=4&transport=websocket"
    protocol = "Sec-WebSocket-Protocol: bellwire.v1.json\r\n" if transport == "bellwire.v1" else ""
    client.offer(upgrade(path, protocol + fields))
    return int(client.read_until(b"\r\n").split(b" ")[1])


def end(client: Peer, body: bytes) -> None:
    """End the session that was opened, if one was."""
    if body[:1] == b"0":
        client.post(json.loads(body[1:])["sid"], b"1")


@pytest.mark.parametrize("transport", ["polling", "websocket", "bellwire.v1"])
def test_s1_pages_of_others_do_not_connect_and_ones_own_do(target: Target, transport: str) -> None:
    open_ = 200 if transport == "polling" else 101
    assert opened(target, transport, "") == open_  # programs send none, and need none
    for origin in OWN:
        assert opened(target, transport, f"Origin: {origin}\r\n") == open_, origin
    for origin in FOREIGN:
        assert opened(target, transport, f"Origin: {origin}\r\n") in (400, 403), origin
        forged = f"Origin: {origin}\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\n"
        assert opened(target, transport, forged) in (400, 403), origin


# --- S2: heads


@pytest.mark.parametrize(
    "fields",
    [
        "X-Long: y\r\n" * 10_000,
        "X: " + "y" * MIB + "\r\n",
        "X" * MIB + ": y\r\n",
        "Cookie: " + "a=b; " * 200_000 + "\r\n",
    ],
    ids=["10,000 fields", "a field of 1 MiB", "a name of 1 MiB", "cookies"],
)
def test_s2_heads_that_are_too_long_are_not_kept(target: Target, fields: str) -> None:
    with target.grows_by_at_most(8 * MIB):
        client = target.dial().offer(upgrade(fields=fields))
        assert not client.rest().startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(
    "fields",
    [
        "Sec-WebSocket-Protocol: " + " ," * 20_000 + "\r\n",
        "Sec-WebSocket-Protocol: " + "a" * 50_000 + "\r\n",
        "Sec-WebSocket-Protocol: bellwire.v1.json" + " " * 50_000 + "x\r\n",
        'Sec-WebSocket-Extensions: permessage-deflate; a="' + '\\"' * 20_000 + "\r\n",
        "Sec-WebSocket-Extensions: " + "permessage-deflate; client_max_window_bits, " * 1_000 + "\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate" + ";" * 50_000 + "\r\n",
        "Cookie: " + "a" * 50_000 + "\r\n",
        'Cookie: a="' + "\\" * 50_000 + "\r\n",
        "Origin: http://" + "a." * 25_000 + "\r\n",
    ],
    ids=range(9),
)
@pytest.mark.parametrize("path", ["/bellwire", "/socket.io/?EIO=4&transport=websocket"])
def test_s2_heads_that_slow_others_down_are_judged_at_once(target: Target, path: str, fields: str) -> None:
    client = target.dial()
    began = time.perf_counter()
    client.offer(upgrade(path, fields))
    client.read_until(b"\r\n")
    assert time.perf_counter() - began < 3  # no matter how busy the machine is


@pytest.mark.parametrize("query", ["&" * 50_000, "&a=b" * 10_000, "&x=" + "%41" * 15_000, "&sid=" + "a" * 60_000])
def test_s2_queries_are_bounded_too(target: Target, query: str) -> None:
    client = target.dial()
    began = time.perf_counter()
    client.offer(f"GET /socket.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    _, body = client.answer()
    assert time.perf_counter() - began < 3  # no matter how busy the machine is
    end(client, body)


# --- S4: upgrades to something else, and those that are broken off


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n",
    ],
    ids=range(7),
)
def test_s4_upgrades_to_something_else_are_refused(target: Target, fields: str) -> None:
    client = target.dial()
    client.offer(f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
    assert re.match(rb"HTTP/1.1 4", client.read_until(b"\r\n"))


@pytest.mark.parametrize(
    "data",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"\x16\x03\x01\x02\0\x01", b"\0" * 100],
    ids=["HTTP/2", "TLS", "zeros"],
)
def test_s4_what_is_no_http_1_1_is_refused(target: Target, data: bytes) -> None:
    assert not target.dial().offer(data).rest().startswith(b"HTTP/1.1 2")


def test_s4_a_reset_at_each_byte_of_the_handshake_costs_nothing(target: Target) -> None:
    request = upgrade() + frame(1, b"40") + frame(1, b'420["echo","x"]')
    for end in range(len(request)):
        client = Peer(target.port)
        client.offer(request[:end])
        client.reset()
    target.serves()


def test_s4_a_session_that_is_reset_while_it_is_upgraded(target: Target) -> None:
    for packets in ((), ("2probe",), ("2probe", "5"), ("5",), ("2probe", "5", "40")):
        polling, candidate = target.dial(), target.dial()
        sid = polling.polling()
        candidate.send(upgrade(f"/socket.io/?EIO=4&transport=websocket&sid={sid}"))
        candidate.read_until(b"\r\n\r\n")
        candidate.say(*packets)
        candidate.reset()
        polling.post(sid, b"1")


# --- S3: slowness


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server whose deadlines a test can wait for."""
    flags = ("--head-timeout", "1", "--connect-timeout", "1", "--message-timeout", "1", "--upgrade-timeout", "1")
    with running(tmp_path_factory.mktemp("impatient") / "log", *flags) as target:
        yield target


HEAD = b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\nX: "
FRAGMENT = frame(1, b'42["echo",', fin=False)


SLOW = ("head", "body", "frame header", "fragment", "attachment", "nothing", "no namespace")
FOLLOWED_BY = {"head": b"x", "body": b"4", "fragment": frame(0, b"", fin=False)}


def test_s3_who_is_slow_does_not_stay(impatient: Target) -> None:
    """Each sends a little now and then; the server answers with an end, in whichever way."""
    with impatient.is_as_before():
        clients = {what: slow_client(impatient, what) for what in SLOW}
        deadline = time.monotonic() + PATIENCE
        while clients:
            assert time.monotonic() < deadline, f"still there: {', '.join(clients)}"
            for what, client in tuple(clients.items()):
                client.offer(FOLLOWED_BY.get(what, b""))
                if client.listen(0.02):
                    del clients[what]
            impatient.serves()


def slow_client(target: Target, what: str) -> Peer:
    match what:
        case "head":
            return target.dial().send(HEAD)
        case "body":
            client = target.dial()
            sid = client.polling()
            head = f"POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: localhost\r\n"
            return client.send(f"{head}Content-Length: 100000\r\n\r\n".encode())
        case "frame header":
            return target.join().send(FRAGMENT[:1])
        case "fragment":
            return target.join().send(FRAGMENT)
        case "attachment":
            return target.join().say('451-["parcel",[{"_placeholder":true,"num":0}]]')
        case "no namespace":
            return target.open()
        case _:
            return target.dial()


@pytest.mark.slowhttptest
@pytest.mark.parametrize(
    "mode",
    [
        ("-H", "-x", "10"),
        ("-B", "-s", "100000", "-x", "10"),
        ("-R", "-a", "10", "-b", "3000"),
        ("-X", "-w", "1", "-y", "2", "-z", "1"),
    ],
    ids=["slow heads", "slow bodies", "ranges", "slow readers"],
)
@pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="slowhttptest of Debian is not installed")
def test_s3_slowhttptest_keeps_nobody_from_being_served(impatient: Target, mode: tuple[str, ...]) -> None:
    """200 slow connections for four seconds; the program itself looks whether it is served meanwhile."""
    url = f"http://127.0.0.1:{impatient.port}/socket.io/?EIO=4&transport=polling"
    command = ["slowhttptest", mode[0], "-c", "200", "-r", "100", "-i", "1", "-l", "4", "-p", "5", "-u", url, *mode[1:]]
    with impatient.is_as_before():
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attack:
            while attack.poll() is None:
                impatient.serves()
                impatient.bystander.listen(0.2)
            output = attack.stdout.read() if attack.stdout is not None else ""
        states = re.findall(r"service available:\s*(YES|NO)", re.sub(r"\x1b\[[0-9;]*m", "", output))
        assert states
        assert set(states) == {"YES"}
