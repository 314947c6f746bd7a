"""Several workers behind one port: real processes that serve, crash, fail and are stopped."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from bellwire.cli.supervisor import CALM_AFTER, MAX_PAUSE, _ended, _pause
from tests.brokers.nats_server import NatsServer
from tests.brokers.test_private_nats import is_running
from tests.cli.process import TIMEOUT, bellwire, write_application
from tests.cli.test_run import ask, speaking
from tests.cli.test_serve import websocket
from tests.ports import free_port

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux deals connections out")

APPLICATION = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
from bellwire import Event, Server, Socket

WHO = Event("who", reply=int)
SAY = Event("say", str, reply=bool)
SAID = Event("said", str)
FAIL = Event("fail", reply=bool)

@asynccontextmanager
async def lifespan(server):
    if Path("broken").exists():
        raise LookupError("no database")
    yield
    if Path("stuck").exists():
        import asyncio
        print("ending", flush=True)
        await asyncio.sleep(3600)

server = Server(lifespan=lifespan)
root = server.namespace("/", emits=(SAID,))

@root.on_connect
async def joined(socket: Socket) -> None:
    await socket.join("room")

@root.on(WHO)
async def who(socket: Socket) -> int:
    return os.getpid()

@root.on(SAY)
async def say(socket: Socket, text: str) -> bool:
    await root.to("room").emit(SAID, text)
    return True

@root.on(FAIL)
async def fail(socket: Socket) -> bool:
    raise RuntimeError("oh no")
"""

RUN = ("run", "app:server", "--workers", "2", "--port", "0")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    write_application(tmp_path, APPLICATION)
    return tmp_path


