"""A folder of static files as an ASGI application.

``Pages(folder)`` reads the folder once and serves it from memory, for GET and HEAD. Browsers may keep
a file but ask every time (``Cache-Control: no-cache`` with an ``ETag``, RFC 9111 section 5.2.2.4 and
RFC 9110 section 8.8.3), so that a new release is seen at once. Every answer carries a content security
policy (W3C CSP Level 3) that admits only the folder's own scripts and styles and nothing inline.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The kinds of files that are served, by suffix (RFC 9239 for JavaScript); others stay private."""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may load: only its own files, no inline code, no frame around it."""

Headers = Iterable[tuple[bytes, bytes]]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
)


class Page:
    """One file: its bytes, its content type and its entity tag."""

    __slots__ = ("body", "content_type", "etag")

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self.content_type = content_type.encode()
        self.etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode()


class Pages:
    """The files below ``folder`` with a suffix of CONTENT_TYPES; ``index.html`` answers for its folder.

    An ASGI application for HTTP: 404 for other paths, 405 for other methods, 304 when the browser has
    the file. WebSocket connections are refused, and the lifespan protocol is answered.
    """

    def __init__(self, folder: Path) -> None:
        self._pages = dict(_read(folder))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "http":
            await self._answer(scope, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "lifespan":
            await _live(receive, send)

    async def _answer(self, scope: Message, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _reply(send, scope, HTTPStatus.METHOD_NOT_ALLOWED, headers=[(b"allow", b"GET, HEAD")])
        elif (page := self._pages.get(_path(scope))) is None:
            await _reply(send, scope, HTTPStatus.NOT_FOUND)
        else:
            caching = [(b"etag", page.etag), (b"cache-control", b"no-cache")]
            if _has(scope, page.etag):
                await _send(send, scope, HTTPStatus.NOT_MODIFIED, caching, b"")
            else:
                caching.append((b"content-type", page.content_type))
                await _send(send, scope, HTTPStatus.OK, [*caching, _length(page.body)], page.body)


def _read(folder: Path) -> Iterable[tuple[str, Page]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in CONTENT_TYPES:
            page = Page(path.read_bytes(), CONTENT_TYPES[path.suffix])
            name = "/" + path.relative_to(folder).as_posix()
            yield name, page
            if path.name == "index.html":
                yield name.removesuffix("index.html"), page


def _path(scope: Message) -> str:
    """The path below the place where the application is mounted (ASGI: ``path`` includes ``root_path``)."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _has(scope: Message, etag: bytes) -> bool:
    """Whether ``If-None-Match`` names the file as it is; the comparison is weak (RFC 9110 section 13.1.2)."""
    asked: Headers = scope["headers"]
    tags = [tag.strip() for name, value in asked if name == b"if-none-match" for tag in value.split(b",")]
    return b"*" in tags or etag in (tag.removeprefix(b"W/") for tag in tags)


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


async def _reply(
    send: Send, scope: Message, status: HTTPStatus, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer with the status in words."""
    body = f"{status.value} {status.phrase}\n".encode()
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await _send(send, scope, status, [*(headers or []), kind, _length(body)], body)


async def _send(
    send: Send, scope: Message, status: HTTPStatus, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    head = {"type": "http.response.start", "status": status.value, "headers": [*headers, *_ALWAYS]}
    await send(head)
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _live(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": message["type"] + ".complete"})
