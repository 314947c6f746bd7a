"""The broker that a command beside the servers speaks to: ``--broker``, ``BELLWIRE_BROKER`` or a file of settings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from bellwire.brokers.guest import check_address
from bellwire.cli.settings import SettingsError, merge
from bellwire.core.config import Config, shown
from bellwire.core.errors import BrokerUnavailable, ConfigError

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE: Final = 2.0
"""Seconds of waiting after which a line says so, and"""
TELL_EVERY: Final = 10.0
"""after which it says so again."""
GIVES_UP: Final = "(Ctrl+C gives up)"
"""Stands between the address of a broker that is waited for and why."""


def awaited(address: str, error: BrokerUnavailable | None = None) -> str:
    """The line that says that a broker is waited for; with why, if that is known."""
    why = "" if error is None else f": {error}"
    return f"Waiting for the broker at {address} {GIVES_UP}{why}"


class WrongUse(click.ClickException):
    """What is on the command line cannot be meant; the message says what to write."""

    exit_code = 2


def broker_options(command: F) -> F:
    """Add ``--broker``, ``--prefix`` and ``--config``; the command gets ``broker``, ``prefix`` and ``toml``.

    They are to be given to `broker_of`.
    """
    command = click.option(
        "--config",
        "toml",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The servers' TOML file of settings, to find the broker in.",
    )(command)
    command = click.option(
        "--prefix",
        metavar="TEXT",
        help="The servers' prefix at the broker. Without it BELLWIRE_PREFIX decides, then --config.",
    )(command)
    return click.option(
        "--broker",
        metavar="URL",
        help="The servers' broker, such as redis://host:6379 or nats://host:4222. Without it the variable "
        "BELLWIRE_BROKER decides, then --config.",
    )(command)


def broker_of(broker: str | None, prefix: str | None, toml: Path | None) -> Config:
    """Return settings with the broker's address and the prefix.

    Raises:
        SettingsError: there is none that other processes can reach.

    """
    flags: Mapping[str, Any] = {"broker": broker, "prefix": prefix}
    settings = merge(Config(), toml, flags)
    if settings.broker == Config().broker and broker is None:
        raise SettingsError("no broker is named: give --broker URL, or set BELLWIRE_BROKER, to what the servers have")
    try:
        check_address(settings.broker)
    except ConfigError as error:
        raise SettingsError(str(error)) from None
    return settings


class Waiting:
    """Says on standard error that a broker is waited for, once in a while however often it is told."""

    def __init__(self, broker: str) -> None:
        self._address = shown("broker", broker)
        self._said: float | None = None

    def tell(self, error: BrokerUnavailable | None = None) -> None:
        """Say so now if it is time; with why, if that is known."""
        now = asyncio.get_running_loop().time()
        if self._said is None or now - self._said >= TELL_EVERY:
            self._said = now
            click.echo(awaited(self._address, error), err=True)


@asynccontextmanager
async def telling(broker: str) -> AsyncIterator[None]:
    """Say on standard error, now and then, that the broker at this address is waited for, until the block ends."""
    task = asyncio.create_task(_tell(Waiting(broker)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tell(waiting: Waiting) -> None:
    await asyncio.sleep(PATIENCE)
    while True:
        waiting.tell()
        await asyncio.sleep(TELL_EVERY)
