"""What ``bellwire doctor --url`` finds out as a client from outside: whether proxies pass on what has to pass."""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from bellwire.cli.checks import Finding, lasting
from bellwire.guard.proxies import is_local

TIMEOUT: Final = 10.0
"""Seconds for an answer that nothing has to be waited for."""

PROMPT: Final = 2.0
"""Seconds; an answer of long-polling that takes longer was kept back on the way."""

LATE: Final = 5.0
"""Seconds that a ping may be late."""

_REMEDIES: Final = {
    "forbidden_origin": "behind_proxy has to name the proxy, which has to pass Host on and to set X-Forwarded-Proto",
    "tls_required": "the proxy has to set X-Forwarded-Proto: https",
    "too_many_half_open": "come again: too many are connecting, or raise half_open",
    "too_many_connects": "come again: this address has opened too many sessions",
}


def _why(packet: str) -> str:
    """Return what the server said in its refusal (Socket.IO protocol v5, CONNECT_ERROR), "" if nobody can tell."""
    try:
        said = json.loads(packet[packet.index("{") :])["message"]
    except (ValueError, KeyError, RecursionError):
        return ""
    return f" ({str(said)[:200]!r})"


class Refused(Exception):  # noqa: N818 - no error of this program
    """The server, or who stands before it, said no."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(status, body)
        self.code = next((code for code in _REMEDIES if code in body), "")
        self.status = status

    def finding(self, check: str) -> Finding:
        """What to make of it."""
        message = f"status {self.status}{f', {self.code}' if self.code else ''}"
        remedy = _REMEDIES.get(self.code, "see that the path leads to the server, and look at the proxy's log")
        return Finding(check, "fail", message, remedy)


class Visit:
    """Looks at the server at ``url``, whose Socket.IO is at ``path``; ``packet`` is the CONNECT that joins.

    ``context`` says which certificates are trusted, those of the system if None.
    """

    def __init__(
        self, url: str, path: str, packet: str, context: ssl.SSLContext | None = None, *, prompt: float = PROMPT
    ) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._netloc = parts.netloc
        self._path = path
        self._packet = packet
        self._prompt = prompt
        self._context = context or ssl.create_default_context()

    def findings(self) -> Iterator[Finding]:
        """Look at one thing after the other, until one fails on which the others depend."""
        try:
            yield from self._tls()
            yield from self._origins()
            yield self._polling()
            yield from self._websocket()
        except Refused as error:
            yield error.finding("requests")
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or str(error)
            yield Finding(
                "TLS", "fail", reason, "give the proxy or the server a certificate for this name, with its chain"
            )
        except (OSError, http.client.HTTPException) as error:
            yield Finding("requests", "fail", str(error) or type(error).__name__, "see that something listens there")

    def _tls(self) -> Iterator[Finding]:
        if not self._secure:
            if self._host == "localhost" or is_local((self._host, 0)):
                yield Finding("TLS", "ok", f"{self._netloc} is this machine and needs none")
            else:
                yield Finding("TLS", "fail", f"{self._netloc} has none", "serve https, and send http there")
            return
        with (
            socket.create_connection((self._host, self._port), TIMEOUT) as plain,
            self._context.wrap_socket(plain, server_hostname=self._host) as secure,
        ):
            shown = secure.getpeercert()
        assert shown is not None  # noqa: S101 - the handshake is over
        yield lasting("TLS", f"the certificate of {self._host}", ssl.cert_time_to_seconds(str(shown["notAfter"])))

    # --- long-polling

    def _origins(self) -> Iterator[Finding]:
        self._open(self._origin)
        yield Finding("requests", "ok", "a page of its own origin may connect")
        try:
            self._open("https://nobody.invalid")
        except Refused:
            yield Finding("origins", "ok", "a page of another origin may not")
        else:
            yield Finding("origins", "warn", "any page may connect", "name the pages in allowed_origins")

    def _polling(self) -> Finding:
        sid = json.loads(self._open(self._origin)[1:])["sid"]
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:  # the answer comes while the request for it waits
            answer = pool.submit(self._request, "GET", f"&sid={sid}")
            self._request("POST", f"&sid={sid}", body=self._packet)
            answer.result()
        took = time.monotonic() - began
        self._request("POST", f"&sid={sid}", body="1")
        if took > self._prompt:
            remedy = "switch its buffering off: proxy_buffering off, proxy_request_buffering off"
            return Finding("long-polling", "warn", f"an answer took {took:.1f} s: it is kept back on the way", remedy)
        return Finding("long-polling", "ok", f"answered in {took * 1000:.0f} ms")

    @property
    def _origin(self) -> str:
        return f"{'https' if self._secure else 'http'}://{self._netloc}"

    def _open(self, origin: str) -> str:
        return self._request("GET", "", origin=origin)

    def _request(self, method: str, query: str, *, body: str | None = None, origin: str | None = None) -> str:
        """The body of an answer. Raises `Refused`."""
        connection = (
            http.client.HTTPSConnection(self._host, self._port, timeout=2 * TIMEOUT, context=self._context)
            if self._secure
            else http.client.HTTPConnection(self._host, self._port, timeout=2 * TIMEOUT)
        )
        headers = {"origin": origin or self._origin, "content-type": "text/plain;charset=UTF-8"}
        with closing(connection):
            connection.request(method, f"{self._path}?EIO=4&transport=polling{query}", body, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
            if response.status != 200:
                raise Refused(response.status, text)
        return text

    # --- WebSocket

    def _websocket(self) -> Iterator[Finding]:
        url = f"{'wss' if self._secure else 'ws'}://{self._netloc}{self._path}?EIO=4&transport=websocket"
        try:
            with connect(
                url,
                origin=Origin(self._origin),
                ssl=self._context if self._secure else None,
                open_timeout=TIMEOUT,
                proxy=None,
                ping_interval=None,
            ) as client:
                yield Finding("WebSocket", "ok", "it opens")
                yield self._silence(client)
        except (InvalidHandshake, InvalidMessage, TimeoutError) as error:
            remedy = "the proxy has to pass Upgrade and Connection on, over HTTP/1.1"
            yield Finding("WebSocket", "fail", str(error) or "no answer", remedy)

    def _silence(self, client: ClientConnection) -> Finding:
        """Wait in silence, as long as the server does, for its first ping."""
        interval = json.loads(str(client.recv(TIMEOUT))[1:])["pingInterval"] / 1000
        client.send(self._packet)
        began = time.monotonic()
        try:
            while not (packet := str(client.recv(interval + LATE))).startswith("2"):
                if packet.startswith("44"):
                    message = f"nobody knows: the server did not let this client join{_why(packet)}"
                    return Finding("silence", "warn", message, "give --namespace and --auth")
        except (ConnectionClosed, TimeoutError):
            took = time.monotonic() - began
            remedy = f"the proxy has to keep what is silent for {2 * interval + LATE:g} s: proxy_read_timeout, tunnel"
            return Finding("silence", "fail", f"the connection was cut after {took:.1f} s", remedy)
        took = time.monotonic() - began  # ping_interval, of which clients are not told
        return Finding("silence", "ok", f"a WebSocket outlived {took:.1f} s, until the first ping")
