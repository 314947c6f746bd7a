"""``bellwire tail``: see what goes through rooms while it does."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
import msgspec

from bellwire.brokers.guest import visit
from bellwire.brokers.tap import Item, Tap
from bellwire.cli.address import Waiting, WrongUse, broker_of, broker_options, telling
from bellwire.core.config import Config, shown
from bellwire.core.counters import Counters
from bellwire.core.errors import BellwireError
from bellwire.delivery.answer import Reason
from bellwire.delivery.entry import Entry
from bellwire.delivery.naming import EVERYONE, Key, User, direct_of, stream_of
from bellwire.delivery.published import decode_published
from bellwire.guard.auth import require_user
from bellwire.guard.recipients import concrete_name
from bellwire.protocol.post import Post


@click.command("tail")
@broker_options
@click.option("--namespace", default="/", show_default=True, metavar="NAME", help="The namespace, such as /chat.")
@click.option("--room", "rooms", multiple=True, metavar="ROOM", help="A room; may be repeated.")
@click.option("--user", "users", multiple=True, metavar="ID", help="What is emitted to a user; may be repeated.")
@click.option("--history", type=click.IntRange(min=0), default=0, metavar="N", help="Begin with the last N of each.")
@click.option("--from-start", is_flag=True, help="Begin with all that the broker still has.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object in each line.")
def command(
    broker: str | None,
    prefix: str | None,
    toml: Path | None,
    namespace: str,
    rooms: tuple[str, ...],
    users: tuple[str, ...],
    history: int,
    from_start: bool,
    as_json: bool,
) -> None:
    """Print what is emitted, as it comes.

    What goes to the rooms and users that are named, or else to everyone in the namespace, until Ctrl+C. Nothing is left
    out: what was missed is read from the history, and where that is not possible a line says so.
    """
    if from_start and history:
        raise WrongUse("--from-start begins with all there is, and --history with the last of it: give one of the two")
    settings = broker_of(broker, prefix, toml)
    try:
        name, keys = concrete_name(namespace), list(_keys(rooms, users))
    except (TypeError, ValueError) as error:
        raise WrongUse(str(error)) from None
    teller = Teller(name, to_json if as_json else to_text)
    try:
        asyncio.run(_tail(settings, teller, keys, None if from_start else history))
    except BellwireError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(0) from None


def _keys(rooms: tuple[str, ...], users: tuple[str, ...]) -> Iterator[Key]:
    for room in dict.fromkeys(rooms):
        if direct_of(stream_of("/", room)) is not None:
            raise ValueError(f"{room!r} is a socket that does not recover, and has no stream of its own: name a room")
        yield room
    for user in dict.fromkeys(users):
        require_user(user, "--user")
        yield User(user)
    if not rooms and not users:
        yield EVERYONE


async def _tail(settings: Config, teller: "Teller", keys: list[Key], history: int | None) -> None:
    url = settings.broker
    async with AsyncExitStack() as stack:
        async with telling(url):
            broker = await stack.enter_async_context(visit(url, Counters(), prefix=settings.prefix))
        away = Waiting(url).tell
        taps = [Tap(broker, stream_of(teller.namespace, key), partial(teller.tell, whom(key)), away) for key in keys]
        following = f"{', '.join(map(whom, keys))} in {teller.namespace} on {shown('broker', url)}"
        await asyncio.gather(*(tap.run(history) for tap in taps), _announce(taps, following))


async def _announce(taps: list[Tap], following: str) -> None:
    for tap in taps:
        await tap.following.wait()
    click.echo(f"Following {following} (Ctrl+C stops it)", err=True)


class Line(msgspec.Struct, omit_defaults=True):
    """What is printed for one event, or for a place where some may be missing."""

    time: str
    to: str
    """The room, ``user ID``, or ``everyone``."""
    event: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"")
    """The arguments, a JSON array; bytes as base64."""
    mid: str = ""
    """The message's id, empty for what is in no history."""
    volatile: bool = False
    excluded: tuple[str, ...] = ()
    """The rooms and sockets that do not get it."""
    reset: str = ""
    """Why events may be missing, or come again, from here on."""


class Teller:
    """Prints what goes through the streams of a namespace."""

    def __init__(self, namespace: str, form: Callable[[Line], str]) -> None:
        self.namespace = namespace
        self._form = form

    def tell(self, to: str, item: Item) -> None:
        """Print an ``item`` of the stream of those named ``to``."""
        try:
            line = self._line(to, item)
        except Exception:  # whoever reaches the broker can write anything
            click.echo(f"{to}: something that this version of Bellwire does not read", err=True)
        else:
            click.echo(self._form(line))

    def _line(self, to: str, item: Item) -> Line:
        if isinstance(item, Reason):
            return Line(_time(time.time()), to, reset=item.value)
        if isinstance(item, Entry):
            post = Post.read(self.namespace, item.body)
            return Line(_time(item.at), to, post.name, post.json_args, item.mid, excluded=item.excluded)
        published = decode_published(item)
        post = Post.read(self.namespace, published.body)
        excluded, volatile = published.excluded, published.volatile
        return Line(_time(time.time()), to, post.name, post.json_args, volatile=volatile, excluded=excluded)


def whom(key: Key) -> str:
    """How those are named who get what is emitted to ``key``."""
    return key if isinstance(key, str) else f"user {key.id}" if isinstance(key, User) else "everyone"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(line: Line) -> str:
    """Return it for programs."""
    return msgspec.json.encode(line).decode()


def to_text(line: Line) -> str:
    """Return it for people."""
    if line.reset:
        return printable(f"{line.time} {line.to} -- reset ({line.reset}): events may be missing here, or come again --")
    volatile = " (volatile)" if line.volatile else ""
    excluded = f" (not to {', '.join(line.excluded)})" if line.excluded else ""
    arguments = bytes(line.payload)[1:-1].decode()
    return printable(f"{line.time} {line.to} {line.event} {arguments}".rstrip() + volatile + excluded)


def printable(text: str) -> str:
    """Return ``text`` with escapes for what could do something to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
