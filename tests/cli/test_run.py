"""``bellwire run``: the command line, and what it says when it cannot serve."""

import signal
import socket
from pathlib import Path

import pytest

from tests.cli.process import TIMEOUT, bellwire, write_application


def refusal(*arguments: str, cwd: Path) -> tuple[int, str]:
    with bellwire("run", *arguments, cwd=cwd) as process:
        ended = process.end()
        assert process.line() == ""
    return ended


def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    write_application(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, errors = refusal("app:server", "--port", str(port), cwd=tmp_path)
    assert code == 1
    assert errors == (
        f"Error: port {port} of 127.0.0.1 is in use: stop the program that has it, or choose another one with --port "
        "(0 takes a free one)\n"
    )


def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    write_application(tmp_path)
    code, errors = refusal("app:server", "--max-attachments", "11", cwd=tmp_path)
    assert code == 2
    assert errors.startswith("Error: max_attachments = '11' (from --max-attachments): ")
    assert errors.count("\n") == 1


def test_a_module_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    write_application(tmp_path)
    assert refusal("ap:server", cwd=tmp_path) == (1, "Error: there is no module 'ap': did you mean 'app'?\n")


@pytest.mark.parametrize("port", ["-1", "65536", "many"])
def test_a_port_is_a_number_that_there_is(tmp_path: Path, port: str) -> None:
    code, errors = refusal("app:server", "--port", port, cwd=tmp_path)
    assert code == 2
    assert "Invalid value for '--port'" in errors


def test_a_target_without_a_colon_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    write_application(tmp_path)
    assert refusal("app", cwd=tmp_path) == (2, "Error: 'app' is not MODULE:SERVER: write app:server\n")


def test_the_variable_port_decides_unless_the_flag_does(tmp_path: Path) -> None:
    write_application(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        with bellwire("run", "app:server", cwd=tmp_path, environ={"PORT": taken}) as process:
            code, errors = process.end()
        assert (code, errors.partition(" of ")[0]) == (1, f"Error: port {taken}")
        with bellwire("run", "app:server", "--port", "0", cwd=tmp_path, environ={"PORT": taken}) as process:
            assert process.port() != int(taken)
            process.signal(signal.SIGTERM)
            assert process.end() == (0, "")


def test_refusals_are_told_at_the_level_debug(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire("run", "app:server", "--port", "0", "--log-level", "debug", cwd=tmp_path) as process:
        with socket.create_connection(("127.0.0.1", process.port()), TIMEOUT) as client:
            client.sendall(b"GET /socket.io/?EIO=3&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile() as answer:
                assert answer.read().startswith("HTTP/1.1 400 ")
        process.signal(signal.SIGTERM)
        code, errors = process.end()
    assert code == 0
    assert errors.endswith(" DEBUG bellwire.transports: refused a request of Engine.IO: UNSUPPORTED_PROTOCOL_VERSION\n")


def test_files_variables_and_flags_reach_the_server(tmp_path: Path) -> None:
    write_application(tmp_path)
    (tmp_path / "bellwire.toml").write_text("path = '/live/'\nclient_ping_timeout = 40\n")
    environ = {"BELLWIRE_CLIENT_PING_TIMEOUT": "50"}
    arguments = ("run", "app:server", "--port", "0", "--config", "bellwire.toml", "--client-ping-interval", "26")
    with bellwire(*arguments, cwd=tmp_path, environ=environ) as process:
        port = process.port()
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
            client.sendall(b"GET /live/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with client.makefile() as answer:
                received = answer.read()
        process.signal(signal.SIGTERM)
        assert process.end() == (0, "")
    assert '"pingInterval":26000,"pingTimeout":50000' in received


def test_the_benchmarks_server_runs_from_the_repositorys_root() -> None:
    root = Path(__file__).parents[2]
    with bellwire("run", "bench.servers.bellwire_server:server", "--port", "0", cwd=root) as process:
        assert process.port() > 0
        process.signal(signal.SIGINT)
        assert process.end() == (0, "")
