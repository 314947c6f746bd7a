"""``bellwire publish``: emit an event from a shell."""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import click
import msgspec

from bellwire.cli.address import WrongUse, broker_of, broker_options, telling
from bellwire.cli.loading import LoadError, load_event
from bellwire.cli.routes import type_name
from bellwire.cli.told import print_json, told
from bellwire.core.errors import BellwireError
from bellwire.core.events import Event
from bellwire.emitter.emitter import Emitter
from bellwire.emitter.target import EmitterTarget
from bellwire.guard.packets import check_mid

AnyEvent: TypeAlias = Event[Any, *tuple[Any, ...]]

_STDIN: Final = "-"


@click.command("publish")
@click.argument("event", metavar="EVENT")
@click.argument("payload", metavar="[JSON]...", nargs=-1)
@broker_options
@click.option("--namespace", default="/", show_default=True, metavar="NAME", help="The namespace, such as /chat.")
@click.option("--to", "rooms", multiple=True, metavar="ROOM", help="A room, or a socket's id; may be repeated.")
@click.option("--user", "users", multiple=True, metavar="ID", help="A user's sockets; may be repeated.")
@click.option("--except", "excluded", multiple=True, metavar="ROOM", help="A room or socket that does not get it.")
@click.option("--mid", metavar="ID", help="Name the message: what is published again under it is not doubled.")
@click.option("--untyped", is_flag=True, help="EVENT is a name, and the payload goes out as it is given.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    event: str,
    payload: tuple[str, ...],
    broker: str | None,
    prefix: str | None,
    toml: Path | None,
    namespace: str,
    rooms: tuple[str, ...],
    users: tuple[str, ...],
    excluded: tuple[str, ...],
    mid: str | None,
    untyped: bool,
    as_json: bool,
) -> None:
    r"""Send an event to the clients of all servers.

    EVENT is MODULE:EVENT: "chat.events:SENT" is the variable "SENT" in the module "chat.events". Each JSON is one
    argument of it, checked against its type; "-" reads one from standard input. It goes to everyone in the namespace,
    or to the rooms and users that are named.

    \b
    bellwire publish chat.events:SENT '{"author": "ada", "text": "hello"}' --namespace /chat --to room:lobby
    """
    with told(as_json=as_json):
        try:
            settings = broker_of(broker, prefix, toml)
            found = _untyped(event, payload) if untyped else _load(event)
            arguments = _arguments(found, payload)
            emitter = Emitter(settings.broker, prefix=settings.prefix)
            target = _target(emitter, namespace, rooms, users, excluded)
            check_mid(found, mid)
            asyncio.run(_publish(emitter, settings.broker, target, found, arguments, mid))
        except BellwireError as error:
            raise click.ClickException(str(error)) from None
        except (TypeError, ValueError) as error:  # a name or an id has the wrong form
            raise WrongUse(str(error)) from None
    whom = [*rooms, *(f"user {user}" for user in users)]
    if as_json:
        print_json({"ok": True, "event": found.name, "namespace": namespace, "to": whom, "mid": mid})
    else:
        click.echo(f"Published {found.name} to {', '.join(whom) or 'everyone'} in {namespace}")


async def _publish(
    emitter: Emitter, url: str, target: EmitterTarget, event: AnyEvent, arguments: list[Any], mid: str | None
) -> None:
    async with telling(url), emitter:
        await target.emit(event, *arguments, mid=mid)


def _load(target: str) -> AnyEvent:
    try:
        return load_event(target)
    except LoadError as error:
        if error.traceback is None:
            message = f"{error.message}. To publish an event by its name alone, give --untyped"
            raise type(error)(message) from None
        raise


def _untyped(name: str, payload: tuple[str, ...]) -> AnyEvent:
    return cast("AnyEvent", cast("Any", Event)(name, *[Any] * len(payload)))


def _arguments(event: AnyEvent, payload: tuple[str, ...]) -> list[Any]:
    types = event.payload_types
    if len(payload) != len(types):
        takes = f"{len(types)} argument{'s' * (len(types) != 1)} ({', '.join(map(type_name, types)) or 'none'})"
        raise WrongUse(f"{event.name!r} takes {takes}, and not {len(payload)}: give each as one JSON text")
    if payload.count(_STDIN) > 1:
        raise WrongUse("'-' stands twice: standard input is one argument")
    return [_argument(event, place, text) for place, text in enumerate(payload)]


def _argument(event: AnyEvent, place: int, text: str) -> Any:
    where = f"argument {place + 1} of {event.name!r}"
    try:
        return msgspec.json.decode(sys.stdin.read() if text == _STDIN else text, type=event.payload_types[place])
    except msgspec.ValidationError as error:
        raise WrongUse(f"{where}: {error}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise WrongUse(
            f"{where} is no JSON: {error}. Put it into single quotes for the shell, and text into double quotes within "
            "them: '\"hello\"'"
        ) from None


def _target(
    emitter: Emitter, namespace: str, rooms: tuple[str, ...], users: tuple[str, ...], excluded: tuple[str, ...]
) -> EmitterTarget:
    target = emitter.namespace(namespace)
    if rooms:
        target = target.to(*rooms)
    for user in users:
        target = target.user(user)
    return target.except_(*excluded)
