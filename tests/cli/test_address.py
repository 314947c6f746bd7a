"""The broker of the commands beside the servers: where its address comes from, and what is said while it is awaited."""

import asyncio
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bellwire.cli.address import PATIENCE, TELL_EVERY, Waiting, broker_of, broker_options, telling
from bellwire.cli.settings import SettingsError
from bellwire.core.errors import BrokerUnavailable


@click.command()
@broker_options
def command(broker: str | None, prefix: str | None, toml: Path | None) -> None:
    settings = broker_of(broker, prefix, toml)
    click.echo(f"{settings.broker} {settings.prefix}")


def address(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_a_flag_goes_before_a_variable_and_that_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bellwire.toml").write_text('broker = "nats://file"\nprefix = "shop"')
    file = ("--config", str(tmp_path / "bellwire.toml"))
    assert address(*file).output == "nats://file shop\n"
    monkeypatch.setenv("BELLWIRE_BROKER", "redis://variable")
    assert address(*file).output == "redis://variable shop\n"
    assert address(*file, "--broker", "redis://flag", "--prefix", "x").output == "redis://flag x\n"
    monkeypatch.setenv("BELLWIRE_PREFIX", "y")
    assert address().output == "redis://variable y\n"


@pytest.mark.parametrize(
    ("broker", "message"),
    [
        (None, "no broker is named: give --broker URL, or set BELLWIRE_BROKER, to what the servers have"),
        ("memory://", "broker = 'memory://' is the memory of one process"),
        ("host:6379", "broker = 'host:6379' (from --broker): "),
        ("http://secret@host", "broker = 'http://***@host' is none: there are memory://"),
    ],
)
def test_what_is_no_broker_says_what_to_write(broker: str | None, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        broker_of(broker, None, None)
    assert raised.value.message.startswith(message)
    assert raised.value.exit_code == 2


async def test_waiting_is_told_on_standard_error_and_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    async with telling("redis://:secret@host"):
        await asyncio.sleep(PATIENCE - 1)
    assert capsys.readouterr().err == ""
    async with telling("redis://:secret@host"):
        await asyncio.sleep(PATIENCE + TELL_EVERY + 1)
    said = capsys.readouterr()
    assert said.err == "Waiting for the broker at redis://***@host (Ctrl+C gives up)\n" * 2
    assert said.out == ""


async def test_one_that_is_told_again_and_again_says_it_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting("nats://token@host")
    for _ in range(30):
        waiting.tell(BrokerUnavailable("it is away"))
        await asyncio.sleep(1)
    line = "Waiting for the broker at nats://***@host (Ctrl+C gives up): it is away\n"
    assert capsys.readouterr().err == line * 3
