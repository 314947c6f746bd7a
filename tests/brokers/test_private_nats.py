"""The private nats-server: real processes that are killed, directories that are fought over."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bellwire.brokers import private_nats
from bellwire.brokers.nats import NatsBroker
from bellwire.brokers.private_nats import PrivateNats
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from bellwire.delivery.answer import Page
from tests.brokers.contract import draft
from tests.brokers.nats_server import again

pytestmark = [
    pytest.mark.bellwire(clock="real"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a private nats-server needs Linux"),
]

PARENT = """
import asyncio, sys
from pathlib import Path
from bellwire.brokers.nats import NatsBroker
from bellwire.brokers.private_nats import PrivateNats
from bellwire.delivery.entry import Draft

async def main():
    nats = PrivateNats(Path(sys.argv[1]))
    await nats.start()
    broker = NatsBroker(lambda: nats.url)
    await broker.start()
    print(nats.pid, flush=True)
    n = 0
    while True:
        await broker.append("room", Draft(f"{sys.argv[2]}.{n}", n, b"x"))
        print(f"{sys.argv[2]}.{n}", flush=True)
        n += 1

asyncio.run(main())
"""


@asynccontextmanager
async def running(data: Path | None = None, counters: Counters | None = None) -> AsyncIterator[PrivateNats]:
    nats = PrivateNats(data, counters=counters)
    await nats.start()
    try:
        yield nats
    finally:
        await nats.close()


@asynccontextmanager
async def broker_on(nats: PrivateNats) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(lambda: nats.url)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def mids_in(broker: NatsBroker, stream: str) -> list[str]:
    at = (await broker.top(stream))._replace(seq=0, tag=0)
    mids: list[str] = []
    more = True
    while more:
        page = await broker.read(stream, at, confirmed=True)
        assert isinstance(page, Page)
        mids += [entry.mid for entry in page.entries]
        at, more = at._replace(seq=page.entries[-1].seq, tag=page.entries[-1].tag), page.more
    return mids


async def read(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)


async def until_gone(pid: int) -> None:
    """Wait until no process has this id, or only one that nobody has buried yet."""
    async with asyncio.timeout(10):
        while await asyncio.to_thread(is_running, pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def status_of(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_it_answers_on_the_loopback_only_to_those_with_the_token(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as nats:
        async with broker_on(nats) as broker:
            assert not (await broker.append("room", draft("m"))).duplicate
        for url in (nats.url.replace(nats._token, "x" * 64), nats.url.replace(nats._token + "@", "")):
            with pytest.raises(BrokerUnavailable):
                await NatsBroker(url).start()
        config = json.loads(await read(tmp_path / "data" / "nats-server.conf"))
        assert config["host"] == "127.0.0.1"
        assert config["jetstream"]["sync_interval"] == "always"
        assert config["max_payload"] == 8 * 1024 * 1024
        port, base = nats._monitoring
        assert [await status_of(port, path) for path in ("/healthz", "/varz", "/")] == [404, 404, 404]
        assert await status_of(port, f"{base}/healthz") == 200
        pid = nats.pid
        assert pid is not None
    assert not await asyncio.to_thread(is_running, pid)
    assert b"Server Exiting" in await read(tmp_path / "data" / "nats-server.log")


async def test_the_token_is_for_its_owner_only_and_another_one_each_time(tmp_path: Path) -> None:
    async with running(tmp_path) as nats:
        first = nats._token
        status = await asyncio.to_thread(os.stat, tmp_path / "nats-server.conf")
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert first.encode() not in await read(Path(f"/proc/{nats.pid}/cmdline"))
    async with running(tmp_path) as nats:
        assert nats._token != first
    assert len(first) == 64


async def test_what_was_acknowledged_is_there_after_a_stop_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as nats, broker_on(nats) as broker:
        appended = await broker.append("room", draft("m"))
        revision = await broker.put("key", b"value")
    async with running(tmp_path) as nats, broker_on(nats) as broker:
        assert await broker.append("room", draft("m")) == appended.again
        assert await broker.get("key") == (b"value", revision)


async def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            await PrivateNats(tmp_path).start()
    async with running(tmp_path):
        pass


async def test_a_directory_that_cannot_be_used_is_told_and_nothing_is_left_behind(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "file").write_text, "")
    for data in (tmp_path / "file", tmp_path / "file" / "data", Path("/proc/bellwire")):
        with pytest.raises(ConfigError, match=f"the data directory {data} cannot be used: [A-Z][a-z ]+ \\(/"):
            await PrivateNats(data).start()
    await asyncio.to_thread((tmp_path / "nats-server.conf").mkdir)  # it is locked before this is found out
    with pytest.raises(ConfigError, match=r"nats-server\.conf"):
        await PrivateNats(tmp_path).start()
    await asyncio.to_thread((tmp_path / "nats-server.conf").rmdir)
    async with running(tmp_path):
        pass


async def test_a_server_that_is_killed_is_started_again_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    counters = Counters()
    async with running(tmp_path, counters) as nats, broker_on(nats) as broker:
        made: list[str] = []

        async def publish() -> None:
            for n in range(300):
                while True:
                    try:
                        await broker.append("room", draft(f"m{n}"))
                    except (BrokerUnavailable, OutcomeUnknown):
                        await asyncio.sleep(0.01)
                    else:
                        break
                made.append(f"m{n}")

        publisher = asyncio.create_task(publish())
        for kill_at in (50, 150):
            pid, restarts = nats.pid, nats.restarts
            assert pid is not None
            async with asyncio.timeout(20):
                while len(made) < kill_at:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                os.kill(pid, signal.SIGKILL)
                while nats.restarts == restarts:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await publisher
        assert await mids_in(broker, "room") == made == [f"m{n}" for n in range(300)]
        assert counters.get("private_nats_restarts_total") == nats.restarts == 2


async def test_a_parent_that_is_killed_leaves_no_orphan_and_no_broken_directory(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for life in ("first", "second"):
        parent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PARENT, str(tmp_path), life), stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        async with asyncio.timeout(20):
            pid = int(await parent.stdout.readline())
            while len(acknowledged) < (20 if life == "first" else 40):
                acknowledged.append((await parent.stdout.readline()).decode().strip())
            parent.kill()
            acknowledged += (await parent.stdout.read()).decode().split()
            await parent.wait()
        if life == "second":
            await until_gone(pid)
    async with running(tmp_path) as nats, broker_on(nats) as broker:
        mids = await mids_in(broker, "room")
    # One more than was acknowledged may be there of each life: the one whose answer nobody lived to read.
    assert [mid for mid in mids if mid in set(acknowledged)] == acknowledged
    assert len(mids) <= len(acknowledged) + 2


SICK = """#!{python}
import http.server, json, os, pathlib, signal, socketserver, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_DFL)
config = json.loads(pathlib.Path(sys.argv[2]).read_text())
folder = pathlib.Path(config["ports_file_dir"])
info = b'INFO {{"version": "2.15.0", "jetstream": true}}\\r\\n'

