import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bellwire.demo
from bellwire.demo.pages import CONTENT_SECURITY_POLICY, Pages

STATIC = Path(bellwire.demo.__file__).parent / "static"
PAGES = Pages(STATIC)
FILES = {p.relative_to(STATIC).as_posix(): p.read_bytes() for p in STATIC.rglob("*") if p.is_file()}


class Answer:
    def __init__(self, sent: list[Any]) -> None:
        start, body = sent
        self.status: int = start["status"]
        self.headers: dict[bytes, bytes] = dict(start["headers"])
        self.body: bytes = body["body"]
        assert len(self.headers) == len(start["headers"]), "a header stands there twice"


async def ask(path: str, method: str = "GET", *, root: str = "", tag: bytes | None = None) -> Answer:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a page needs no request body")

    headers = [(b"if-none-match", tag)] if tag is not None else []
    scope = {"type": "http", "method": method, "path": path, "root_path": root, "headers": headers}
    await PAGES(scope, receive, send)
    return Answer(sent)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", b"text/html; charset=utf-8"),
        ("/index.html", b"text/html; charset=utf-8"),
        ("/chat.js", b"text/javascript; charset=utf-8"),
        ("/view.js", b"text/javascript; charset=utf-8"),
        ("/chat.css", b"text/css; charset=utf-8"),
        ("/favicon.svg", b"image/svg+xml"),
        ("/vendor/socket.io.min.js", b"text/javascript; charset=utf-8"),
    ],
)
async def test_a_file_is_served_with_its_type(path: str, content_type: bytes) -> None:
    answer = await ask(path)
    name = "index.html" if path == "/" else path[1:]
    assert answer.status == 200
    assert answer.body == FILES[name]
    assert answer.headers[b"content-type"] == content_type
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    assert answer.headers[b"cache-control"] == b"no-cache"


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    head, get = await ask("/chat.js", "HEAD"), await ask("/chat.js")
    assert head.status == 200
    assert head.headers == get.headers
    assert head.body == b""


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/vendor", "/vendor/", "/vendor/README.md", "/../pages.py", "/..%2fpages.py", "//"],
)
async def test_everything_else_is_not_found(path: str) -> None:
    answer = await ask(path)
    assert (answer.status, answer.body) == (404, b"404 Not Found\n")
    assert (await ask(path, "HEAD")).body == b""


async def test_paths_are_relative_to_the_mount_point() -> None:
    assert (await ask("/demo/chat.js", root="/demo")).status == 200
    assert (await ask("/demo", root="/demo")).body == FILES["index.html"]
    assert (await ask("/demonstration", root="/demo")).status == 404


async def test_other_methods_are_not_allowed() -> None:
    answer = await ask("/", "POST")
    assert (answer.status, answer.headers[b"allow"]) == (405, b"GET, HEAD")


async def test_a_browser_that_has_the_file_is_told_so() -> None:
    tag = (await ask("/chat.js")).headers[b"etag"]
    for condition in (tag, b"W/" + tag, b'"other", ' + tag, b"*"):
        answer = await ask("/chat.js", tag=condition)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers[b"etag"] == tag
        assert b"content-length" not in answer.headers
    assert (await ask("/chat.js", tag=b'"other"')).status == 200
    assert (await ask("/chat.css", tag=tag)).status == 200


@pytest.mark.parametrize("path", ["/", "/chat.js", "/nothing"])
async def test_every_answer_forbids_what_the_page_does_not_need(path: str) -> None:
    answer = await ask(path)
    assert answer.headers[b"x-content-type-options"] == b"nosniff"
    assert answer.headers[b"content-security-policy"] == CONTENT_SECURITY_POLICY.encode()
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY


class Inspector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        for name, value in attrs:
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
            if name == "src" or (tag == "link" and name == "href"):
                self.loaded.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(self._open)


async def test_the_page_keeps_to_its_policy() -> None:
    inspector = Inspector()
    inspector.feed(FILES["index.html"].decode())
    assert inspector.inline == []
    assert len(inspector.loaded) >= 4
    for path in inspector.loaded:
        assert (await ask(f"/{path}")).status == 200, path


@pytest.mark.parametrize("name", ["chat.js", "view.js"])
def test_what_people_write_is_never_read_as_html(name: str) -> None:
    source = FILES[name].decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", source)


def test_every_id_that_the_script_asks_for_is_on_the_page() -> None:
    page = FILES["index.html"].decode()
    listing = re.search(r"const ids = \[(.*?)\];", FILES["chat.js"].decode(), re.DOTALL)
    assert listing is not None
    wanted = set(re.findall(r'"([\w-]+)"', listing[1]))
    assert wanted
    assert wanted <= set(re.findall(r'\bid="([\w-]+)"', page))


def test_the_bundled_client_is_the_release_that_its_readme_names() -> None:
    readme, client = FILES["vendor/README.md"].decode(), FILES["vendor/socket.io.min.js"]
    assert hashlib.sha256(client).hexdigest() in readme
    version = re.search(rb"Socket\.IO v([\d.]+)", client)
    assert version is not None
    assert f"socket.io-client {version[1].decode()}**" in readme
    assert "MIT License" in FILES["vendor/LICENSE"].decode()


async def test_a_websocket_is_turned_away() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await PAGES({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_the_lifespan_is_answered() -> None:
    sent: list[Any] = []
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": next(incoming)}

    await PAGES({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
