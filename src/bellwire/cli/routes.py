"""``bellwire routes``: what an application listens to and sends."""

from typing import Annotated, Any, Final, get_args, get_origin

import click
import msgspec

from bellwire.cli.loading import load_server
from bellwire.cli.told import print_json
from bellwire.core.events import Event, PlainText, RichText
from bellwire.server.namespace import Namespace
from bellwire.server.server import Server

_MARKS: Final = {"PlainText": get_args(PlainText)[1], "RichText": get_args(RichText)[1]}
"""What marks a str as one of them, whatever other constraints there are."""


class Route(msgspec.Struct, frozen=True):
    """One event of a namespace, its types in words."""

    event: str
    payload: tuple[str, ...]
    reply: str | None
    volatile: bool
    rate: str | None


class Routes(msgspec.Struct, frozen=True):
    """One namespace: what clients may send in it, and what the server sends."""

    namespace: str
    handled: tuple[Route, ...]
    emitted: tuple[Route, ...]


@click.command("routes")
@click.argument("target", metavar="MODULE:SERVER")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with an object for each namespace.")
def command(target: str, as_json: bool) -> None:
    """List the namespaces and events of MODULE:SERVER.

    With each event come the types of its payload and of its reply.
    """
    routes = routes_of(load_server(target))
    if as_json:
        print_json(routes)
    elif routes:
        _print(routes)
    else:
        click.echo(f"{target} has no namespaces.")


def routes_of(server: Server) -> list[Routes]:
    """What ``server`` has registered, in the order in which it was."""
    return [_of_namespace(namespace) for namespace in server.namespaces.values()]


def _of_namespace(namespace: Namespace) -> Routes:
    return Routes(namespace.name, tuple(map(_route, namespace.events)), tuple(map(_route, namespace.emits)))


def _route(event: Event[Any, *tuple[Any, ...]]) -> Route:
    reply = None if event.reply is None else type_name(event.reply)
    return Route(event.name, tuple(map(type_name, event.payload_types)), reply, event.volatile, event.rate)


def type_name(type_: Any) -> str:
    """A type as people write it: ``list[Draft]``, ``str | None``; constraints are left out."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        marked = next((name for name, mark in _MARKS.items() if mark in arguments), None)
        return marked or type_name(arguments[0])
    if isinstance(type_, type) and origin is None:
        return "None" if type_ is type(None) else type_.__qualname__
    if not arguments:
        return str(type_).removeprefix("typing.")
    if isinstance(origin, type) and origin.__module__ != "types":
        return f"{origin.__qualname__}[{', '.join(map(_argument, arguments))}]"
    if str(origin) == "typing.Literal":
        return " | ".join(map(repr, arguments))
    return " | ".join(map(type_name, arguments))


def _argument(type_: Any) -> str:
    return "..." if type_ is ... else type_name(type_)


def _print(routes: list[Routes]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("namespace", "", "event", "payload", "reply", "rate", "volatile", box=None, pad_edge=False)
    for namespace in routes:
        rows = [("handles", route) for route in namespace.handled] + [("emits", route) for route in namespace.emitted]
        for position, (verb, route) in enumerate(rows):
            name = namespace.namespace if position == 0 else ""
            cells = (
                name,
                verb,
                route.event,
                ", ".join(route.payload) or "-",
                route.reply or "-",
                route.rate or "-",
                "yes" if route.volatile else "-",
            )
            table.add_row(*map(Text, cells))
        if not rows:
            table.add_row(Text(namespace.namespace), Text("no events", style="dim"))
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a program that reads the lines wants them whole
    console.print(table)
