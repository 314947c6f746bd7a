"""Taking the address to listen on, before anything else is started."""

import errno
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from bellwire.core.config import Config
from bellwire.guard.proxies import is_local

F = TypeVar("F", bound=Callable[..., Any])

_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class BindError(click.ClickException):
    """The address cannot be listened on; the message names the port and the remedy."""


class ExposedError(click.ClickException):
    """Other machines could reach the server without TLS; the message says what there is to choose from."""

    exit_code = 2


def port_option(command: F) -> F:
    """Add ``--port``, which the variable ``PORT`` stands in for; the command gets it as a number."""
    return click.option(
        "--port",
        metavar="NUMBER",
        callback=_port,
        default="8000",
        show_default=True,
        envvar="PORT",
        show_envvar=True,
        help="Port to listen on; 0 takes a free one.",
    )(command)


def _port(ctx: click.Context, param: click.Parameter, value: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", value) or int(value) > 65535:
        by_variable = ctx.get_parameter_source("port") is ParameterSource.ENVIRONMENT
        raise click.BadParameter(
            f"{value!r} is no port: write a number from 0 to 65535, such as 8000",
            ctx,
            param,
            "the variable PORT" if by_variable else "--port",
        )
    return int(value)


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Bind a socket to each address of ``host``; nobody can connect until they listen.

    Port 0 takes a free one, the same for all addresses. A ``shared`` address may be bound again by others of this user
    who share it as well, and the kernel deals connections out among those that listen (socket(7), SO_REUSEPORT).

    Raises:
        BindError: the host is unknown or is not this machine, or the port is taken or reserved.

    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise BindError(f"{host!r} is no address of this machine ({error}): choose another one with --host") from None
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    for family, *_, address in dict.fromkeys(infos):
        taken = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bind(family, (address[0], taken, *address[2:]), shared))
        except OSError as error:
            refusal = error
            if error.errno not in _ABSENT:
                break
    if refusal is not None and (not sockets or refusal.errno not in _ABSENT):
        for bound in sockets:
            bound.close()
        raise refused(host, port, refusal)
    return sockets


def reserve(host: str, port: int) -> list[socket.socket]:
    """Bind as `bind` does, and let nobody share the address but those who come from now on. Raises as it does."""
    sockets = bind(host, port)
    for bound in sockets:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sockets


def _bind(family: int, address: tuple[object, ...], shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix" and sys.platform != "cygwin":  # elsewhere it would let two programs share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def refused(host: str, port: int, error: OSError) -> BindError:
    """What to tell when the system refuses an address."""
    if error.errno == errno.EADDRINUSE:
        return BindError(
            f"port {port} of {host} is in use: stop the program that has it, or choose another one with --port "
            "(0 takes a free one)"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return BindError(f"port {port} is reserved for privileged programs: choose one from 1024 on with --port")
    if error.errno in _ABSENT:
        return BindError(f"{host} is no address of this machine: choose another one with --host, such as 127.0.0.1")
    return BindError(f"port {port} of {host} cannot be listened on: {error.strerror}")


def url_of(host: str, bound: socket.socket, *, tls: bool = False) -> str:
    """The address for people: the host as they wrote it, and the port that was taken."""
    scheme, port = "https" if tls else "http", bound.getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def check_exposure(host: str, sockets: Sequence[socket.socket], config: Config) -> None:
    """See to it that what clients say cannot be read on the way to ``sockets``.

    Raises:
        ExposedError: other machines can reach one of them, and there is neither TLS nor a proxy to have ended it.

    """
    if config.tls_cert or config.behind_proxy:
        return
    if not all(is_local(bound.getsockname()[:2]) for bound in sockets):
        raise ExposedError(
            f"{host} can be reached from other machines, and without TLS everybody on the way could read what is said: "
            "give --tls-cert and --tls-key; or, where a proxy ends TLS, --behind-proxy with its address, among "
            "containers with their network (--behind-proxy 172.17.0.0/16); or listen on 127.0.0.1"
        )
