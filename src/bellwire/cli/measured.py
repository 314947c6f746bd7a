"""The server of ``bellwire bench``: the application as ``bellwire run`` serves it, and a namespace that is measured.

``python -m bellwire.cli.measured MODULE:SERVER PORT SETTINGS``, where SETTINGS is a JSON object.
"""

import json
from pathlib import Path
from typing import Final

import click

from bellwire.cli.loading import load_server
from bellwire.cli.serve import serve
from bellwire.load.program import NAMESPACE, program

LIFTED: Final = {"connections_per_user": 0}
"""A thousand clients with one token are no attack here."""


@click.command("measured")
@click.argument("target", metavar="MODULE:SERVER")
@click.argument("port", type=int)
@click.argument("settings", type=json.loads)
@click.option("--config", "toml", type=click.Path(path_type=Path))
def main(target: str, port: int, settings: dict[str, object], toml: Path | None) -> None:
    """Serve on 127.0.0.1 until SIGTERM comes."""
    server = load_server(target)
    if NAMESPACE not in server.namespaces:
        server.include(program(NAMESPACE))
    serve(
        server,
        host="127.0.0.1",
        port=port,
        toml=toml,
        flags={**LIFTED, **settings},
        ready=lambda url: click.echo(f"Bellwire serves {target} on {url}"),
    )


if __name__ == "__main__":
    main()
