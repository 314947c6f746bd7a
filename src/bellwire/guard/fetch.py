"""One document by HTTP, in bounds: for what a server reads from elsewhere, such as the keys of an issuer of tokens.

It is urllib's, in a thread of the caller's: a few requests an hour are no reason for another HTTP client, and the
proxies and certificates of the machine hold as they do for other programs. Redirections are not followed, for they
could lead to a host, or down to a scheme, that nobody has chosen.
"""

import ipaddress
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

from bellwire.core.errors import ConfigError

TIMEOUT: Final = 5.0
"""Seconds for the connection, for each read, and for the whole body."""

MAX_BYTES: Final = 256 * 1024
"""Bytes of a document. An issuer's set of keys has a few thousand."""

_CHUNK: Final = 16 * 1024

_HANDLERS: Final = (
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
)


class FetchError(Exception):
    """The document could not be read; the message says why."""


def check_url(url: str, where: str) -> None:
    """Raise ConfigError unless ``url`` is https, or http on this machine; ``where`` is what it was given to."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; write https://host/path") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{where}: a user and a password do not belong into this address")
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(f"{where}: this is no address; write https://host/path")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"{where}: http:// is for this machine only, anybody on the way could answer; write https://")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def fetch(url: str) -> bytes:
    """Return what stands at ``url``; it blocks for a few seconds at most. Raises `FetchError`."""
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    if url.startswith("https:"):  # no proxy is to answer for this machine
        opener.add_handler(urllib.request.ProxyHandler())
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "bellwire"})  # noqa: S310 - the scheme was checked
    deadline = time.monotonic() + TIMEOUT
    body = bytearray()
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            while chunk := response.read1(_CHUNK):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise FetchError(f"it has more than {MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise FetchError(f"it did not come within {TIMEOUT:g} seconds")
    except urllib.error.HTTPError as error:
        raise FetchError(f"the answer is {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"{type(error).__name__}: {error}") from None
    return bytes(body)
