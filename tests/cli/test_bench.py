"""``bellwire bench``, on small crowds and for short."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bellwire.cli import main
from bellwire.cli.address import GIVES_UP
from bellwire.cli.bench import cause_of
from bellwire.load.processes import ProcessError
from tests.cli.process import bellwire, write_application

QUICK = ("--connections", "5", "--seconds", "0.05")

GUARDED = """
from bellwire import ConnectRefused, Identity, Server

async def check(request, payload):
    if payload != {"token": "secret"}:
        raise ConnectRefused("no token")
    return Identity("ada")

server = Server(auth=check)
chat = server.namespace("/chat")
"""


def ran(folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "bellwire", "bench", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=55, check=False)
    return done.returncode, done.stdout, done.stderr


def result(said: str) -> Any:
    return json.loads(said)


def test_an_application_is_measured_with_its_settings_and_its_auth(tmp_path: Path) -> None:
    write_application(tmp_path, GUARDED)
    settings = ("--connection-state-recovery", "--message-rate", "1/s", "--client", "recovering")
    auth = ("--auth", '{"token": "secret"}')
    code, said, errors = ran(tmp_path, "app:server", *QUICK, *settings, *auth, "--namespace", "/chat", "--json")
    assert (code, errors) == (0, "")
    found = result(said)
    assert (found["ok"], found["server"], found["skipped"]) == (True, "app:server", {})
    works = [(each["work"], each["connections"], each["window"]) for each in found["results"]]
    assert works == [
        ("idle", 5, 0),
        ("connecting", 5, 100),
        ("echo", 1, 1),
        ("echo", 5, 1),
        ("fanout", 5, 1),
        ("fanout", 5, 32),
    ]
    assert found["results"][0]["figures"]["bytes_each"] > 0
    assert all(each["figures"]["per_second"] > 0 for each in found["results"][1:])
    assert found["machine"]["cores"] > 0


def test_of_a_server_that_runs_is_measured_what_it_serves(tmp_path: Path) -> None:
    write_application(tmp_path)
    with bellwire("run", "app:server", "--port", "0", cwd=tmp_path) as server:
        url = f"http://127.0.0.1:{server.port()}"
        code, said, _ = ran(tmp_path, "--url", url, *QUICK)
        nothing = ran(tmp_path, "--url", url, *QUICK, "--namespace", "/elsewhere")
    assert code == 0
    assert nothing[0] == 1
    assert nothing[2] == (
        f"Error: nothing was measured: connecting at {url.removeprefix('http://')}: the server refused the namespace: "
        "'Invalid namespace'. Name with --namespace one that it serves\n"
    )
    assert "Connecting, 5 clients, 100 at a time" in said
    assert "us of the server" not in said, "whose process is not known"
    assert said.count("was not measured: ") == 3
    assert "Invalid namespace" in said
    assert "`bellwire run bellwire.load.program:server` serves" in said


def test_clients_that_an_application_turns_away_are_told_of_auth(tmp_path: Path) -> None:
    write_application(tmp_path, GUARDED)
    code, _, errors = ran(tmp_path, "app:server", *QUICK)
    assert code == 1
    assert errors.endswith(
        ": the server refused the namespace: 'no token'. Say with --auth what its clients have to say to be let in\n"
    )
    code, _, errors = ran(tmp_path, "app:server", *QUICK, "--auth", "{}")
    assert code == 1
    assert errors.endswith(": the server refused the namespace: 'no token'\n"), "it says what is wrong with it"


def test_an_application_that_is_not_there_is_told_as_run_tells_it(tmp_path: Path) -> None:
    write_application(tmp_path, GUARDED)
    code, _, errors = ran(tmp_path, "app:servers")
    assert (code, errors) == (1, "Error: the module 'app' has no 'servers': did you mean app:server?\n")
    code, said, errors = ran(tmp_path, "app:server", "--ping-interval", "-1", "--json")
    assert (code, errors) == (2, "")
    assert "ping_interval" in result(said)["errors"][0]


def test_that_the_server_waits_for_its_broker_is_told_at_once(tmp_path: Path) -> None:
    with bellwire("bench", "--json", "--broker", "nats://127.0.0.1:1", cwd=tmp_path) as bench:
        assert bench.error_line().startswith(f"Waiting for the broker at nats://127.0.0.1:1 {GIVES_UP}: no connection")
        bench.signal(signal.SIGINT)
        assert bench.end()[0] == 1


def test_why_a_load_fails_is_told_and_not_what_the_server_said(tmp_path: Path) -> None:
    code, _, errors = ran(tmp_path, *QUICK, "--client", "recovering")
    assert code == 1
    assert errors.endswith(": the server has connection state recovery off: add --connection-state-recovery\n")


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (2, "Error: there is no such setting", "there is no such setting"),
        (1, "", "it is late"),
        (None, "", "it is late"),
        (None, "one\ntwo", "it is late: two"),
        (None, f"w {GIVES_UP}: no\nw {GIVES_UP}: no connection\nw {GIVES_UP}", "it is late: no connection"),
    ],
)
def test_why_a_server_does_not_serve_is_told_once(code: int | None, said: str, told: str) -> None:
    assert cause_of(ProcessError("it is late", code, said)) == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--url", "https://localhost:1"], "write http://HOST:PORT"),
        (["--url", "localhost:8000"], "write http://HOST:PORT"),
        (["--url", "http://localhost:99999"], "write http://HOST:PORT"),
        (["--url", "http://localhost/chat"], "write http://HOST:PORT"),
        (["--url", "http://localhost:1", "app:server"], "give --url, or MODULE:SERVER and settings"),
        (["--url", "http://localhost:1", "--ping-interval", "3"], "give --url, or MODULE:SERVER and settings"),
        (["--auth", "{"], "it is no JSON"),
        (["--connections", "0"], "0 is not in the range"),
        *((["--seconds", each], "is no length of a measurement") for each in ("nan", "inf", "0", "-1", "101")),
    ],
)
def test_what_cannot_be_meant_is_told(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2
    assert told in done.output