class Greets(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(info)

class Monitoring(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == config["http_base_path"] + "/healthz"
        sick = folder / "sick"
        self.send_response(503 if sick.exists() else 200)
        self.end_headers()
        if sick.exists():
            self.wfile.write(b'{{"error": "JetStream stream write error: no space left on device"}}')
            sick.unlink()

socketserver.ThreadingTCPServer.allow_reuse_address = True
greets = socketserver.ThreadingTCPServer(("127.0.0.1", config["port"]), Greets)
monitoring = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Monitoring)
threading.Thread(target=greets.serve_forever, daemon=True).start()
ports = {{
    "nats": [f"nats://127.0.0.1:{{greets.server_address[1]}}"],
    "monitoring": [f"http://127.0.0.1:{{monitoring.server_address[1]}}"],
}}
(folder / f"nats-server_{{os.getpid()}}.ports").write_text(json.dumps(ports))
monitoring.serve_forever()
"""


async def test_a_server_that_can_write_no_more_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(private_nats, "CHECK_EVERY", 0.05)
    program = tmp_path / "program"
    await asyncio.to_thread(program.write_text, SICK.format(python=sys.executable))
    program.chmod(0o755)
    counters = Counters()
    nats = PrivateNats(tmp_path / "data", program=program, counters=counters)
    await nats.start()
    try:
        first = nats.pid
        await asyncio.to_thread((tmp_path / "data" / "sick").touch)
        async with asyncio.timeout(20):
            while not nats.restarts:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert nats.pid != first
        assert first is not None
        assert not await asyncio.to_thread(is_running, first)
        assert counters.get("private_nats_restarts_total") == 1
        (record,) = caplog.records
        assert record.getMessage() == (
            "the private nats-server can write no more (JetStream stream write error: no space left on device): it is "
            "started again"
        )
    finally:
        await nats.close()


async def test_its_address_stays_and_nobody_else_is_given_its_port_while_it_is_away(tmp_path: Path) -> None:
    async with running(tmp_path) as nats, broker_on(nats) as broker:
        url, pid = nats.url, nats.pid
        assert pid is not None
        port = int(url.rpartition(":")[2])
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        async with asyncio.timeout(20):
            while not nats.restarts:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert nats.url == url
        assert await again(lambda: broker.get("key")) is None


async def test_a_program_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "jetstream").write_text, "in the way of the directory")
    with pytest.raises(BrokerUnavailable, match="ended with 1"):
        await PrivateNats(tmp_path).start()
    await asyncio.to_thread((tmp_path / "jetstream").unlink)
    async with running(tmp_path):
        pass


async def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_nats, "READY_WITHIN", 0.3)
    program = tmp_path / "program"
    await asyncio.to_thread(program.write_text, "#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    nats = PrivateNats(tmp_path / "data", program=program)
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        await nats.start()
    with pytest.raises(BrokerUnavailable, match="does not run"):
        await NatsBroker(lambda: nats.url).start()


WORKER = """
import asyncio, os, sys
from bellwire.brokers.urls import make_broker
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.delivery.entry import Draft
from bellwire.delivery.log import Limits

async def main():
    broker = make_broker(Config.load().broker, Limits(), Counters())
    await broker.start()
    await broker.append("room", Draft(sys.argv[1], 1, b"x" * 1_000_000))
    print("appended", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await broker.close()

asyncio.run(main())
"""


async def test_without_a_directory_it_serves_the_processes_that_are_given_its_address(temporary: Path) -> None:
    async with running() as nats:
        await serve_three_workers(nats, temporary)
    assert not await asyncio.to_thread(lambda: [*temporary.iterdir()])


async def serve_three_workers(nats: PrivateNats, temporary: Path) -> None:
    (folder,) = await asyncio.to_thread(lambda: [*temporary.iterdir()])
    status = await asyncio.to_thread(folder.stat)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert "sync_interval" not in json.loads(await read(folder / "nats-server.conf"))["jetstream"]
    workers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER, f"m{n}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"BELLWIRE_BROKER": nats.url},
        )
        for n in range(3)
    ]
    async with broker_on(nats) as broker:
        async with asyncio.timeout(30):
            for worker in workers:
                assert worker.stdout is not None
                assert await worker.stdout.readline() == b"appended\n"
        for process in (nats.pid, *(worker.pid for worker in workers)):
            assert nats._token.encode() not in await read(Path(f"/proc/{process}/cmdline"))
        assert nats._token.encode() not in await read(folder / "nats-server.log")
        pid = nats.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)  # what was acknowledged outlives it, though not this process
        mids = await again(lambda: mids_in(broker, "room"))
        assert sorted(mids) == ["m0", "m1", "m2"]
    for worker in workers:
        assert await worker.communicate(b"") == (b"", b"")
        assert worker.returncode == 0


async def test_a_temporary_directory_of_a_process_that_was_killed_is_removed_by_the_next(temporary: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT.replace("Path(sys.argv[1])", ""), "no directory", "life"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        pid = int(await parent.stdout.readline())
        (abandoned,) = await asyncio.to_thread(lambda: [*temporary.iterdir()])
        async with running():
            assert await asyncio.to_thread(abandoned.exists)  # it is in use
        parent.kill()
        await parent.wait()
        await until_gone(pid)
        while await asyncio.to_thread(abandoned.exists):
            async with running():  # threads of the dead server may hold the lock a little longer
                pass
