"""What is wrong, in the form that was asked for: one line on standard error, or with ``--json`` an object on output."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec


@contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """With ``as_json`` print an error within the block as an object, and exit with its code."""
    try:
        yield
    except click.ClickException as error:
        if not as_json:
            raise
        report = {"ok": False, "errors": [error.format_message()]}
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
        raise click.exceptions.Exit(error.exit_code) from None
