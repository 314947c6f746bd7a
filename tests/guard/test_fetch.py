"""One document, from a real server on this machine, within bounds."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bellwire import ConfigError
from bellwire.guard.fetch import MAX_BYTES, FetchError, check_url, fetch

Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer one request with these bytes; return the address."""
    listeners: list[tuple[socket.socket, threading.Thread]] = []

    def listen(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                try:
                    connection.sendall(answer)
                except OSError:  # it had enough
                    return

        thread = threading.Thread(target=run)
        thread.start()
        listeners.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/keys"

    yield listen
    for listener, thread in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


def test_the_body_is_returned(serve: Serve) -> None:
    assert fetch(serve(_ok(b'{"keys": []}'))) == b'{"keys": []}'


def test_no_proxy_answers_for_this_machine(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", serve(_ok(b"the proxy")))
    assert fetch(serve(_ok(b"the issuer"))) == b"the issuer"


def test_the_body_is_bounded(serve: Serve) -> None:
    with pytest.raises(FetchError, match="more than 262144 bytes"):
        fetch(serve(_ok(b" " * (MAX_BYTES + 1))))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", "the answer is 302"),
        (b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n", "the answer is 503"),
        (b"no HTTP at all\r\n\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_what_is_no_document(serve: Serve, answer: bytes, told: str) -> None:
    with pytest.raises(FetchError, match=told):
        fetch(serve(answer))


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(FetchError, match="refused"):
        fetch(f"http://127.0.0.1:{port}/keys")


@pytest.mark.parametrize(
    "url", ["https://idp.example/keys", "http://localhost/", "http://127.0.0.1:8080/", "http://[::1]:8080/keys"]
)
def test_addresses_that_may_be_fetched(url: str) -> None:
    check_url(url, "here")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1.example/",
        "file:///etc/passwd",
        "https:///keys",
        "https://host:port/",
        "https://[::1/",
        "https://a:b@host/",
        "gopher://127.0.0.1/",
    ],
)
def test_addresses_that_may_not(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^here: "):
        check_url(url, "here")