@contextmanager
def on_each_worker(port: int) -> Iterator[dict[int, ClientConnection]]:
    """Connect until both workers have a client; by the workers' processes."""
    found: dict[int, ClientConnection] = {}
    managers = []
    try:
        while len(found) < 2:
            manager = speaking(port)
            client = manager.__enter__()
            managers.append(manager)
            found.setdefault(ask(client, "who"), client)
        yield found
    finally:
        for manager in managers:
            manager.__exit__(None, None, None)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_one_line_once_all_listen_and_each_has_a_share_of_the_connections(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process:
        line = process.line()
        port = int(line.rpartition(":")[2].partition(" ")[0])
        assert line == f"Bellwire serves app:server on http://127.0.0.1:{port} with 2 workers (Ctrl+C stops them)"
        counts: dict[int, int] = {}
        for _ in range(60):
            with speaking(port) as client:
                pid = ask(client, "who")
                counts[pid] = counts.get(pid, 0) + 1
        assert len(counts) == 2
        assert min(counts.values()) >= 10  # binomial: one in 10^7 runs
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")
        assert process.line() == ""


def test_a_room_is_one_over_all_workers(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process, on_each_worker(process.port()) as clients:
        one, other = clients.values()
        assert ask(one, "say", "hello") is True
        while not (text := str(other.recv(TIMEOUT))).startswith("42"):
            pass
        assert text == '42["said","hello"]'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_in_order_and_leaves_nothing_behind(app: Path, number: signal.Signals) -> None:
    with bellwire(*RUN, cwd=app, environ={"TMPDIR": str(app)}) as process:
        with on_each_worker(process.port()) as clients:
            inside = children(process.process.pid)
            assert len(inside) == 3  # the nats-server as well
            process.signal(number)
            for client in clients.values():
                with pytest.raises(ConnectionClosed) as closed:
                    list(client)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
        assert process.end() == (0, "")
        assert not any(map(is_running, inside))
    assert not list(app.glob("bellwire-*"))


def test_a_worker_that_is_killed_is_started_again_and_the_others_clients_notice_nothing(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process:
        port = process.port()
        with on_each_worker(port) as clients:
            (dead, _), (pid, client) = clients.items()
            os.kill(dead, signal.SIGKILL)
            line = process.error_line()
            assert line.endswith(f" (process {dead}) was killed by SIGKILL: it is started again")
            assert process.error_line() == f"{line.partition(' ')[0]} serves again"
            assert ask(client, "who") == pid
            with on_each_worker(port) as anew:
                assert pid in anew
                assert dead not in anew
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


def test_a_supervisor_that_is_killed_takes_all_along(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process:
        process.port()
        inside = children(process.process.pid)
        process.signal(signal.SIGKILL)
        assert process.end()[0] == -signal.SIGKILL
        until(lambda: not any(map(is_running, inside)))


def test_a_lifespan_that_fails_is_told_once_and_ends_all(app: Path) -> None:
    (app / "broken").touch()
    with bellwire(*RUN, cwd=app) as process:
        code, errors = process.end()
    assert code == 3
    assert errors.count("LookupError: no database") == 1
    assert errors.endswith("Error: the application failed to start, see above\n")
    assert "again" not in errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ap:server",), 1, "Error: there is no module 'ap': did you mean 'app'?\n"),
        (("app:server", "--max-attachments", "11"), 2, "Error: max_attachments = '11' (from --max-attachments): "),
        (
            ("app:server", "--broker", "memory://"),
            2,
            "Error: broker = 'memory://' (from --broker) is the memory of one",
        ),
        (("app:server", "--data", "d", "--broker", "nats://h"), 2, "Error: --data keeps everything in a broker of its"),
    ],
)
def test_what_is_wrong_is_told_once(app: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    with bellwire("run", *arguments, "--workers", "2", "--port", "0", cwd=app) as process:
        ended, errors = process.end()
    assert (ended, errors.count("\n")) == (code, 1)
    assert errors.startswith(message)


def test_a_port_in_use_is_told_before_a_worker_starts(app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with bellwire("run", "app:server", "--workers", "2", "--port", port, cwd=app) as process:
            code, errors = process.end()
    assert code == 1
    assert errors.startswith(f"Error: port {port} of 127.0.0.1 is in use: ")


def test_one_that_fails_when_it_is_started_again_is_tried_again_while_another_serves(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process, on_each_worker(process.port()) as clients:
        (dead, _), (pid, client) = clients.items()
        (app / "broken").touch()
        os.kill(dead, signal.SIGKILL)
        assert "was killed by SIGKILL: it is started again" in process.error_line()
        line = ""
        while "it is started again in 0." not in line:
            line = process.error_line()
        assert "ended with exit code 3" in line
        assert ask(client, "who") == pid
        (app / "broken").unlink()
        while not line.endswith("serves again"):
            line = process.error_line()
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


def test_when_none_serves_and_one_fails_to_start_all_is_over(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process:
        with on_each_worker(process.port()) as clients:
            (app / "broken").touch()
            for pid in clients:
                os.kill(pid, signal.SIGKILL)
        code, errors = process.end()
    assert code == 3
    assert "LookupError: no database" in errors


def test_a_second_ctrl_c_waits_for_nobody(app: Path) -> None:
    (app / "stuck").touch()
    with bellwire(*RUN, cwd=app) as process:
        process.port()
        inside = children(process.process.pid)
        process.signal(signal.SIGINT)
        assert [process.line(), process.line()] == ["ending", "ending"]
        process.signal(signal.SIGINT)
        assert process.end()[0] == 130
        until(lambda: not any(map(is_running, inside)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_for_a_broker_can_be_given_up(app: Path, number: signal.Signals) -> None:
    with bellwire(*RUN, "--broker", f"nats://127.0.0.1:{free_port()}", cwd=app) as process:
        assert process.error_line().startswith("worker-1: Waiting for the broker at ")
        process.signal(number)
        assert process.end() == (0, "")


def test_a_broker_that_is_named_is_the_one_and_no_other_is_started(app: Path) -> None:
    (app / "nats").mkdir()
    nats = NatsServer(app / "nats")
    try:
        with bellwire(*RUN, "--broker", nats.url, cwd=app) as process:
            with on_each_worker(process.port()) as clients:
                assert sorted(children(process.process.pid)) == sorted(clients)
            process.signal(signal.SIGTERM)
            assert process.end() == (0, "")
    finally:
        nats.kill()


def test_logs_say_which_worker(app: Path) -> None:
    with bellwire(*RUN, cwd=app) as process, on_each_worker(process.port()) as clients:
        names = set()
        for client in clients.values():
            assert ask(client, "fail")["error"]["code"] == "internal"
            while " ERROR " not in (line := process.error_line()):
                pass
            names.add(line.split()[2])
        assert names == {"worker-1", "worker-2"}


def test_a_directory_keeps_what_it_keeps_for_all_workers(app: Path) -> None:
    back: dict[str, object] = {}
    for life in range(2):
        with bellwire(*RUN, "--data", "data", "--connection-state-recovery", cwd=app) as process:
            port = process.port()
            with websocket(port) as client:
                client.recv(TIMEOUT)
                client.send(f"40{json.dumps(back)}")
                answer = json.loads(str(client.recv(TIMEOUT))[2:])
                if life:
                    assert answer["pid"] == back["pid"]
                    assert json.loads(str(client.recv(TIMEOUT))[2:])[1] == "missed"
                else:
                    back["pid"] = answer["pid"]
                    assert ask_and_hear(client, "first", back) == "first"
            with speaking(port) as other:
                assert ask(other, "say", "missed") is True
            process.signal(signal.SIGTERM)
            assert process.end() == (0, "")


def ask_and_hear(client: ClientConnection, text: str, back: dict[str, object]) -> str:
    client.send(f'420["say","{text}"]')
    while not (packet := str(client.recv(TIMEOUT))).startswith("42"):
        pass
    _, said, back["offset"] = json.loads(packet[2:])
    return str(said)


def test_the_pause_before_a_start_grows_to_a_bound() -> None:
    assert _pause(1) == 0.0
    assert 0.25 <= _pause(2) <= 0.5
    assert 0.5 <= _pause(3) <= 1.0
    assert MAX_PAUSE / 2 <= _pause(40) <= MAX_PAUSE < CALM_AFTER


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "ended with exit code 0"), (3, "ended with exit code 3"), (-9, "was killed by SIGKILL")],
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert _ended(code) == words
