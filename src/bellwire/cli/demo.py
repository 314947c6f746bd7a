"""``bellwire demo``: serve the chat that comes with the package."""

import click

from bellwire.cli.binding import BindError, ExposedError, port_option
from bellwire.cli.loading import load_server


@click.command("demo")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine to listen on.")
@port_option
def command(host: str, port: int) -> None:
    """Serve a chat to try Bellwire with: open its page in two tabs."""
    from bellwire.cli.serve import serve

    try:
        serve(
            load_server("bellwire.demo.chat:server"),
            host=host,
            port=port,
            ready=lambda url: click.echo(f"Open {_to_open(url)} in two tabs (Ctrl+C stops the chat)"),
        )
    except ExposedError:
        raise ExposedError(
            f"the demo has no TLS, and {host} can be reached from other machines: to show it to others, take "
            f"bellwire run bellwire.demo.chat:server --host {host} --tls-cert cert.pem --tls-key key.pem"
        ) from None
    except BindError as error:
        raise BindError(f"{error.message}; for make demo, write PORT=8001 make demo") from None


def _to_open(url: str) -> str:
    """A browser cannot open the address that stands for all addresses."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
