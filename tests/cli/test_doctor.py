"""``bellwire doctor``: a line for each finding, or JSON, and an exit code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bellwire.cli import main
from tests.cli.process import write_application


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_application(tmp_path, name="patient")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_each_finding_is_a_line(folder: Path) -> None:
    result = doctor("patient:server", "--allowed-origins", "*")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "ok    application: patient:server" in lines
    assert "warn  origins: any page may connect, with the cookies of whoever looks at it; name the pages" in lines


def test_one_that_fails_is_the_exit_code(folder: Path) -> None:
    result = doctor("--tls-cert", "none.pem", "--json")
    assert result.exit_code == 1
    report = json.loads(result.output)
    assert report["ok"] is False
    assert ["TLS", "fail"] in [[finding["check"], finding["status"]] for finding in report["findings"]]


def test_an_application_that_cannot_be_loaded_is_one_of_them(folder: Path) -> None:
    result = doctor("nobody:server")
    assert result.exit_code == 1
    assert "fail  application: there is no module 'nobody'" in result.output


def test_an_address_is_visited(folder: Path) -> None:
    result = doctor("--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "fail  requests: " in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "ws://x"),
        ("--url", "http://"),
        ("--url", "http://x:99999"),
        ("--url", "http://x/y"),
        ("--auth", "{"),
        ("--ping-interval", "x"),
    ],
)
def test_a_wrong_command_line_is_told(folder: Path, arguments: tuple[str, ...]) -> None:
    result = doctor(*arguments)
    assert result.exit_code == 2
    if "--url" in arguments or "--auth" in arguments:  # before it looks at anything
        assert result.output.startswith("Usage: ")
    as_json = doctor(*arguments, "--json")
    assert (as_json.exit_code, as_json.stderr) == (2, "")
    report = json.loads(as_json.stdout)
    assert report["ok"] is False
    assert len(report["errors"]) == 1
