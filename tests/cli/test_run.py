"""``bellwire run``: the command line, and what it says when it cannot serve."""

import json
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from bellwire.brokers.private_nats import STOP_WITHIN
from bellwire.core.open_files import MORE
from tests.brokers.nats_server import NatsServer
from tests.brokers.test_private_nats import is_running
from tests.cli.process import APPLICATION, TIMEOUT, Process, bellwire, write_application
from tests.cli.test_serve import websocket
from tests.ports import free_port

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a private nats-server needs Linux")


def refusal(*arguments: str, cwd: Path) -> tuple[int, str]:
    with bellwire("run", *arguments, cwd=cwd) as process:
        ended = process.end()
        assert process.line() == ""
    return ended


def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    write_application(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, errors = refusal("app:server", "--port", str(port), cwd=tmp_path)
    assert code == 1
    assert errors == (
        f"Error: port {port} of 127.0.0.1 is in use: stop the program that has it, or choose another one with --port "
        "(0 takes a free one)\n"
    )


def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    write_application(tmp_path)
    code, errors = refusal("app:server", "--max-attachments", "11", cwd=tmp_path)
    assert code == 2
    assert errors.startswith("Error: max_attachments = '11' (from --max-attachments): ")
    assert errors.count("\n") == 1


def test_a_module_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    write_application(tmp_path)
    assert refusal("ap:server", cwd=tmp_path) == (1, "Error: there is no module 'ap': did you mean 'app'?\n")


def test_a_target_without_a_colon_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    write_application(tmp_path)
    assert refusal("app", cwd=tmp_path) == (2, "Error: 'app' is not MODULE:SERVER: write app:server\n")


def test_the_variable_port_decides_unless_the_flag_does(tmp_path: Path) -> None:
    write_application(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        with bellwire("run", "app:server", cwd=tmp_path, environ={"PORT": taken}) as process:
            code, errors = process.end()
        assert (code, errors.partition(" of ")[0]) == (1, f"Error: port {taken}")
        with bellwire("run", "app:server", "--port", "0", cwd=tmp_path, environ={"PORT": taken}) as process:
            assert process.port() != int(taken)
            process.signal(signal.SIGTERM)
            assert process.end() == (0, "")


def test_refusals_are_told_at_the_level_debug(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire("run", "app:server", "--port", "0", "--log-level", "debug", cwd=tmp_path) as process:
        with socket.create_connection(("127.0.0.1", process.port()), TIMEOUT) as client:
            client.sendall(b"GET /socket.io/?EIO=3&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile() as answer:
                assert answer.read().startswith("HTTP/1.1 400 ")
        process.signal(signal.SIGTERM)
        code, errors = process.end()
    assert code == 0
    assert errors.endswith(" DEBUG bellwire.transports: refused a request of Engine.IO: UNSUPPORTED_PROTOCOL_VERSION\n")


def test_files_variables_and_flags_reach_the_server(tmp_path: Path) -> None:
    write_application(tmp_path)
    (tmp_path / "bellwire.toml").write_text("path = '/live/'\nclient_ping_timeout = 40\n")
    environ = {"BELLWIRE_CLIENT_PING_TIMEOUT": "50"}
    arguments = ("run", "app:server", "--port", "0", "--config", "bellwire.toml", "--client-ping-interval", "26")
    with bellwire(*arguments, cwd=tmp_path, environ=environ) as process:
        port = process.port()
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            client.sendall(b"GET /live/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile() as answer:
                received = answer.read()
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")
    assert '"pingInterval":26000,"pingTimeout":50000' in received


def test_a_variable_that_is_nearly_a_setting_is_told_at_the_start(tmp_path: Path) -> None:
    write_application(tmp_path)
    environ = {"BELLWIRE_PING_INTERVALL": "20", "BELLWIRE_WORKERS": "4", "BELLWIRE_PORT": "tcp://10.0.0.1:80"}
    with bellwire("run", "app:server", "--port", "0", cwd=tmp_path, environ=environ) as process:
        process.port()
        process.signal(signal.SIGTERM)
        code, errors = process.end()
    assert code == 0
    assert errors.splitlines() == [
        "warning: BELLWIRE_PING_INTERVALL is no setting: BELLWIRE_PING_INTERVAL is one",
        "warning: BELLWIRE_WORKERS is no setting: give --workers to bellwire run",
    ]


def with_files(soft: int, hard: int) -> str:
    """An application whose process may have so many files open, and allow itself so many."""
    return f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n{APPLICATION}"


def test_a_server_allows_itself_as_many_open_files_as_it_may(tmp_path: Path) -> None:
    write_application(tmp_path, with_files(64, 256))
    with bellwire("run", "app:server", "--port", "0", cwd=tmp_path) as process:
        process.port()
        assert resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE) == (256, 256)
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


def test_a_server_whose_files_are_all_open_says_so_once_and_goes_on(tmp_path: Path) -> None:
    write_application(tmp_path, with_files(64, 64))
    command = ("run", "app:server", "--port", "0", "--head-timeout", "60")
    with bellwire(*command, cwd=tmp_path) as process, ExitStack() as stack:
        address = ("127.0.0.1", process.port())
        crowd = [stack.enter_context(socket.create_connection(address, TIMEOUT)) for _ in range(100)]
        assert process.error_line().endswith(
            " WARNING bellwire.transports: this process has all 64 files open that it may have, and each connection is "
            f"one: clients that come now are cut off without an answer. Allow more with {MORE}"
        )
        crowd[0].sendall(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with crowd[0].makefile() as answer:
            assert answer.readline() == "HTTP/1.1 200 OK\n", "who was there before is served"
        with suppress(ConnectionResetError):
            assert crowd[-1].recv(1) == b"", "and who comes now is cut off"
        stack.close()
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


# --- the broker

KEEPING = """
from bellwire import BellwireError, Config, Event, EventRefused, Server, Socket
from bellwire.delivery.entry import Draft

KEEP = Event("keep", str, reply=bool)
KEPT = Event("kept", reply=list[str])
server = Server(config=Config(message_rate="off"))  # it is asked again and again
root = server.namespace("/")

@root.on(KEEP)
async def keep(socket: Socket, mid: str) -> bool:
    try:
        return not (await server._broker.append("room", Draft(mid, 1, b""))).duplicate
    except BellwireError as error:
        raise EventRefused(error.code, str(error))

@root.on(KEPT)
async def kept(socket: Socket) -> list[str]:
    start = (await server._broker.top("room"))._replace(seq=0, tag=0)
    return [entry.mid for entry in (await server._broker.read("room", start, confirmed=True)).entries]
"""

RUN_ON_DATA = ("run", "app:server", "--port", "0", "--data", "data")


def ask(client: ClientConnection, *event: str) -> Any:
    """Send an event and return the reply; heartbeats are left alone."""
    client.send(f"420{json.dumps(event)}")
    while True:
        text = str(client.recv(TIMEOUT))
        if text.startswith("430"):
            return json.loads(text[3:])[0]


@contextmanager
def speaking(port: int) -> Iterator[ClientConnection]:
    with websocket(port) as client:
        client.recv(TIMEOUT)
        client.send("40")
        client.recv(TIMEOUT)
        yield client


@contextmanager
def connected(process: Process) -> Iterator[ClientConnection]:
    with speaking(process.port()) as client:
        yield client


def nats_of(folder: Path) -> int:
    """The process of the private nats-server over ``data``: its ports stand in a file that is called after it."""
    (ports,) = (folder / "data").glob("*.ports")
    return int(ports.stem.rpartition("_")[2])


@needs_linux
def test_a_directory_keeps_what_was_accepted_over_kills_and_the_nats_server_dies_with_us(tmp_path: Path) -> None:
    write_application(tmp_path, KEEPING)
    kept: list[str] = []
    for life in range(3):
        with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:
            with connected(process) as client:
                assert (ask(client, "kept") if kept else []) == kept
                for n in range(5):
                    assert ask(client, "keep", f"{life}.{n}") is True
                    kept.append(f"{life}.{n}")
                assert ask(client, "keep", "0.0") is False  # a message id is remembered as well
                nats = nats_of(tmp_path)
                process.signal(signal.SIGKILL)
            assert process.end()[0] == -signal.SIGKILL
    with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:
        with connected(process) as client:
            assert ask(client, "kept") == kept
        assert not is_running(nats)
        nats = nats_of(tmp_path)
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")
        assert not is_running(nats)


def until_told_of_death(process: Process) -> None:
    """Read the log to where a nats-server was killed, which may be before the log says that it runs."""
    while not re.search(r" (died \(-9\): it is started again|ended with -9: .*)$", line := process.error_line()):
        assert line, "the log has ended"


@needs_linux
def test_a_nats_server_that_is_killed_is_started_again_and_clients_are_kept(tmp_path: Path) -> None:
    write_application(tmp_path, KEEPING)
    with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:
        with connected(process) as client:
            for life in range(3):
                assert ask(client, "keep", f"{life}") is True
                os.kill(nats_of(tmp_path), signal.SIGKILL)
                until_told_of_death(process)
                reply: Any = {"error": {"code": "broker_unavailable"}}
                while reply not in (True, False):  # until it is there again; the mid makes it safe to ask again
                    assert reply["error"]["code"] in ("broker_unavailable", "outcome_unknown")
                    reply = ask(client, "keep", f"{life} again")
            assert ask(client, "kept") == [f"{life}{word}" for life in range(3) for word in ("", " again")]
        process.signal(signal.SIGTERM)
        code, rest = process.end()
        assert code == 0
        assert "Traceback" not in rest


@needs_linux
def test_a_second_ctrl_c_does_not_wait_for_a_nats_server_that_does_not_end(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:
        with connected(process) as client:
            nats = nats_of(tmp_path)
            os.kill(nats, signal.SIGSTOP)
            started = time.monotonic()
            process.signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed):
                client.recv(TIMEOUT)
            process.signal(signal.SIGINT)
        assert process.end()[0] == 130
        assert time.monotonic() - started < STOP_WITHIN
    with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:  # the directory is free as soon as the kernel is through
        process.port()
        assert not is_running(nats)
        process.signal(signal.SIGINT)
        assert process.end() == (0, "")


@needs_linux
def test_a_directory_is_for_one_process_and_the_other_is_told_which(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:
        process.port()
        code, errors = refusal(*RUN_ON_DATA[1:], cwd=tmp_path)
        assert code == 1
        assert errors == (
            f"Error: the data directory {tmp_path / 'data'} is in use by process {process.process.pid}: stop that one, "
            "or give this one a directory of its own\n"
        )
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


@needs_linux
def test_a_nats_server_that_does_not_start_is_told_with_its_log_and_leaves_the_directory_free(tmp_path: Path) -> None:
    write_application(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jetstream").touch()  # where it wants a directory
    code, errors = refusal(*RUN_ON_DATA[1:], cwd=tmp_path)
    assert code == 1
    assert errors.startswith("Error: the private nats-server ended with 1: ")
    (tmp_path / "data" / "jetstream").unlink()
    with bellwire(*RUN_ON_DATA, cwd=tmp_path) as process:
        process.port()
        process.signal(signal.SIGINT)
        assert process.end() == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "data", "--broker", "memory://"), "broker = 'memory://' (from --broker) names another one"),
        (("--data", ""), "Invalid value for '--data': it is empty: name a directory"),
        (("--data", "app.py"), "Invalid value for '--data': Directory 'app.py' is a file"),
        (("--broker", "memcached://secret@host"), "broker = 'memcached://***@host' is none: there are memory://"),
    ],
)
def test_a_wrong_broker_is_told_before_anything_is_started(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_application(tmp_path)
    code, errors = refusal("app:server", *arguments, cwd=tmp_path)
    assert code == 2
    assert message in errors
    assert "secret" not in errors
    assert not (tmp_path / "data").exists()


def test_it_listens_once_its_broker_answers(tmp_path: Path) -> None:
    write_application(tmp_path, KEEPING)
    (tmp_path / "nats").mkdir()
    nats = NatsServer(tmp_path / "nats")
    nats.kill()
    port = free_port()
    with bellwire("run", "app:server", "--port", str(port), "--broker", nats.url, cwd=tmp_path) as process:
        shown = f"nats://***@127.0.0.1:{nats.port}"
        waiting = process.error_line()
        assert waiting.startswith(f"Waiting for the broker at {shown} (Ctrl+C gives up): no connection to NATS: ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), TIMEOUT)
        nats.start()
        try:
            assert process.error_line().startswith(f"The broker at {shown} answers after ")
            with connected(process) as client:
                assert ask(client, "keep", "m") is True
            process.signal(signal.SIGTERM)
            assert process.end() == (0, "")
        finally:
            nats.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_a_broker_can_be_given_up(tmp_path: Path, number: signal.Signals) -> None:
    write_application(tmp_path)
    arguments = ("run", "app:server", "--port", "0", "--broker", f"nats://127.0.0.1:{free_port()}")
    with bellwire(*arguments, cwd=tmp_path) as process:
        assert process.error_line().startswith("Waiting for the broker at ")
        process.signal(number)
        assert process.end() == (0, "")
        assert process.line() == ""


# --- with clients that come back

ROOM = """
from bellwire import Event, Server, Socket

SAY = Event("say", str, reply=bool)
SAID = Event("said", str)
server = Server()
root = server.namespace("/", emits=(SAID,))

@root.on_connect
async def joined(socket: Socket) -> None:
    if not socket.recovered:
        await socket.join("room")

@root.on(SAY)
async def say(socket: Socket, text: str) -> bool:
    await root.to("room").emit(SAID, text)
    return True
"""


class Returning:
    """A client that comes back to its session: Socket.IO's own, or one that asked for streams."""

    def __init__(self, *, stock: bool) -> None:
        self.said: list[str] = []
        self.recovered = False
        self._stock = stock
        self._back: dict[str, Any] = {} if stock else {"bellwire": {"version": 1, "instance": "test"}}
        self._sid = ""
        self._positions: dict[str, list[Any]] = {}
        self._called: dict[int, str] = {}

    @contextmanager
    def connected(self, port: int) -> Iterator[None]:
        with websocket(port) as self._websocket:
            self._websocket.recv(TIMEOUT)
            if not self._stock and self._positions:
                self._back["bellwire"]["cursors"] = [[stream, *at] for stream, at in self._positions.items()]
            self._websocket.send(f"40{json.dumps(self._back)}")
            answer = self._next("40")
            self.recovered = answer["sid"] == self._sid
            self._sid = answer["sid"]
            if self._stock:
                self._back["pid"] = answer["pid"]
            else:
                self._back["bellwire"]["session"] = answer["bellwire"]["session"]
            yield

    def hear(self, count: int) -> None:
        """Wait until so many texts were said in all; nothing but texts and where they stand may come."""
        while len(self.said) < count:
            name, *arguments = self._next("42")
            if name == "bellwire":
                self._take(*arguments[0])
            elif self._stock:
                text, self._back["offset"] = arguments
                self.said.append(text)
            else:
                text, trailer = arguments
                _, alias, seq, tag, back, prev_tag, _mid = trailer["bellwire"][:7]
                stream = self._called[alias]
                assert self._positions[stream][1:] == [seq - back, prev_tag]
                self._positions[stream][1:] = [seq, tag]
                self.said.append(text)

    def _take(self, kind: str, *what: Any) -> None:
        if kind == "open":
            self._goes_on(*what[1:])
        else:
            assert kind in ("advance", "proved"), f"{kind} came: {what}"
            if kind == "proved":
                self._goes_on(*what)

    def _goes_on(self, stream: str, alias: int, *position: Any) -> None:
        self._called[alias] = stream
        self._positions[stream] = [*position]

    def _next(self, begin: str) -> Any:
        while not (text := str(self._websocket.recv(TIMEOUT))).startswith(begin):
            if text == "2":
                self._websocket.send("3")
        return json.loads(text[len(begin) :])


@needs_linux
@pytest.mark.parametrize("stock", [False, True], ids=["streams", "stock"])
def test_those_who_come_back_after_a_kill_get_what_they_missed_once_and_in_order(
    tmp_path: Path, *, stock: bool
) -> None:
    write_application(tmp_path, ROOM)
    returning = Returning(stock=stock)
    arguments = (*RUN_ON_DATA, "--connection-state-recovery") if stock else RUN_ON_DATA
    expected: list[str] = []

    def say(client: ClientConnection, text: str) -> None:
        assert ask(client, "say", text) is True
        expected.append(text)

    for life in range(3):
        with bellwire(*arguments, cwd=tmp_path) as process:
            port = process.port()
            with speaking(port) as client:
                if life:
                    say(client, f"{life} while it is away")
                with returning.connected(port):
                    assert returning.recovered is (life > 0)
                    for n in range(3):
                        say(client, f"{life} {n}")
                    returning.hear(len(expected))
                    assert returning.said == expected
                say(client, f"{life} once it has gone")
                process.signal(signal.SIGKILL)
            assert process.end()[0] == -signal.SIGKILL


@needs_linux
@pytest.mark.parametrize("stock", [False, True], ids=["streams", "stock"])
def test_those_who_were_there_at_the_end_come_back_to_the_next_one(tmp_path: Path, *, stock: bool) -> None:
    write_application(tmp_path, ROOM)
    returning = Returning(stock=stock)
    arguments = (*RUN_ON_DATA, "--connection-state-recovery") if stock else RUN_ON_DATA
    for life in range(2):
        with bellwire(*arguments, cwd=tmp_path) as process:
            port = process.port()
            with speaking(port) as client:
                assert ask(client, "say", f"{life} while it is away") is True
                with returning.connected(port):
                    assert returning.recovered is (life > 0)
                    assert ask(client, "say", f"{life} while it is there") is True
                    returning.hear(2 * life + 1)
                    process.signal(signal.SIGTERM)
                    assert process.end() == (0, "")
    assert returning.said == ["0 while it is there", "1 while it is away", "1 while it is there"]
