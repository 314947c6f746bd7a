"""The command ``bellwire``: one file per subcommand.

Exit codes: 0 done, 1 it cannot be done, 2 the command line or a setting is wrong, 3 the application failed to start or
at its end, 130 a second Ctrl+C cut the shutdown short.
"""

import click

from bellwire.cli import bench, check, demo, doctor, publish, routes, run, tail, token

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bellwire", message="%(package)s %(version)s")
def main() -> None:
    """Serve Socket.IO and WebSocket clients from Python.

    MODULE:SERVER names a bellwire.Server: "chat.server:server" is the variable "server" in the module "chat.server".
    The working directory is importable.
    """


for _module in (run, check, doctor, routes, publish, tail, bench, token, demo):
    main.add_command(_module.command)
