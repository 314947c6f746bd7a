"""``bellwire bench``: how much this machine, or a server that runs, carries."""

import json
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import click

from bellwire.cli.address import GIVES_UP, WrongUse
from bellwire.cli.settings import settings_flags
from bellwire.cli.told import fail, print_json, told
from bellwire.load import machine
from bellwire.load.clients import CLIENTS
from bellwire.load.machine import Machine
from bellwire.load.processes import HOST, REFUSED, ProcessError, measure, running
from bellwire.load.program import NAMESPACE
from bellwire.load.result import CPU, IDLE_CPU, MEMORY, P50, P99, RATE, SATURATED, Found

BUILT_IN: Final = "bellwire.load.program:server"
PACKAGES: Final = ("bellwire", "uvicorn", "uvloop", "msgspec")


LONGEST: Final = 100.0
"""Seconds of one measurement: fan-out takes two, and a load generator is given up after `LOADING`."""


def _seconds(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 < value <= LONGEST:  # nor is nan
        raise click.BadParameter(
            f"{value:g} is no length of a measurement: write 0.1, or up to {LONGEST:g}", ctx, param
        )
    return value


class Served(NamedTuple):
    """A server that is measured; its process is known if it was started here."""

    host: str
    port: int
    process: int | None


@click.command("bench")
@click.argument("target", metavar="[MODULE:SERVER]", required=False)
@click.option("--url", metavar="URL", help="Measure a server that runs, such as http://10.0.0.5:8000, instead.")
@click.option("--connections", type=click.IntRange(1), default=1000, show_default=True, help="How many clients come.")
@click.option("--size", type=click.IntRange(8, 60_000), default=128, show_default=True, help="Bytes of a message.")
@click.option("--seconds", type=float, callback=_seconds, default=2.0, show_default=True, help="Of each load.")
@click.option(
    "--client",
    type=click.Choice([name for name in CLIENTS if name != "raw"]),
    default="stock",
    show_default=True,
    help="What the clients speak: Socket.IO, the same with connection state recovery, or bellwire.v1.",
)
@click.option(
    "--namespace",
    metavar="NAME",
    help="Where clients come to be counted and weighed, such as /chat. Without it that is a namespace of the command's "
    "own, and / with --url.",
)
@click.option("--auth", metavar="JSON", help='What clients say to be let in, such as \'{"token": "..."}\'.')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_flags
def command(
    target: str | None,
    url: str | None,
    connections: int,
    size: int,
    seconds: float,
    client: str,
    namespace: str | None,
    auth: str | None,
    as_json: bool,
    toml: Path | None,
    **flags: Any,
) -> None:
    """Measure fan-out, round trips, connections and memory.

    Serves MODULE:SERVER, or a small application that comes with the package, on one core, with settings as "bellwire
    run" takes them, and puts load on it from another one. Takes some 20 seconds. Close what else runs on the machine.
    """
    common = ["--client", client, "--seconds", str(seconds), "--size", str(size)]
    common += [] if auth is None else ["--auth", _checked(auth)]
    with told(as_json=as_json):
        try:
            with _served(target, url, toml, flags) as served:
                run = _Run(served, common, quiet=as_json)
                run.all(connections, namespace or ("/" if url else NAMESPACE))
            run.end(url or target or BUILT_IN)
        except ProcessError as error:
            fail(cause_of(error), error.code or 1, as_json=as_json)


class _Run:
    """Measures, and tells what was found: each figure at once, or all in the end."""

    def __init__(self, served: Served, common: list[str], *, quiet: bool) -> None:
        self._served, self._common, self._quiet = served, common, quiet
        self._machine: Machine = machine.describe(PACKAGES)
        self._found: list[Found] = []
        self._skipped: dict[str, str] = {}

    def all(self, connections: int, namespace: str) -> None:
        """Measure everything that can be measured there."""
        self._tell(f"{self._machine.cpu}, {self._machine.cores} cores; {self._machine.system}; {self._machine.python}")
        if self._machine.busy:
            self._tell(f"Mind: others are computing on this machine (load average {self._machine.load_before:.1f}).")
        if self._served.process is not None:
            self._measure("idle", connections, namespace, "--seconds", "1")
        self._measure("connecting", min(connections, 500), namespace)
        for crowd in sorted({1, min(connections, 100)}):
            self._measure("roundtrips", crowd, NAMESPACE)
        self._measure("fanout", connections, NAMESPACE, "--windows", "1,32")

    def _measure(self, work: str, connections: int, namespace: str, *more: str) -> None:
        host, port, process = self._served
        _, core = machine.cores()
        words = [work, "--host", host, "--connections", str(connections), "--namespace", namespace]
        try:
            found = measure([*words, *self._common, *more], port, process, core)
        except ProcessError as error:
            if error.code != REFUSED:
                raise
            remedy = self._remedy(namespace, error.message)
            self._skip(work, f"{error.message}. {remedy}" if remedy else error.message)
            return
        self._found += found
        for result in found:
            self._tell(_line(result))

    def _remedy(self, namespace: str, why: str) -> str:
        if "Invalid namespace" in why:
            return _ELSEWHERE if namespace == NAMESPACE else _OTHERS
        return "" if "--auth" in self._common else _AUTH

    def _skip(self, work: str, why: str) -> None:
        self._skipped[work] = why
        self._tell(f"{work} was not measured: {why}")

    def _tell(self, line: str) -> None:
        if not self._quiet:
            click.echo(line)

    def end(self, what: str) -> None:
        """Say what remains to be said.

        Raises:
            ClickException: nothing was measured.

        """
        if not self._found:
            raise click.ClickException(f"nothing was measured: {next(iter(self._skipped.values()))}")
        if any(result.busy >= SATURATED for result in self._found):
            self._tell("* The load generator used its whole core: the server may be faster than this.")
        if self._quiet:
            print_json(
                {
                    "ok": True,
                    "server": what,
                    "machine": self._machine,
                    "results": [_as_data(result) for result in self._found],
                    "skipped": self._skipped,
                }
            )


_FIGURES: Final = {
    RATE: "per second",
    P50: "p50 {:.2f} ms",
    P99: "p99 {:.2f} ms",
    CPU: "{:.2f} us of the server each",
    MEMORY: "bytes each",
    IDLE_CPU: "{:.1f} % of a core for all",
}
_ELSEWHERE: Final = f"That needs the namespace {NAMESPACE}, which `bellwire run {BUILT_IN}` serves"
_OTHERS: Final = "Name with --namespace one that it serves"
_AUTH: Final = "Say with --auth what its clients have to say to be let in"


@contextmanager
def _served(target: str | None, url: str | None, toml: Path | None, flags: dict[str, Any]) -> Iterator[Served]:
    """The server that is meant, started if it does not run.

    Raises:
        WrongUse: nobody can know which one that is, or it cannot be measured.
        ProcessError: it did not start.

    """
    if not hasattr(select, "epoll"):
        raise WrongUse("the load generator needs epoll, and so Linux")
    given = {name: value for name, value in flags.items() if value is not None}
    if url is not None:
        if target is not None or toml is not None or given:
            raise WrongUse("a server that runs has its settings: give --url, or MODULE:SERVER and settings")
        yield _address(url)
        return
    command = [sys.executable, "-m", "bellwire.cli.measured", target or BUILT_IN, "{port}", json.dumps(given)]
    command += [] if toml is None else ["--config", str(toml)]
    core, _ = machine.cores()
    with running("the server", command, core, ready="Bellwire serves", hear=_pass_on) as (port, process):
        yield Served(HOST, port, process)


def _pass_on(line: str) -> None:
    """Let whoever waits for the server know that it waits for its broker; why it ends is told in the end."""
    if GIVES_UP in line:
        click.echo(line, err=True)


def cause_of(error: ProcessError) -> str:
    """What to say of it: a server that ended has said it already, one that waits has said why again and again."""
    if error.code is not None:
        return (error.said or error.message).removeprefix("Error: ")
    lines = error.said.splitlines()
    causes = [why for line in lines if (why := line.partition(f"{GIVES_UP}: ")[2])] or lines
    return ": ".join([error.message, *causes[-1:]])


def _address(url: str) -> Served:
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and not parts.path.strip("/"):
            return Served(parts.hostname, parts.port or 80, None)
    except ValueError:  # a port that is none
        pass
    raise WrongUse(
        f"{url!r} cannot be measured: write http://HOST:PORT. The load generator speaks no TLS: name the port that is "
        "behind the proxy"
    )


def _checked(auth: str) -> str:
    try:
        json.loads(auth)
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="--auth") from None
    return auth


def _line(result: Found) -> str:
    star = "*" if result.busy >= SATURATED else " "
    (main, first), *others = result.figures.items()
    more = ", ".join(_FIGURES[name].format(value) for name, value in others if name != CPU or value)
    title = f"{result.shape.title[0].upper()}{result.shape.title[1:]}"
    return f"{title:60}{first:>12,.0f} {_FIGURES[main]}{star} {more}"


def _as_data(result: Found) -> dict[str, Any]:
    return {
        "title": result.shape.title,
        **result.shape._asdict(),
        "figures": result.figures,
        "load_busy": result.busy,
        "saturated": result.busy >= SATURATED,
    }
