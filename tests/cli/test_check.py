"""``bellwire check``: what run would say, without running."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bellwire.cli import main
from tests.cli.process import write_application


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_application(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def test_an_application_with_the_defaults_is_ok() -> None:
    result = check("app:server")
    assert (result.exit_code, result.output) == (0, "app:server: ok\n")


def test_other_settings_are_shown_with_their_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bellwire.toml").write_text("transports = ['websocket']\n")
    monkeypatch.setenv("BELLWIRE_MAX_ROOM_NAME", "64")
    result = check("app:server", "--config", "bellwire.toml", "--ping-interval", "20")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        'transports = ["websocket"] from bellwire.toml (default: ["polling","websocket"])',
        "ping_interval = 20.0 from --ping-interval (default: 25.0)",
        "max_room_name = 64 from BELLWIRE_MAX_ROOM_NAME (default: 255)",
        "app:server: ok",
    ]


def test_what_was_given_is_shown_though_it_is_the_default() -> None:
    result = check("app:server", "--max-message-bytes", "1e6")
    assert result.output.splitlines()[0] == "max_message_bytes = 1000000 from --max-message-bytes (default: 1000000)"


def test_json_holds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELLWIRE_MAX_ROOM_NAME", "64")
    result = check("app:server", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "ok": True,
        "errors": [],
        "warnings": [],
        "settings": {"max_room_name": {"value": 64, "default": 255, "source": "BELLWIRE_MAX_ROOM_NAME"}},
    }


def test_a_brokers_address_is_shown_without_its_secrets() -> None:
    address = "nats://user:secret@host"
    result = check("app:server", "--broker", address)
    assert result.output.splitlines()[0] == 'broker = "nats://***@host" from --broker (default: "memory://")'
    assert json.loads(check("app:server", "--broker", address, "--json").output)["settings"]["broker"] == {
        "value": "nats://***@host",
        "default": "memory://",
        "source": "--broker",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("app:server", "--broker", "other://secret@host"), 2, "broker = 'other://***@host' is none: there are "),
        (("app:server", "--max-attachments", "11"), 2, "max_attachments = '11' (from --max-attachments): "),
        (("app:server", "--tls-cert", "absent.pem"), 2, "absent.pem cannot be read: "),
        (("app:server", "--config", "absent.toml"), 2, "absent.toml cannot be read: "),
        (("app:other",), 1, "the module 'app' has no 'other': did you mean app:server?"),
        (("app.server",), 2, "'app.server' is not MODULE:SERVER: write app.server:server"),
    ],
)
def test_what_cannot_run_exits_as_run_does_with_the_error(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = check(*arguments)
    assert result.exit_code == code
    assert result.output.startswith(f"Error: {message}")
    result = check(*arguments, "--json")
    assert result.exit_code == code
    report = json.loads(result.output)
    assert report["ok"] is False
    assert report["errors"][0].startswith(message)


def test_what_is_hardly_meant_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "empty.py").write_text("from bellwire import Server\nserver = Server()\n")
    monkeypatch.setenv("BELLWIRE_PING_INTERVALL", "secret")
    monkeypatch.setenv("BELLWIRE_DATA", "secret")
    monkeypatch.setenv("BELLWIRE_PORT", "tcp://10.0.0.1:80")  # Kubernetes
    result = check("empty:server")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: BELLWIRE_PING_INTERVALL is no setting: BELLWIRE_PING_INTERVAL is one",
        "warning: BELLWIRE_DATA is no setting: give --data to bellwire run",
        'warning: no namespace is registered, so no client can connect: write root = server.namespace("/")',
    ]
    assert "secret" not in result.output
    assert len(json.loads(check("empty:server", "--json").stdout)["warnings"]) == 3
