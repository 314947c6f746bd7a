"""Taking an address, or saying why not and what to do."""

import contextlib
import errno
import socket
import sys

import click
import pytest
from click.testing import CliRunner

from bellwire import Config
from bellwire.cli.binding import BindError, ExposedError, bind, check_exposure, port_option, refused, reserve, url_of

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux deals connections out")


@click.command()
@port_option
def listening(port: int) -> None:
    click.echo(port)


@pytest.mark.parametrize(("words", "port"), [("--port 0", "0"), ("--port 65535", "65535"), ("", "8001")])
def test_the_port_is_that_of_the_command_line_or_of_the_variable(words: str, port: str) -> None:
    assert CliRunner().invoke(listening, words, env={"PORT": "8001"}).output == f"{port}\n"
    assert CliRunner().invoke(listening, env={"PORT": None}).output == "8000\n"


@pytest.mark.parametrize("port", ["-1", "65536", "9" * 5000, "many", "tcp://10.0.0.1:80"])
def test_what_is_no_port_is_told_with_where_it_stands(port: str) -> None:
    by_flag = CliRunner().invoke(listening, ["--port", port], env={"PORT": "8001"})
    by_variable = CliRunner().invoke(listening, env={"PORT": port})
    for result, where in ((by_flag, "--port"), (by_variable, "the variable PORT")):
        told = f"Error: Invalid value for {where}: {port!r} is no port: write a number from 0 to 65535, such as 8000"
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, told)


def test_port_0_takes_a_free_port_which_the_address_shows() -> None:
    (bound,) = bind("127.0.0.1", 0)
    with bound:
        port = bound.getsockname()[1]
        assert port != 0
        assert url_of("127.0.0.1", bound) == f"http://127.0.0.1:{port}"
        assert url_of("::1", bound) == f"http://[::1]:{port}"
        assert url_of("127.0.0.1", bound, tls=True) == f"https://127.0.0.1:{port}"


def test_nobody_can_connect_before_it_listens() -> None:
    (bound,) = bind("127.0.0.1", 0)
    with bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), 5)


def test_all_addresses_of_a_host_get_the_same_port() -> None:
    sockets = bind("localhost", 0)
    try:
        assert len({bound.getsockname()[1] for bound in sockets}) == 1
    finally:
        for bound in sockets:
            bound.close()


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BindError) as raised:
            bind("127.0.0.1", port)
    assert raised.value.exit_code == 1
    assert raised.value.message == (
        f"port {port} of 127.0.0.1 is in use: stop the program that has it, or choose another one with --port "
        "(0 takes a free one)"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "a" * 300])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    with pytest.raises(BindError, match=r"is no address of this machine.*choose another one with --host"):
        bind(host, 0)


def test_a_reserved_port_is_told_apart() -> None:
    error = refused("127.0.0.1", 80, PermissionError(errno.EACCES, "Permission denied"))
    assert error.message == "port 80 is reserved for privileged programs: choose one from 1024 on with --port"


def test_any_other_refusal_keeps_the_systems_words() -> None:
    error = refused("127.0.0.1", 80, OSError(errno.EMFILE, "Too many open files"))
    assert error.message == "port 80 of 127.0.0.1 cannot be listened on: Too many open files"


@needs_linux
def test_a_reserved_address_is_shared_and_connections_are_dealt_out_among_those_that_listen() -> None:
    (kept,) = reserve("127.0.0.1", 0)
    address = kept.getsockname()
    with kept:
        listeners = [bind(*address, shared=True)[0] for _ in range(2)]
        for listener in listeners:
            listener.listen(100)
        with pytest.raises(BindError, match="is in use"):
            reserve(*address)
        clients = [socket.create_connection(address, 5) for _ in range(100)]
        counts = [accepted(listener) for listener in listeners]
        assert sum(counts) == 100
        assert min(counts) > 20  # binomial: one in 10^10 runs
        listeners[0].close()
        clients += [socket.create_connection(address, 5) for _ in range(10)]
        assert accepted(listeners[1]) == 10
        listeners[1].close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 5)
        for client in clients:
            client.close()


def accepted(listener: socket.socket) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost"])
def test_what_stays_on_this_machine_needs_no_tls(host: str) -> None:
    with contextlib.ExitStack() as stack:
        check_exposure(host, [stack.enter_context(bound) for bound in bind(host, 0)], Config())


def test_what_others_reach_needs_it() -> None:
    (bound,) = bind("0.0.0.0", 0)
    with bound:
        with pytest.raises(ExposedError, match=r"--tls-cert and --tls-key; .*--behind-proxy.*127\.0\.0\.1"):
            check_exposure("0.0.0.0", [bound], Config())
        check_exposure("0.0.0.0", [bound], Config(tls_cert="x"))
        check_exposure("0.0.0.0", [bound], Config(behind_proxy=("172.17.0.0/16",)))
