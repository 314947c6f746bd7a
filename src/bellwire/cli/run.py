"""``bellwire run``: serve an application."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from bellwire.cli.binding import port_option
from bellwire.cli.loading import load_server
from bellwire.cli.logs import LEVELS
from bellwire.cli.settings import settings_flags, variable_warnings


@click.command("run")
@click.argument("target", metavar="MODULE:SERVER")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@port_option
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that serve on the port. With more than one they meet at the broker; without --broker that is a "
    "private nats-server.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    metavar="DIR",
    callback=lambda _context, _option, value: _directory(value),
    help="Keep messages, sessions and rooms in DIR, over restarts and crashes, with a private nats-server in place of "
    "--broker.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    help="Least level of Bellwire's records on standard error; debug has one for each refusal. An application that "
    "sets logging up by itself decides that instead.",
)
@settings_flags
def command(
    target: str,
    host: str,
    port: int,
    workers: int,
    data: Path | None,
    log_level: str,
    toml: Path | None,
    **flags: Any,
) -> None:
    """Serve MODULE:SERVER until Ctrl+C or SIGTERM.

    Clients are told when the server stops, and come back by themselves; a second Ctrl+C does not wait for anybody.
    """
    for warning in variable_warnings(os.environ):
        click.echo(f"warning: {warning}", err=True)
    if workers > 1:
        if not sys.platform.startswith("linux"):
            raise click.UsageError("--workers above 1 needs Linux: only there does the kernel deal connections out")
        from bellwire.cli.supervisor import supervise
        from bellwire.cli.worker import Order

        supervise(
            Order(target=target, host=host, port=port, data=data, log_level=log_level, toml=toml, flags=flags),
            workers,
            ready=lambda url: click.echo(
                f"Bellwire serves {target} on {url} with {workers} workers (Ctrl+C stops them)"
            ),
        )
        return
    from bellwire.cli.serve import serve

    serve(
        load_server(target),
        host=host,
        port=port,
        toml=toml,
        flags=flags,
        data=data,
        log_level=log_level,
        ready=lambda url: click.echo(f"Bellwire serves {target} on {url} (Ctrl+C stops it)"),
    )


def _directory(value: str | None) -> Path | None:
    if value == "":
        raise click.BadParameter("it is empty: name a directory, such as ./data")
    return None if value is None else Path(value)
