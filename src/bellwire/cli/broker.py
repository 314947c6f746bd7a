"""The broker of a server that is served here: the one at an address, or that of ``--data DIR``.

It is waited for: nobody is let in before it answers. How long it takes is told on standard error::

    broker                  it does not answer                          it dies later
    memory://               does not happen                             with this process
    nats://, tls://         tried again and again, until Ctrl+C         clients are kept, it is tried again and again
    --data DIR              an error, nothing is left behind            clients are kept, it is started again
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bellwire.brokers.base import Broker
from bellwire.brokers.urls import make_broker
from bellwire.cli.settings import SettingsError, merge, trace
from bellwire.core.config import Config, shown
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError, BrokerUnavailable, ConfigError
from bellwire.delivery.log import Limits

if TYPE_CHECKING:
    from bellwire.brokers.private_nats import PrivateNats

MAX_PAUSE: Final = 5.0
"""Seconds between two attempts, at most; the first comes after a `_FIRST_PAUSE`."""

TELL_EVERY: Final = 10.0
"""Seconds after which it is said again that the broker does not answer."""

_FIRST_PAUSE: Final = 0.25


class BrokerError(click.ClickException):
    """There is no broker to serve with."""

    exit_code = 1

    def __init__(self, error: BellwireError) -> None:
        super().__init__(str(error))


class BrokerKeeper:
    """Starts the broker of a server before it, and ends what is left of it afterwards.

    Args:
        settings: where the broker is, and how much it keeps.
        data: the directory of a private nats-server, which goes before ``settings.broker``.
        counters: those of the server.
        tell: is given a line for whoever waits.

    Raises:
        SettingsError: there is no such broker, or what it needs is not installed.

    """

    def __init__(self, settings: Config, data: Path | None, counters: Counters, tell: Callable[[str], None]) -> None:
        limits = Limits(settings.history_messages, settings.history_bytes, settings.history_seconds)
        self._address = shown("broker", settings.broker)
        self._tell = tell
        self._private: PrivateNats | None = None
        self.broker: Broker
        """What the server is to be configured with."""
        try:
            if data is None:
                self.broker = make_broker(settings.broker, limits, counters)
            else:
                self._private, self.broker = _private(data, limits, counters)
        except ConfigError as error:
            raise SettingsError(str(error)) from None

    async def start(self) -> None:
        """Start the broker, in the main thread, and return when it answers.

        Raises:
            ConfigError: the data directory cannot be had, or there is no nats-server.
            BrokerUnavailable: the private nats-server does not start.

        """
        if self._private is not None:
            await self._private.start()
            await self.broker.start()
        else:
            await until_it_answers(self.broker, self._address, self._tell)

    async def close(self) -> None:
        """End it. What was acknowledged stays where the broker keeps it."""
        try:
            await self.broker.close()
        finally:
            if self._private is not None:
                await self._private.close()


def _private(data: Path, limits: Limits, counters: Counters) -> "tuple[PrivateNats, Broker]":
    try:
        from bellwire.brokers.nats import NatsBroker
        from bellwire.brokers.private_nats import PrivateNats
    except ConfigError:  # there is no client of NATS
        raise ConfigError("--data needs the NATS client and the nats-server: pip install 'bellwire[nats]'") from None
    except ImportError as error:
        raise ConfigError(f"--data needs a system with file locks, such as Linux: {error}") from None
    nats = PrivateNats(data, counters=counters)
    return nats, NatsBroker(lambda: nats.url, limits, counters=counters)


def check_broker(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> None:
    """Check that there is such a broker as the settings name, without connecting to it. Raises `SettingsError`."""
    BrokerKeeper(merge(base, toml, flags), None, Counters(), tell=lambda _: None)


def check_data(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> None:
    """Check that nothing but ``--data`` says where the broker is.

    Raises:
        SettingsError: something does; the message says what.

    """
    broker = next(setting for setting in trace(base, toml, flags) if setting.field == "broker")
    if broker.value != broker.default or broker.source == "--broker":
        raise SettingsError(
            f"--data keeps everything in a broker of its own, and broker = {shown('broker', broker.value)!r} (from "
            f"{broker.source}) names another one: give one of the two"
        )


async def until_it_answers(broker: Broker, address: str, tell: Callable[[str], None]) -> None:
    """Start ``broker``, again and again until it answers; ``address`` is told, and has to be without secrets."""
    loop = asyncio.get_running_loop()
    began = told = loop.time()
    pause, failed = _FIRST_PAUSE, False
    while True:
        try:
            await broker.start()
        except BrokerUnavailable as error:
            if not failed or loop.time() - told >= TELL_EVERY:
                told = loop.time()
                tell(f"Waiting for the broker at {address} (Ctrl+C gives up): {error}")
            failed = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nothing secret
            pause = min(MAX_PAUSE, pause * 2)
        else:
            if failed:
                tell(f"The broker at {address} answers after {loop.time() - began:.0f} s")
            return
