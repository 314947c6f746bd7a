"""What serving promises, in a real process: one line when it listens, and every end a clean one."""

import http.client
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.cli.process import APPLICATION, TIMEOUT, bellwire, write_application

RUN = ("run", "app:server", "--port", "0")


def websocket(port: int, query: str = "EIO=4&transport=websocket") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}/socket.io/?{query}", open_timeout=TIMEOUT, proxy=None)


def request(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_one_line_with_the_real_port_once_it_listens(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire(*RUN, cwd=tmp_path) as process:
        line = process.line()
        port = int(line.rpartition(":")[2].partition(" ")[0])
        assert line == f"Bellwire serves app:server on http://127.0.0.1:{port} (Ctrl+C stops it)"
        with websocket(port) as client:
            assert client.recv(TIMEOUT).startswith('0{"sid"')  # type: ignore[arg-type]
            client.send("40")
            assert client.recv(TIMEOUT).startswith('40{"sid"')  # type: ignore[arg-type]
            client.send('421["echo","hello"]')
            assert client.recv(TIMEOUT) == '431["hello"]'
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")
        assert process.line() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_connections_a_signal_ends_it_within_a_second(tmp_path: Path, number: signal.Signals) -> None:
    write_application(tmp_path)
    with bellwire(*RUN, cwd=tmp_path) as process:
        process.port()
        start = time.monotonic()
        process.signal(number)
        assert process.end() == (0, "")
        assert time.monotonic() - start < 1


def test_clients_are_told_that_the_server_restarts(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire(*RUN, cwd=tmp_path) as process:
        port = process.port()
        with websocket(port) as client:
            client.recv(TIMEOUT)
            process.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert process.end() == (0, "")


def test_clients_that_answer_the_close_are_not_waited_for(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire(*RUN, cwd=tmp_path) as process:
        with websocket(process.port()) as client:
            client.recv(TIMEOUT)
            start = time.monotonic()
            process.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                client.recv(TIMEOUT)
        assert process.end() == (0, "")
        assert time.monotonic() - start < 4


def test_a_pending_request_of_long_polling_is_answered(tmp_path: Path) -> None:
    write_application(tmp_path)
    answers: list[tuple[int, str]] = []
    with bellwire(*RUN, cwd=tmp_path) as process:
        port = process.port()
        path = "/socket.io/?EIO=4&transport=polling"
        _, body = request(port, "GET", path)
        sid = body.partition('"sid":"')[2].partition('"')[0]
        poll = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        poll.request("GET", f"{path}&sid={sid}")
        # The server has taken the GET when it answers what came after it.
        assert request(port, "GET", "/socket.io/?EIO=3&transport=polling")[0] == 400
        process.signal(signal.SIGTERM)
        response = poll.getresponse()
        answers.append((response.status, response.read().decode()))
        poll.close()
        assert process.end() == (0, "")
    assert answers == [(200, "1")]


LIFESPAN = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from bellwire import Server

@asynccontextmanager
async def lifespan(server):
    yield
    await asyncio.sleep(0.3)  # as long as it takes to close, say, a database's connections
    Path("ended").write_text("yes")

server = Server(lifespan=lifespan)
server.namespace("/")
"""


def test_the_lifespans_end_runs_to_its_end(tmp_path: Path) -> None:
    write_application(tmp_path, LIFESPAN)
    with bellwire(*RUN, cwd=tmp_path) as process:
        process.port()
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")
    assert (tmp_path / "ended").exists()


FAILING = """
from contextlib import asynccontextmanager
from bellwire import Server

def connect_to_the_database():
    raise LookupError("no database")

@asynccontextmanager
async def lifespan(server):
    connect_to_the_database()
    yield

server = Server(lifespan=lifespan)
"""


def test_a_failed_start_is_told_once_by_the_applications_own_lines(tmp_path: Path) -> None:
    write_application(tmp_path, FAILING)
    with bellwire(*RUN, cwd=tmp_path) as process:
        code, errors = process.end()
        assert process.line() == ""
    assert code == 3
    assert errors.count("LookupError") == 2  # in the line that raised it, and as what was raised
    assert [line.split('"')[1] for line in errors.splitlines() if line.startswith('  File "')] == [
        str(tmp_path / "app.py")
    ] * 2
    assert errors.splitlines()[-2:] == [
        "LookupError: no database",
        "Error: the application failed to start, see above",
    ]


def test_a_failed_end_is_told_once_by_the_applications_own_lines(tmp_path: Path) -> None:
    write_application(tmp_path, FAILING.replace("    connect_to_the_database()\n    yield", "    yield\n    1 / 0"))
    with bellwire(*RUN, cwd=tmp_path) as process:
        process.port()
        process.signal(signal.SIGTERM)
        code, errors = process.end()
    assert code == 3
    assert errors.count("ZeroDivisionError") == 1
    assert errors.count('  File "') == 1
    assert errors.endswith("Error: the application failed at its end, see above\n")


FAILING_BESIDE = """
from bellwire import Server

async def application(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

server = Server(http=application)
"""


def test_a_failed_start_of_the_application_beside_it_is_told_once(tmp_path: Path) -> None:
    write_application(tmp_path, FAILING_BESIDE)
    with bellwire(*RUN, cwd=tmp_path) as process:
        assert process.end() == (3, "no database\nError: the application failed to start, see above\n")


HANGING = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from bellwire import Server

@asynccontextmanager
async def lifespan(server):
    print("starting", flush=True)
    try:
        await asyncio.Event().wait()
        yield
    finally:
        print("cleaned up", flush=True)

server = Server(lifespan=lifespan)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_hangs_can_be_given_up(tmp_path: Path, number: signal.Signals) -> None:
    write_application(tmp_path, HANGING)
    with bellwire(*RUN, cwd=tmp_path) as process:
        assert process.line() == "starting"
        process.signal(number)
        assert process.end() == (0, "")
        assert process.line() == "cleaned up"


def test_a_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire(*RUN, "--shutdown-grace", "60", cwd=tmp_path) as process:
        port = process.port()
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            client.sendall(
                b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            read_until(client, b'0{"sid"')
            process.signal(signal.SIGINT)
            read_until(client, b"\x88\x02\x03\xf4")  # a close frame with the code 1012, never answered
            start = time.monotonic()
            process.signal(signal.SIGINT)
            code, _ = process.end()
        assert code == 130
        assert time.monotonic() - start < 2


def read_until(client: socket.socket, wanted: bytes) -> None:
    received = b""
    while wanted not in received:
        chunk = client.recv(65536)
        assert chunk, f"the end came after {received!r}"
        received += chunk


SLOW_REQUEST = """
import asyncio
from bellwire import Server

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    print("asked", flush=True)
    await asyncio.Event().wait()

server = Server(http=application)
"""


def test_what_does_not_end_is_cut_off_after_the_grace(tmp_path: Path) -> None:
    write_application(tmp_path, SLOW_REQUEST)
    with bellwire(*RUN, "--shutdown-grace", "0.2", cwd=tmp_path) as process:
        port = process.port()
        asking = threading.Thread(target=ask_in_vain, args=(port,))
        asking.start()
        assert process.line() == "asked"
        start = time.monotonic()
        process.signal(signal.SIGTERM)
        code, _ = process.end()
        asking.join(TIMEOUT)
    assert code == 0
    assert time.monotonic() - start < 2


def ask_in_vain(port: int) -> None:
    try:
        request(port, "GET", "/slow")
    except (OSError, http.client.HTTPException):
        return


OTHER_PATHS = """
from bellwire import Server

async def application(scope, receive, send):
    assert scope["type"] in ("lifespan", "http", "websocket")
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close"})
    else:
        raise RuntimeError("no lifespan here")

server = Server(http=application)
server.namespace("/")
"""


def test_other_paths_go_to_the_application_beside_it(tmp_path: Path) -> None:
    write_application(tmp_path, OTHER_PATHS)
    with bellwire(*RUN, cwd=tmp_path) as process:
        port = process.port()
        assert request(port, "GET", "/") == (200, "hello")
        with connect(f"ws://127.0.0.1:{port}/ws", open_timeout=TIMEOUT, proxy=None) as client:
            assert client.recv(TIMEOUT) == "hello"
        with websocket(port) as client:
            assert client.recv(TIMEOUT).startswith('0{"sid"')  # type: ignore[arg-type]
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0


def test_a_handlers_failure_is_logged_with_its_traceback(tmp_path: Path) -> None:
    write_application(tmp_path, APPLICATION.replace("    return text", "    raise LookupError(text)"))
    with bellwire(*RUN, cwd=tmp_path) as process:
        port = process.port()
        with websocket(port) as client:
            client.recv(TIMEOUT)
            client.send("40")
            client.recv(TIMEOUT)
            client.send('421["echo","boom"]')
            assert '"internal"' in str(client.recv(TIMEOUT))
        process.signal(signal.SIGTERM)
        code, errors = process.end()
    assert code == 0
    assert " ERROR bellwire.server: " in errors
    assert errors.count("LookupError: boom") == 1
