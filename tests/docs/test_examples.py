"""The examples, run as their pages say."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import aiohttp
import pytest
import socketio

from tests.cli.process import bellwire
from tests.demo.chromium import Process
from tests.docs.pages import ROOT

EXAMPLES = ROOT / "examples"
SHOP = EXAMPLES / "fastapi_app"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("folder", ["minimal", "fastapi_app"])
def test_an_example_passes_mypy(folder: str) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install --group check")
    config = f"--config-file={ROOT / 'pyproject.toml'}"  # it knows what is not typed
    cache = f"--cache-dir={ROOT / '.mypy_cache' / folder}"
    files = sorted(path.name for path in (EXAMPLES / folder).glob("*.py"))
    command = [sys.executable, "-m", "mypy", config, cache, "--strict", *files]
    done = subprocess.run(command, cwd=EXAMPLES / folder, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_minimal() -> None:
    folder = EXAMPLES / "minimal"
    with bellwire("run", "server:server", "--port", "0", cwd=folder) as process:
        command = [sys.executable, "client.py", "Ada", f"http://127.0.0.1:{process.port()}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("Hello, Ada!\n", 0), done.stderr


@contextmanager
def front() -> Iterator[str]:
    with bellwire("run", "front:server", "--port", "0", cwd=SHOP) as process:
        yield f"http://127.0.0.1:{process.port()}"


@contextmanager
def mounted() -> Iterator[str]:
    options = ["--app-dir", str(SHOP), "--port", "0", "--timeout-graceful-shutdown", "1"]
    command = [sys.executable, "-m", "uvicorn", *options, "mounted:app"]
    with Process(command, r"http://127\.0\.0\.1:\d+") as process:
        yield process.said()[0]


async def ship_what_is_watched(url: str) -> None:
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(url, namespace="/orders")
        assert await client.call("order:watch", 7, timeout=10) is True
        async with aiohttp.ClientSession() as http, http.post(f"{url}/orders/7/ship") as response:
            assert await response.json() == {"shipped": 7}
        assert await client.receive(timeout=10) == ["order:shipped", 7]


@pytest.mark.bellwire(clock="real")
@pytest.mark.parametrize("served", [front, mounted])
async def test_fastapi_app(url: str) -> None:
    await ship_what_is_watched(url)


@pytest.fixture
def url(served: object) -> Iterator[str]:
    assert callable(served)
    with served() as address:
        yield address


@pytest.mark.bellwire(clock="real")
async def test_an_open_poll_does_not_hold_up_the_end_where_the_option_is_given() -> None:
    serving = ExitStack()  # it gives the process ten seconds to end; a poll is open for up to 25
    sent, trace = asyncio.Event(), aiohttp.TraceConfig()

    async def poll_is_sent(*_: object) -> None:
        sent.set()

    trace.on_request_headers_sent.append(poll_is_sent)
    url = await asyncio.to_thread(serving.enter_context, mounted()) + "/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession(trace_configs=[trace]) as http:
        async with http.get(url) as response:
            sid = json.loads((await response.text())[1:])["sid"]
        sent.clear()
        poll = asyncio.ensure_future(http.get(f"{url}&sid={sid}"))
        await asyncio.wait_for(sent.wait(), 10)
        await asyncio.to_thread(serving.close)
        with suppress(aiohttp.ClientError):
            (await poll).close()


def test_every_example_is_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({name}/)" in listed for name in folders)
    assert len(folders) == 2
