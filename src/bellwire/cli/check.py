"""``bellwire check``: whether an application could be run, and with which settings."""

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from bellwire.cli.broker import check_broker
from bellwire.cli.certificate import certificate_of
from bellwire.cli.loading import load_server
from bellwire.cli.settings import Setting, merge, settings_flags, trace, variable_warnings
from bellwire.cli.told import print_json, told
from bellwire.core.config import shown
from bellwire.server.server import Server


@click.command("check")
@click.argument("target", metavar="MODULE:SERVER")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_flags
def command(target: str, as_json: bool, toml: Path | None, **flags: Any) -> None:
    """Find out whether MODULE:SERVER can be run.

    Loads it and merges its settings as "bellwire run" does, without serving. Prints the settings that were given,
    and what set each. Exits with 1 if the application cannot be loaded, with 2 if a setting or the certificate is
    wrong.
    """
    with told(as_json=as_json):
        server = load_server(target)
        settings = [
            setting._replace(value=shown(setting.field, setting.value))
            for setting in trace(server.config, toml, flags)
            if setting.source != "default"
        ]
        check_broker(server.config, toml, flags)
        certificate_of(merge(server.config, toml, flags))
    warnings = _warnings(server)
    if as_json:
        print_json({"ok": True, "errors": [], "warnings": warnings, "settings": _as_data(settings)})
    else:
        _print(target, settings, warnings)


def _warnings(server: Server) -> list[str]:
    """What lets the server run, and is hardly meant."""
    found = variable_warnings(os.environ)
    if not server.namespaces:
        found.append('no namespace is registered, so no client can connect: write root = server.namespace("/")')
    return found


def _as_data(settings: list[Setting]) -> dict[str, Any]:
    return {field: {"value": value, "default": default, "source": source} for field, value, default, source in settings}


def _print(target: str, settings: list[Setting], warnings: list[str]) -> None:
    for setting in settings:
        value, default = (msgspec.json.encode(item).decode() for item in (setting.value, setting.default))
        click.echo(f"{setting.field} = {value} from {setting.source} (default: {default})")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{target}: ok")
