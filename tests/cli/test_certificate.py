"""TLS in the server's own process: what is served, what is refused, and how a certificate is replaced."""

import contextlib
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from bellwire.cli.certificate import Certificate, CertificateError, load
from tests.cli.process import TIMEOUT, Process, bellwire, write_application

AUTHORITY = trustme.CA()


class Files(NamedTuple):
    """A certificate and its key on disk."""

    chain: Path
    key: Path

    def issue(self) -> "Files":
        """Put a new one there."""
        leaf = AUTHORITY.issue_cert("localhost", "127.0.0.1")
        self.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(self.key))
        return self

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.chain), "--tls-key", str(self.key))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "chain.pem", tmp_path / "key.pem").issue()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """Let two sides meet in memory; the client's, when they have."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (theirs, ours):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return theirs


def serial(server: ssl.SSLContext, name: str | None = "localhost") -> object:
    """The number of the certificate that a client is shown."""
    client = trusting()
    client.check_hostname = name is not None
    found = shake_hands(server, client, name).getpeercert()
    assert found is not None
    return found["serialNumber"]


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_new_certificate_is_shown_after_it_was_read(files: Files, name: str | None) -> None:
    certificate = Certificate(*files)
    first = serial(certificate.context, name)
    files.issue()
    assert serial(certificate.context, name) == first
    certificate.reload()
    second = serial(certificate.context, name)
    assert second != first
    files.key.unlink()
    with pytest.raises(CertificateError, match="cannot be read"):
        certificate.reload()
    assert serial(certificate.context, name) == second


def test_the_key_may_stand_in_the_same_file(files: Files) -> None:
    files.chain.write_bytes(files.key.read_bytes() + files.chain.read_bytes())
    assert serial(Certificate(files.chain).context)


def test_what_is_older_than_tls_1_2_is_refused(files: Files) -> None:
    context = load(*files)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = trusting()
        client.minimum_version = client.maximum_version = version
        assert shake_hands(context, client, "localhost").version() == version.name.replace("v1_", "v1.")


def encrypted(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    files.key.write_bytes(pem)


def of_another_kind(files: Files) -> None:
    kinds = [trustme.KeyType.RSA, trustme.KeyType.ECDSA]
    chain, key = (trustme.CA().issue_cert("localhost", key_type=kind) for kind in kinds)
    chain.cert_chain_pems[0].write_to_path(files.chain)
    key.private_key_pem.write_to_path(files.key)


WRONG = [
    (lambda files: files.chain.unlink(), r"chain\.pem cannot be read: No such file"),
    (lambda files: files.key.unlink(), r"key\.pem cannot be read: No such file"),
    (lambda files: files.chain.write_text("nothing"), r"tls_cert = .*no certificate or no key in PEM"),
    (lambda files: files.key.write_text("nothing"), r"tls_key = .*no certificate or no key in PEM"),
    (lambda files: files.chain.write_bytes(files.key.read_bytes()), r"no certificate or no key in PEM"),
    (lambda files: Files(files.chain, files.chain.with_name("x")).issue(), r"the key is not that of the certificate"),
    (of_another_kind, r"the key is not that of the certificate"),
    (encrypted, r"key\.pem is encrypted.*decrypt it"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_what_cannot_be_used_is_told(files: Files, spoil: object, message: str) -> None:
    assert callable(spoil)
    spoil(files)
    with pytest.raises(CertificateError, match=message) as raised:
        Certificate(*files)
    assert raised.value.exit_code == 2


# --- in a process


@pytest.fixture
def application(tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


def serial_of(port: int) -> object:
    """The number of the certificate that a client of this port is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain,
        trusting().wrap_socket(plain, server_hostname="localhost") as client,
    ):
        found = client.getpeercert()
        assert found is not None
        return found["serialNumber"]


@contextlib.contextmanager
def joined(port: int) -> Iterator[ClientConnection]:
    """A page's WebSocket over TLS that has joined."""
    with connect(
        f"wss://localhost:{port}/socket.io/?EIO=4&transport=websocket",
        ssl=trusting(),
        open_timeout=TIMEOUT,
        proxy=None,
        origin=Origin(f"https://localhost:{port}"),
    ) as client:
        client.recv(TIMEOUT)
        client.send("40")
        client.recv(TIMEOUT)
        yield client


def echoes(client: ClientConnection) -> bool:
    client.send('421["echo","hello"]')
    return client.recv(TIMEOUT) == '431["hello"]'


