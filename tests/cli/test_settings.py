"""Flags from the settings' fields, and what set each of them."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bellwire.cli.settings import (
    Setting,
    SettingsError,
    merge,
    misspelt_variables,
    settings_flags,
    trace,
    variable_warnings,
)
from bellwire.core.config import Config, config_options


@click.command()
@settings_flags
def show(toml: Path | None, **flags: object) -> None:
    """Print what was given."""
    click.echo(f"{toml} { ({name: value for name, value in flags.items() if value is not None}) }")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in config_options():
        monkeypatch.delenv(f"BELLWIRE_{option.field.upper()}", raising=False)


def test_every_field_has_a_flag_with_its_help_and_default() -> None:
    words = " ".join(CliRunner().invoke(show, ["--help"]).output.split())
    for option in config_options():
        flag = f"--{option.field.replace('_', '-')}"
        assert flag in words
        assert option.help[1:].split(";")[0][:30].strip() in words
    assert "--ping-interval NUMBER Seconds between two pings (Engine.IO v4: 25). [default: 25]" in words
    assert "--per-message-deflate / --no-per-message-deflate" in words
    assert "--transports LIST" in words
    assert "[default: polling,websocket]" in words


def test_what_was_not_given_is_none() -> None:
    assert CliRunner().invoke(show, []).output == "None {}\n"


def test_flags_come_as_they_were_written() -> None:
    arguments = ["--config", "bellwire.toml", "--ping-interval", "7", "--no-per-message-deflate"]
    assert CliRunner().invoke(show, arguments).output == (
        "bellwire.toml {'ping_interval': '7', 'per_message_deflate': False}\n"
    )


def test_merging_checks_and_converts() -> None:
    flags = {"ping_interval": "7", "transports": "websocket", "pong_timeout": None}
    merged = merge(Config(pong_timeout=3.0), None, flags)
    assert (merged.ping_interval, merged.pong_timeout, merged.transports) == (7.0, 3.0, ("websocket",))


def test_a_wrong_setting_is_one_line_and_exit_code_2() -> None:
    with pytest.raises(SettingsError) as raised:
        merge(Config(), None, {"ping_interval": "often"})
    assert raised.value.exit_code == 2
    assert "ping_interval = 'often' (from --ping-interval)" in raised.value.message
    assert "\n" not in raised.value.message


def test_each_setting_knows_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = tmp_path / "bellwire.toml"
    toml.write_text("ping_interval = 20\nmax_missed_pongs = 3\nrooms_per_socket = 5\n")
    monkeypatch.setenv("BELLWIRE_MAX_MISSED_PONGS", "4")
    monkeypatch.setenv("BELLWIRE_ROOMS_PER_SOCKET", "6")
    base = Config(rooms_per_socket=4, max_room_name=99)
    settings = trace(base, toml, {"rooms_per_socket": "7", "per_message_deflate": False})
    assert [setting.field for setting in settings] == [option.field for option in config_options()]
    assert [setting for setting in settings if setting.source != "default"] == [
        Setting("ping_interval", 20.0, 25.0, str(toml)),
        Setting("max_missed_pongs", 4, 2, "BELLWIRE_MAX_MISSED_PONGS"),
        Setting("rooms_per_socket", 7, 128, "--rooms-per-socket"),
        Setting("max_room_name", 99, 255, "code"),
        Setting("per_message_deflate", False, False, "--no-per-message-deflate"),
    ]


def test_nearly_a_variable_is_found_and_others_are_left_alone() -> None:
    environ = {
        "BELLWIRE_PING_INTERVALL": "1",
        "BELLWIRE_PING_INTERVAL": "1",
        "BELLWIRE_SERVICE_HOST": "10.0.0.1",
        "BELLWIRE_PORT": "tcp://10.0.0.1:80",
        "PING_INTERVALL": "1",
    }
    assert misspelt_variables(environ) == [("BELLWIRE_PING_INTERVALL", "BELLWIRE_PING_INTERVAL")]


def test_a_variable_named_after_an_option_is_told() -> None:
    assert variable_warnings({"BELLWIRE_PORT": "80", "BELLWIRE_LOG_LEVEL": "info"}) == [
        "BELLWIRE_PORT is no setting: give --port to bellwire run",
        "BELLWIRE_LOG_LEVEL is no setting: give --log-level to bellwire run",
    ]
    assert variable_warnings({"BELLWIRE_PORT": "tcp://10.0.0.1:80"}) == [], "Kubernetes makes it"
