"""``bellwire doctor``: whether a deployment will do, before its users find out."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from bellwire.cli import checks
from bellwire.cli.checks import Finding
from bellwire.cli.loading import LoadError, load_server
from bellwire.cli.settings import merge, settings_flags
from bellwire.cli.told import print_json, told
from bellwire.cli.visit import Visit
from bellwire.core.config import Config

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor")
@click.argument("target", metavar="[MODULE:SERVER]", required=False)
@click.option("--url", metavar="URL", help="Where clients find the server: it is visited too, in up to half a minute.")
@click.option("--namespace", default="/", show_default=True, metavar="NAME", help="With --url: where to join.")
@click.option("--auth", metavar="JSON", help="With --url: what to send with CONNECT, such as a token.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_flags
def command(
    target: str | None,
    url: str | None,
    namespace: str,
    auth: str | None,
    as_json: bool,
    toml: Path | None,
    **flags: Any,
) -> None:
    """Look for what a deployment lacks.

    Looks at this machine, at the settings with which "bellwire run" would serve MODULE:SERVER, at their certificate and
    their broker, and as a client at URL. Each line says what was found, and what to do. Exits with 1 if one fails.
    """
    found = []
    with told(as_json=as_json):
        packet = _connect_packet(namespace, auth)
        if url is not None:
            _check_url(url)
        for finding in _look(target, toml, flags, url, packet):
            found.append(finding)
            if not as_json:
                _print(finding)
    well = all(finding.status != "fail" for finding in found)
    if as_json:
        print_json({"ok": well, "findings": [finding._asdict() for finding in found]})
    if not well:
        raise click.exceptions.Exit(1)


def _look(
    target: str | None, toml: Path | None, flags: dict[str, Any], url: str | None, packet: str
) -> Iterator[Finding]:
    yield from checks.machine()
    base = Config()
    if target is not None:
        try:
            base = load_server(target).config
            yield Finding("application", "ok", target)
        except LoadError as error:
            yield Finding("application", "fail", error.message, "bellwire check says more")
    config = merge(base, toml, flags)
    yield from checks.settings(config)
    yield from asyncio.run(checks.broker(config))
    if url is not None:
        yield from Visit(url, config.path, packet).findings()


def _connect_packet(namespace: str, auth: str | None) -> str:
    """The packet that joins (Socket.IO protocol v5, "Connection to a namespace")."""
    try:
        payload = "" if auth is None else json.dumps(json.loads(auth))
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="--auth") from None
    return f"40{payload}" if namespace == "/" else f"40{namespace},{payload}"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
        path = parts.path.strip("/")
    except ValueError:
        fits, path = False, ""
    if not fits:
        raise click.BadParameter(f"{url!r} is no address such as https://chat.example", param_hint="--url")
    if path:
        raise click.BadParameter(f"{url!r} has a path: give that of Engine.IO with --path", param_hint="--url")


def _print(finding: Finding) -> None:
    status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    click.echo(f"{status}  {finding.check}: {finding.message}{remedy}")
