"""``bellwire demo``: the chat, and where to open it."""

import signal
import socket
from pathlib import Path
from urllib.request import urlopen

from tests.cli.process import TIMEOUT, bellwire


def test_it_serves_the_page_where_it_says(tmp_path: Path) -> None:
    with bellwire("demo", cwd=tmp_path, environ={"PORT": "0"}) as process:
        line = process.line()
        url = line.split()[1]
        assert line == f"Open {url} in two tabs (Ctrl+C stops the chat)"
        assert url.startswith("http://127.0.0.1:")
        assert not url.endswith((":0", ":8000"))
        with urlopen(url, timeout=TIMEOUT) as answer:
            assert b"<html" in answer.read()
        process.signal(signal.SIGINT)
        assert process.end() == (0, "")


def test_it_is_for_this_machine(tmp_path: Path) -> None:
    with bellwire("demo", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path) as process:
        code, errors = process.end()
    assert code == 2
    assert "bellwire run bellwire.demo.chat:server --host 0.0.0.0 --tls-cert" in errors


def test_the_port_of_the_environment_is_honoured_and_a_taken_one_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with bellwire("demo", cwd=tmp_path, environ={"PORT": str(port)}) as process:
            code, errors = process.end()
    assert code == 1
    assert errors == (
        f"Error: port {port} of 127.0.0.1 is in use: stop the program that has it, or choose another one with --port "
        "(0 takes a free one); for make demo, write PORT=8001 make demo\n"
    )