def port_of(process: Process) -> int:
    line = process.line()
    assert " on https://127.0.0.1:" in line
    return int(line.partition("https://127.0.0.1:")[2].partition(" ")[0])


@pytest.fixture(params=[(), ("--workers", "2")], ids=["alone", "workers"])
def serving(request: pytest.FixtureRequest, files: Files, application: Path) -> Iterator[Process]:
    with bellwire("run", "app:server", "--port", "0", *files.flags, *request.param, cwd=application) as process:
        yield process


def test_a_certificate_is_replaced_while_a_client_stays(serving: Process, files: Files) -> None:
    port = port_of(serving)
    with joined(port) as client:
        before = serial_of(port)
        files.issue()
        serving.signal(signal.SIGHUP)
        until_everywhere_not(serving, port, before)
        after = serial_of(port)
        assert echoes(client)
        files.key.write_text("broken")
        serving.signal(signal.SIGHUP)
        assert "the certificate could not be read again, the one before stays" in error_line(serving, "ERROR")
        assert serial_of(port) == after
        assert echoes(client)
    serving.signal(signal.SIGTERM)
    code, errors = serving.end()
    assert code == 0, errors
    assert "Traceback" not in errors


def error_line(process: Process, level: str) -> str:
    """The next line of this level."""
    while level not in (line := process.error_line()):
        assert line, f"no {level} was told"
    return line


def until_everywhere_not(process: Process, port: int, before: object) -> None:
    """Wait until every worker has said that it has read the certificate again, and shows another one."""
    args = process.process.args
    assert isinstance(args, list)
    for _ in range(2 if "--workers" in args else 1):
        assert "the certificate was read again" in error_line(process, "INFO")
    assert before not in {serial_of(port) for _ in range(8)}


def test_without_a_certificate_a_closed_terminal_stops_it_in_order(application: Path) -> None:
    with bellwire("run", "app:server", "--port", "0", cwd=application) as process:
        process.port()
        process.signal(signal.SIGHUP)
        assert process.end() == (0, "")


def test_and_with_workers_too(application: Path) -> None:
    with bellwire("run", "app:server", "--port", "0", "--workers", "2", cwd=application) as process:
        process.port()
        process.signal(signal.SIGHUP)
        code, errors = process.end()
        assert (code, "started again" in errors) == (0, False), errors


def test_a_wrong_certificate_ends_the_start(files: Files, application: Path) -> None:
    files.key.write_text("broken")
    for more in ((), ("--workers", "2")):
        with bellwire("run", "app:server", "--port", "0", *files.flags, *more, cwd=application) as process:
            code, errors = process.end()
            assert code == 2
            assert "tls_key" in errors
            assert "Traceback" not in errors


def test_plain_http_on_its_port_is_answered_with_nothing(files: Files, application: Path) -> None:
    with bellwire("run", "app:server", "--port", "0", *files.flags, cwd=application) as process:
        port = port_of(process)
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            client.sendall(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(TIMEOUT)
            assert b"HTTP/1.1" not in client.recv(1000)
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


def test_a_handshake_that_nobody_goes_on_with_ends(files: Files, application: Path) -> None:
    flags = (*files.flags, "--head-timeout", "0.2")
    with bellwire("run", "app:server", "--port", "0", *flags, cwd=application) as process:
        port = port_of(process)
        for begun in (b"", b"\x16\x03\x01\x00"):
            with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
                client.settimeout(TIMEOUT)
                client.sendall(begun)
                assert client.recv(100) == b""
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")


# --- off loopback


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
def test_other_machines_are_not_served_without_tls(application: Path, more: tuple[str, ...]) -> None:
    with bellwire("run", "app:server", "--host", "0.0.0.0", "--port", "0", *more, cwd=application) as process:
        code, errors = process.end()
        assert code == 2
        for remedy in ("--tls-cert", "--behind-proxy", "127.0.0.1"):
            assert remedy in errors
        assert "Traceback" not in errors


def test_with_tls_or_behind_a_proxy_they_are(files: Files, application: Path) -> None:
    for flags in (files.flags, ("--behind-proxy", "172.16.0.0/12")):
        with bellwire("run", "app:server", "--host", "0.0.0.0", "--port", "0", *flags, cwd=application) as process:
            assert "://0.0.0.0:" in process.line()
            process.signal(signal.SIGTERM)
            assert process.end() == (0, "")
