"""``bellwire run``: serve an application."""

from pathlib import Path
from typing import Any

import click

from bellwire.cli.loading import load_server
from bellwire.cli.settings import settings_flags


@click.command("run")
@click.argument("target", metavar="MODULE:SERVER")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@settings_flags
def command(target: str, host: str, port: int, toml: Path | None, **flags: Any) -> None:
    """Serve MODULE:SERVER until Ctrl+C or SIGTERM.

    Clients are told when the server stops, and come back by themselves; a second Ctrl+C does not wait for anybody.
    """
    from bellwire.cli.serve import serve

    serve(
        load_server(target),
        host=host,
        port=port,
        toml=toml,
        flags=flags,
        ready=lambda url: click.echo(f"Bellwire serves {target} on {url} (Ctrl+C stops it)"),
    )
