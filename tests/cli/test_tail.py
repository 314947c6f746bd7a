"""``bellwire tail``: what goes through rooms, seen from a shell, on a real Valkey and a real nats-server."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from bellwire import Config, Emitter, Event, Namespace, Server
from bellwire.cli import main
from bellwire.cli.tail import Line, Teller, printable, to_json, to_text
from bellwire.delivery.answer import Reason
from bellwire.delivery.entry import Draft, enter
from bellwire.delivery.position import Point
from bellwire.delivery.published import Published, encode_published
from bellwire.protocol.post import Post
from bellwire.protocol.socket_id import new_socket_id
from tests.brokers.nats_server import NatsServer
from tests.brokers.redis_server import RedisServer
from tests.cli.process import Process, bellwire

HERE = Path(__file__).parent
REAL = pytest.mark.bellwire(clock="real")
SAY = Event("say", str)
PAIR = Event("pair", int, bytes)
WAVE = Event("wave", int, volatile=True)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.kill()


@pytest.fixture(params=["redis", "nats"])
def url(request: pytest.FixtureRequest) -> str:
    server: RedisServer | NatsServer = request.getfixturevalue(request.param)
    return server.url


@asynccontextmanager
async def tailing(url: str, *arguments: str) -> AsyncIterator[Process]:
    """The command, once it follows."""
    running = bellwire("tail", "--broker", url, *arguments, cwd=HERE)
    process = await asyncio.to_thread(running.__enter__)
    try:
        line = await asyncio.to_thread(process.error_line)
        assert line.startswith("Following ")
        assert "for-tests-only" not in line
        yield process
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def lines(process: Process, count: int) -> list[str]:
    """Its next lines, without the time."""
    found = [await asyncio.to_thread(process.line) for _ in range(count)]
    return [line.partition(" ")[2] for line in found]


@REAL
async def test_it_prints_what_servers_and_emitters_emit(url: str) -> None:
    server = Server(config=Config(broker=url))
    chat: Namespace = server.namespace("/chat")
    rooms = ("--namespace", "/chat", "--room", "a", "--user", "ann")
    async with server.lifespan(), Emitter(url) as emitter, tailing(url, *rooms) as process:
        await chat.to("a").emit(SAY, "from a server")
        await emitter.namespace("/chat").to("a").except_("b").emit(PAIR, 1, b"\0")
        await emitter.namespace("/chat").to("a").emit(WAVE, 5)
        assert await lines(process, 3) == [
            'a say "from a server"',
            'a pair 1,"AA==" (not to b)',
            "a wave 5 (volatile)",
        ]
        await chat.emit(SAY, "everyone, which is no room")
        await emitter.namespace("/").to("a").emit(SAY, "another namespace")
        await chat.user("ann").emit(SAY, "hello")
        assert await lines(process, 1) == ['user ann say "hello"']
        process.signal(signal.SIGINT)
        assert await asyncio.to_thread(process.end) == (0, "")


@REAL
async def test_it_begins_where_it_is_told_to_and_leaves_nothing_out(url: str) -> None:
    async with Emitter(url) as emitter:
        room = emitter.namespace("/").to("history")
        for n in range(5):
            await room.emit(SAY, str(n), mid=f"m{n}")
        async with tailing(url, "--room", "history", "--history", "2", "--json") as process:
            found = [json.loads(await asyncio.to_thread(process.line)) for _ in range(2)]
            assert [(line["payload"], line["mid"]) for line in found] == [(["3"], "m3"), (["4"], "m4")]
            assert found[0].keys() == {"time", "to", "event", "payload", "mid"}
        async with tailing(url, "--room", "history", "--from-start") as process:
            emits = asyncio.create_task(asyncio.to_thread(lines, process, 55))
            for n in range(5, 55):
                await room.emit(SAY, str(n))
            assert await (await emits) == [f'history say "{n}"' for n in range(55)]


@REAL
async def test_without_rooms_it_is_what_goes_to_everyone(redis: RedisServer) -> None:
    async with Emitter(redis.url) as emitter, tailing(redis.url) as process:
        await emitter.namespace("/").to("a").emit(SAY, "to a room")
        await emitter.namespace("/").emit(SAY, "hello")
        assert await lines(process, 1) == ['everyone say "hello"']


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--history", "2", "--from-start"), "give one of the two"),
        (("--history", "-1"), "x>=0"),
        (("--namespace", "chat"), "'chat' is no namespace"),
        (("--namespace", "/org/{org}"), "is a pattern"),
        (("--user", ""), "names nobody"),
        (("--room", new_socket_id("0a1b2c3d")), "is a socket that does not recover, and has no stream of its own"),
        (("--broker", "memory://"), "is the memory of one process"),
        ((), "Connect call failed"),
    ],
)
def test_what_is_wrong_says_what_to_write(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["tail", "--broker", "redis://127.0.0.1:1", *arguments])
    assert message in result.output
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == (2 if arguments else 1)


def test_where_something_may_be_missing_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Teller("/", to_json).tell("a", Reason.TRUNCATED)
    line = json.loads(capsys.readouterr().out)
    assert (line.keys(), line["to"], line["reset"]) == ({"time", "to", "reset"}, "a", "truncated")
    said = to_text(Line("now", "a", reset="diverged"))
    assert said == "now a -- reset (diverged): events may be missing here, or come again --"


def test_what_bellwire_did_not_write_is_said_and_the_next_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    teller = Teller("/", lambda line: line.event)
    entry = enter(Draft("mid", 2, b"\xc1"), 1, Point(0, 0), 0.0)
    teller.tell("a", entry)
    teller.tell("a", b"\xc1")
    teller.tell("a", encode_published(Published(Post("/", "say", ("x",), binary=False).body)))
    said = capsys.readouterr()
    assert said.err == "a: something that this version of Bellwire does not read\n" * 2
    assert said.out == "say\n"


def test_nothing_is_done_to_a_terminal() -> None:
    assert printable("a\x1b[2Jb\u009bc\u202ed é 字") == "a\\x1b[2Jb\\x9bc\\u202ed é 字"
