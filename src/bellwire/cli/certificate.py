"""The certificate that `bellwire run` serves TLS with, and how it is replaced while connections are open.

Listeners are given one context for good. At each handshake it hands over to the newest one, in the callback for the
server's name (RFC 6066 §3), which OpenSSL calls where none was sent as well. So a new certificate holds for the
connections that come from then on, and those that are there keep theirs.
"""

import ssl
from pathlib import Path
from typing import Final

import click

from bellwire.core.config import Config

_REASONS: Final = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "NO_CERTIFICATE_ASSIGNED": "the key is not that of the certificate",  # it is of another kind: EC and RSA
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed in a way that is not safe any more",
}


class CertificateError(click.ClickException):
    """The certificate cannot be used; the message names the file, what is wrong, and the remedy."""

    exit_code = 2


class Certificate:
    """A chain of certificates and its key, from files in PEM; ``key`` is None where it stands in the same file.

    Raises:
        CertificateError: one of them cannot be read, is no such thing, or belongs to another one.

    """

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        self._chain = chain
        self._key = key
        self._newest = load(chain, key)
        self.context = load(chain, key)
        """What listeners are given."""
        self.context.sni_callback = self._choose

    def reload(self) -> None:
        """Read the files again. Raises as the constructor does, and all stays as it was."""
        self._newest = load(self._chain, self._key)

    def _choose(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        handshake.context = self._newest


def certificate_of(settings: Config) -> Certificate | None:
    """Return the certificate that the settings name, None if they name none. Raises `CertificateError`."""
    if not settings.tls_cert:
        return None
    return Certificate(Path(settings.tls_cert), Path(settings.tls_key) if settings.tls_key else None)


def load(chain: Path, key: Path | None) -> ssl.SSLContext:
    """Make a server's context: TLS 1.2 or newer, HTTP/1.1. Raises `CertificateError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for file in (chain, *((key,) if key is not None else ())):
        try:
            file.read_bytes()
        except OSError as error:
            raise CertificateError(f"{file} cannot be read: {error.strerror}") from None
    names = f"tls_cert = {chain}" if key is None else f"tls_cert = {chain} and tls_key = {key}"
    try:
        context.load_cert_chain(chain, key, password=lambda: _no_password(key or chain))
    except ssl.SSLError as error:
        raise CertificateError(f"{names} cannot be used: {_reason(error)}") from None
    return context


def _reason(error: ssl.SSLError) -> str:
    return _REASONS.get(error.reason) or f"no certificate or no key in PEM is there ({error.reason or 'unreadable'})"


def _no_password(file: Path) -> str:
    raise CertificateError(f"the key in {file} is encrypted, and nobody is there to type a password: decrypt it")
