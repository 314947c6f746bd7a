"""``bellwire publish``: from a shell to the clients of a server, on a real Valkey."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bellwire import Config, Event, Server
from bellwire.cli import main
from bellwire.testing import connect
from tests.brokers.redis_server import RedisServer

EVENTS = """
import msgspec
from bellwire import Event, Server

class Posted(msgspec.Struct):
    author: str
    text: str

POSTED = Event("message:posted", Posted)
MOVED = Event("cursor", int, int, volatile=True)
CLEARED = Event("cleared")
SAID = Event("said", str)
server = Server()
"""
TIMEOUT = 20.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "events.py").write_text(EVENTS)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "nothing.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


def publish(*arguments: str, broker: str = "redis://127.0.0.1:1", stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["publish", "--broker", broker, *arguments], input=stdin)


POSTED = '{"author": "ada", "text": "hello"}'


@pytest.mark.bellwire(clock="real")
async def test_it_reaches_clients(redis: RedisServer) -> None:
    posted, cleared = Event("message:posted", dict[str, str]), Event("cleared")
    moved, other = Event("cursor", int, int, volatile=True), Event("other", list[int])
    server = Server(config=Config(broker=redis.url))
    server.namespace("/chat")

    async def said(*arguments: str, stdin: str = "") -> str:
        chat = ("--namespace", "/chat", *arguments)
        result = await asyncio.to_thread(publish, *chat, broker=redis.url, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.output

    async with server.lifespan(), connect(server, "/chat", user="ann") as ann, connect(server, "/chat") as bob:
        assert await said("events:POSTED", POSTED) == "Published message:posted to everyone in /chat\n"
        assert await ann.receive(posted, timeout=TIMEOUT) == json.loads(POSTED)
        assert await bob.receive(posted, timeout=TIMEOUT) == json.loads(POSTED)
        output = await said("events:POSTED", "-", "--user", "ann", "--to", "room", stdin=POSTED)
        assert output == "Published message:posted to room, user ann in /chat\n"
        assert await ann.receive(posted, timeout=TIMEOUT) == json.loads(POSTED)
        await said("events:MOVED", "1", "2", "--to", bob.id)
        assert await bob.receive(moved, timeout=TIMEOUT) == (1, 2)
        await said("other", "[1, 2]", "--untyped", "--except", ann.id)
        assert await bob.receive(other, timeout=TIMEOUT) == [1, 2]
        for _ in range(2):
            data = json.loads(await said("events:CLEARED", "--mid", "job-7", "--json"))
        assert data == {"ok": True, "event": "cleared", "namespace": "/chat", "to": [], "mid": "job-7"}
        await said("events:POSTED", POSTED)
        for client in (ann, bob):
            await client.receive(cleared, timeout=TIMEOUT)
            await client.receive(posted, timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("events:POSTED",), "'message:posted' takes 1 argument (Posted), and not 0: give each as one JSON text"),
        (("events:MOVED", "1"), "'cursor' takes 2 arguments (int, int), and not 1: "),
        (("events:CLEARED", "1"), "'cleared' takes 0 arguments (none), and not 1: "),
        (("events:MOVED", "-", "-"), "'-' stands twice: standard input is one argument"),
        (("events:SAID", "hello"), "argument 1 of 'said' is no JSON: JSON is malformed: "),
        (("events:SAID", "hello"), "and text into double quotes within them: '\"hello\"'"),
        (("events:SAID", "5"), "argument 1 of 'said': Expected `str`, got `int`"),
        (
            ("events:POSTED", '{"author": 1}'),
            "'message:posted': Expected `str`, got `int` - at `$.author`",
        ),
        (("message:posted", POSTED), "there is no module 'message'"),
        (("message:posted", POSTED), "To publish an event by its name alone, give --untyped"),
        (("posted", POSTED), "'posted' is not MODULE:EVENT: write chat.events:SENT for the variable"),
        (("events:POST", POSTED), "the module 'events' has no 'POST': its events are events:POSTED, events:MOVED, "),
        (("events:server", POSTED), "events:server is no Event but of the type Server: its events are "),
        (("nothing:POSTED", POSTED), "it has no bellwire.Event at all; name the module where the events are declared"),
        (("broken:POSTED", POSTED), "ZeroDivisionError"),
        (("connect", "--untyped"), "'connect' is reserved by Socket.IO"),
        (("events:CLEARED", "--namespace", "chat"), "'chat' is no namespace: it begins with '/'"),
        (("events:CLEARED", "--namespace", "/org/{org}"), "'/org/{org}' is a pattern"),
        (("events:CLEARED", "--user", ""), "names nobody"),
        (("events:CLEARED", "--mid", ""), "mid has 0 characters: give 1 to 128"),
        (("events:MOVED", "1", "2", "--mid", "m"), "volatile and in no history: leave it out"),
        (("events:CLEARED", "--room", "a"), "No such option"),
        (("events:CLEARED",), "Connect call failed"),
    ],
)
def test_what_is_wrong_says_what_to_write(arguments: tuple[str, ...], message: str) -> None:
    result = publish(*arguments)
    assert message in result.output
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)


@pytest.mark.parametrize(("arguments", "code"), [(("events:CLEARED",), 1), (("events:CLEARED", "1"), 2)])
def test_errors_are_json_too(arguments: tuple[str, ...], code: int) -> None:
    result = publish(*arguments, "--json")
    data = json.loads(result.output)
    assert data["ok"] is False
    assert len(data["errors"]) == 1
    assert result.exit_code == code


def test_without_a_broker_it_says_how_to_name_one() -> None:
    result = CliRunner().invoke(main, ["publish", "events:CLEARED"])
    assert "no broker is named: give --broker URL, or set BELLWIRE_BROKER" in result.output
    assert result.exit_code == 2
