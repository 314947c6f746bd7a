import os
import socket
import subprocess
import sys

import pytest

from bellwire.core.open_files import MORE
from bellwire.load.processes import ProcessError, free_port, measure, on_core, running

LISTEN = (
    "import signal, socket, sys\n"
    "server = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
    "print('it is ready', flush=True)\n"
    "signal.pause()\n"
)


@pytest.mark.parametrize("ready", ["", "it is ready"])
def test_a_server_runs_on_its_core_while_it_is_wanted(ready: str) -> None:
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", LISTEN, "{host}", "{port}"]
    with running("server", command, core, ready=ready) as (port, process):
        assert os.sched_getaffinity(process) == {core}
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_what_a_server_says_while_it_is_waited_for_is_heard_at_once() -> None:
    """It goes on when its first line has been heard, and so not if that is told in the end."""
    begin, heard = socket.create_server(("127.0.0.1", 0)), list[str]()
    script = f"""
import socket
print("it waits", flush=True)
socket.create_connection(("127.0.0.1", {begin.getsockname()[1]})).recv(1)
"""

    def hear(line: str) -> None:
        if not heard:
            begin.accept()[0].close()
        heard.append(line)

    with begin, running("server", [sys.executable, "-c", script + LISTEN, "{host}", "{port}"], None, hear=hear):
        assert heard[0] == "it waits"


def test_a_server_that_a_script_has_started_ends_with_it() -> None:
    """As the ``node`` of a wheel does it."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    with socket.socket() as client:
        client.settimeout(10)
        with running("server", [sys.executable, "-c", script, LISTEN, "{host}", "{port}"], None) as (port, _):
            client.connect(("127.0.0.1", port))
        with pytest.raises(ConnectionResetError):  # as soon as it has ended
            client.recv(1)


def test_a_server_that_does_not_start_is_quoted() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with (
        pytest.raises(ProcessError, match=r"(?s)poor ended with status 1.*no such luck"),
        running("poor", command, None),
    ):
        pytest.fail("it does not serve")


def test_what_fails_while_a_server_runs_is_not_said_to_be_the_servers() -> None:
    failed = ProcessError("the load generator failed", 1)
    with (
        pytest.raises(ProcessError) as raised,
        running("server", [sys.executable, "-c", LISTEN, "{host}", "{port}"], None),
    ):
        raise failed
    assert (raised.value, str(failed)) == (failed, "the load generator failed")


def test_what_cannot_be_measured_is_told_before_anything_is() -> None:
    with pytest.raises(ProcessError, match="'nan' is no number above 0") as failed:
        measure(["fanout", "--seconds", "nan"], 1, None, None)
    assert failed.value.code == 2


def test_a_load_that_fails_is_quoted() -> None:
    with pytest.raises(ProcessError, match=r"connecting at 127.0.0.1:1: nothing listens there") as failed:
        measure(["connecting", "--connections", "1"], 1, None, None)
    assert failed.value.code == 1


def test_a_load_that_may_have_no_more_sockets_says_where_more_are_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        load = [sys.executable, "-m", "bellwire.load", "connecting", "--port", str(server.getsockname()[1])]
        command = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh", *load, "--connections", "64"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert ended.stderr.endswith(f"Too many open files: allow more with {MORE}\n")


def test_a_process_is_as_free_as_before() -> None:
    before = os.sched_getaffinity(0)
    with on_core(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    with on_core(None):
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


def test_ports_are_not_among_those_of_connections() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
        assert free_port() < int(limits.read().split()[0])
