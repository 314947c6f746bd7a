"""The broker of a server that is served here: the one at an address, or a private nats-server.

It is waited for: nobody is let in before it answers. How long it takes is told on standard error::

    broker                  it does not answer                          it dies later
    memory://               does not happen                             with this process
    nats://, tls://         tried again and again, until Ctrl+C         clients are kept, it is tried again and again
    --data DIR, --workers   an error, nothing is left behind            clients are kept, it is started again

With several workers it is their supervisor that starts the private nats-server, and tells them where it is.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import click

from bellwire.brokers.base import Broker
from bellwire.brokers.urls import make_broker
from bellwire.cli.address import TELL_EVERY, awaited
from bellwire.cli.settings import Setting, SettingsError, merge, trace
from bellwire.core.config import Config, shown
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError, BrokerUnavailable, ConfigError
from bellwire.delivery.log import Limits, limits_of

MAX_PAUSE: Final = 5.0
"""Seconds between two attempts, at most; the first comes after a `_FIRST_PAUSE`."""

_FIRST_PAUSE: Final = 0.25


class BrokerError(click.ClickException):
    """There is no broker to serve with."""

    exit_code = 1

    def __init__(self, error: BellwireError) -> None:
        super().__init__(str(error))


class Private(Protocol):
    """A nats-server of our own: a `PrivateNats`, or a supervisor that has one."""

    @property
    def url(self) -> str:
        """Where it is at the moment, to be asked before each connection."""
        ...

    async def start(self) -> None:
        """Start it, and return when it answers."""

    async def close(self) -> None:
        """Stop it, if it is ours alone."""


class BrokerKeeper:
    """Starts the broker of a server before it, and ends what is left of it afterwards.

    Args:
        settings: where the broker is, and how much it keeps.
        private: a nats-server of our own, which goes before ``settings.broker``.
        counters: those of the server.
        tell: is given a line for whoever waits.

    Raises:
        SettingsError: there is no such broker, or what it needs is not installed.

    """

    def __init__(
        self, settings: Config, private: Private | None, counters: Counters, tell: Callable[[str], None]
    ) -> None:
        limits = limits_of(settings)
        self._address = shown("broker", settings.broker)
        self._tell = tell
        self._private = private
        try:
            broker = (
                make_broker(settings.broker, limits, counters, prefix=settings.prefix)
                if private is None
                else _on(private, limits, counters, settings.prefix)
            )
        except ConfigError as error:
            raise SettingsError(str(error)) from None
        self.broker: Broker = broker
        """What the server is to be configured with."""

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


def private_nats(data: Path | None, counters: Counters) -> Private:
    """Return a nats-server of our own, not started, over ``data`` or a temporary directory.

    Raises:
        SettingsError: there can be none on this system.

    """
    try:
        from bellwire.brokers.private_nats import PrivateNats
    except ImportError as error:
        raise SettingsError(f"--data needs a system with file locks, such as Linux: {error}") from None
    return PrivateNats(data, counters=counters)


def _on(private: Private, limits: Limits, counters: Counters, prefix: str) -> Broker:
    try:
        from bellwire.brokers.nats import NatsBroker
    except ConfigError:  # there is no client of NATS
        raise ConfigError(
            "--data and --workers need the NATS client and the nats-server: pip install 'bellwire[nats]'"
        ) from None
    return NatsBroker(lambda: private.url, limits, prefix=prefix, counters=counters)


def check_broker(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> None:
    """Check that there is such a broker as the settings name, without connecting to it. Raises `SettingsError`."""
    BrokerKeeper(merge(base, toml, flags), None, Counters(), tell=lambda _: None)


def check_data(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> None:
    """Check that nothing but ``--data`` says where the broker is.

    Raises:
        SettingsError: something does; the message says what.

    """
    broker = _broker_setting(base, toml, flags)
    if broker.value != broker.default or broker.source == "--broker":
        raise SettingsError(
            f"--data keeps everything in a broker of its own, and broker = {shown('broker', broker.value)!r} (from "
            f"{broker.source}) names another one: give one of the two"
        )


def shared_by_workers(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> bool:
    """Return whether the settings name a broker that several workers can share. False if they name none.

    Raises:
        SettingsError: they name this process's memory.

    """
    broker = _broker_setting(base, toml, flags)
    if broker.value != broker.default:
        return True
    if broker.source not in ("default", "code"):
        raise SettingsError(
            f"broker = {broker.value!r} (from {broker.source}) is the memory of one process, which workers cannot "
            "share: name none, and they share a private nats-server, or one at nats:// or redis://"
        )
    return False


def _broker_setting(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> Setting:
    return next(setting for setting in trace(base, toml, flags) if setting.field == "broker")


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
                tell(awaited(address, error))
            failed = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nothing secret
            pause = min(MAX_PAUSE, pause * 2)
        else:
            if failed:
                tell(f"The broker at {address} answers after {loop.time() - began:.0f} s")
            return
