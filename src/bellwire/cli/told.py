"""What ``--json`` prints: what was found, and what is wrong, which is one line on standard error without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

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
        fail(error.format_message(), error.exit_code, as_json=True)


def fail(message: str, code: int, *, as_json: bool) -> NoReturn:
    """Say what is wrong, and exit with ``code``."""
    if as_json:
        print_json({"ok": False, "errors": [message]})
    else:
        click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(code) from None


def print_json(value: object) -> None:
    """Print it, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())
