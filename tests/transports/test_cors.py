"""Long-polling from pages of another origin: what a browser is told, and what a real one makes of it."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import bellwire.demo
from tests.cli.process import bellwire as run_bellwire
from tests.cli.process import write_application
from tests.demo.chromium import BINARY, Browser, Tab, launch
from tests.transports.wire import Answer, Client, echo_server, on_both

PAGE = {"origin": "https://app.example"}
EVIL = {"origin": "https://evil.example"}
ASKING = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-token"}
ALLOWED = {"allowed_origins": ("https://app.example",)}


def told(answer: Answer) -> dict[str, str]:
    """What an answer says of CORS."""
    return {
        name.lower().removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.lower().startswith("access-control-")
    }


CREDENTIALS = {"allow-origin": PAGE["origin"], "allow-credentials": "true"}


async def ask(client: Client, headers: dict[str, str]) -> Answer:
    return await client.request("OPTIONS", headers=headers, EIO="4", transport="polling")


@on_both
async def test_a_page_that_may_connect_may_read_every_answer(native: bool) -> None:
    async with echo_server(native=native, **ALLOWED) as (_, client):
        for status, query in ((200, {"EIO": "4"}), (400, {"EIO": "3"}), (400, {"EIO": "4", "sid": "nobody"})):
            answer = await client.request(headers=PAGE, transport="polling", **query)
            assert answer.status == status
            assert told(answer) == CREDENTIALS
            assert answer.headers["vary"] == "Origin"


@on_both
async def test_before_it_asks_it_is_told_what_it_may(native: bool) -> None:
    async with echo_server(native=native, **ALLOWED) as (server, client):
        answer = await ask(client, {**PAGE, **ASKING})
        assert (answer.status, answer.text) == (204, "")
        assert told(answer) == CREDENTIALS | {
            "allow-methods": "GET, POST",
            "allow-headers": "content-type,x-token",
            "max-age": "7200",
        }
        assert not server.engine.sessions


@on_both
async def test_no_other_page_is_told_anything(native: bool) -> None:
    async with echo_server(native=native, **ALLOWED) as (_, client):
        for answer in (
            await ask(client, {**EVIL, **ASKING}),
            await ask(client, {"origin": "null", **ASKING}),
            await client.request(headers=EVIL, EIO="4", transport="polling"),
        ):
            assert answer.status == 403
            assert told(answer) == {}
        for answer in (await ask(client, ASKING), await ask(client, {}), await ask(client, PAGE)):
            assert answer.status == 400  # as Node's server has it for a method that opens no session
        assert told(await client.request(EIO="4", transport="polling")) == {}


@on_both
async def test_a_page_that_only_the_star_admits_is_not_told_to_send_cookies(native: bool) -> None:
    async with echo_server(native=native, allowed_origins=("*", "https://app.example")) as (_, client):
        assert told(await client.request(headers=EVIL, EIO="4", transport="polling")) == {"allow-origin": "*"}
        assert "allow-credentials" not in told(await ask(client, {**EVIL, **ASKING}))
        assert told(await client.request(headers=PAGE, EIO="4", transport="polling")) == CREDENTIALS


@on_both
@pytest.mark.parametrize("names", ["x-token: 1", "x" * 2000, "x\ty", "<b>"])
async def test_what_are_no_names_of_headers_is_not_given_back(native: bool, names: str) -> None:
    async with echo_server(native=native, **ALLOWED) as (_, client):
        answer = await ask(client, {**PAGE, **ASKING, "access-control-request-headers": names})
        assert answer.status == 204
        assert "allow-headers" not in told(answer)


# --- a real browser

STATIC = Path(bellwire.demo.__file__).parent / "static"

CONNECT = """
new Promise((resolve) => {
  const socket = io("%(url)s", { transports: %(transports)s, withCredentials: true, forceNew: true,
    reconnection: false, extraHeaders: %(headers)s });
  socket.on("connect", () => socket.timeout(5000).emit("echo", "hello", (error, reply) => {
    const told = [String(error), reply, socket.io.engine.transport.name];
    socket.disconnect();
    resolve(told);
  }));
  socket.on("connect_error", (error) => resolve("refused"));
})
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of an empty page with the stock client, on a server of its own."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text('<!doctype html><title>x</title><script src="client.js"></script>')
    (folder / "client.js").write_bytes((STATIC / "vendor" / "socket.io.min.js").read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with launch(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def open_page(browser: Browser, url: str) -> Tab:
    tab = browser.tab(url, browser.profile())
    tab.until("typeof io === 'function'")
    return tab


@pytest.mark.chromium
@pytest.mark.skipif(BINARY is None, reason="Chromium is not installed")
def test_the_stock_client_connects_from_an_allowed_origin_and_from_no_other(
    browser: Browser, page: str, tmp_path: Path
) -> None:
    write_application(tmp_path)
    ways = [
        ('["polling"]', "{}", "polling"),
        ('["polling"]', '{ "x-token": "1" }', "polling"),  # for this the browser asks first
        ('["websocket"]', "{}", "websocket"),
    ]
    with run_bellwire(
        "run", "app:server", "--port", "0", "--allowed-origins", page, "--cookie", "io", cwd=tmp_path
    ) as process:
        url = f"http://127.0.0.1:{process.port()}"
        allowed, other = open_page(browser, page), open_page(browser, page.replace("127.0.0.1", "localhost"))
        for transports, headers, name in ways:
            connect = CONNECT % {"url": url, "transports": transports, "headers": headers}
            assert allowed.evaluate(connect) == ["null", "hello", name]
            assert other.evaluate(connect) == "refused"
        allowed.close()
        other.close()
