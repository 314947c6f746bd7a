"""Finding what ``MODULE:SERVER`` or ``MODULE:EVENT`` names, with errors that say what to write instead."""

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import IO, Any

import click

from bellwire.cli.tracebacks import format_user_traceback
from bellwire.core.events import Event
from bellwire.server.namespace import Namespace
from bellwire.server.server import Server


class LoadError(click.ClickException):
    """The command line names nothing there is; ``traceback`` is shown first if the application's own code failed."""

    def __init__(self, message: str, *, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback

    def show(self, file: IO[Any] | None = None) -> None:
        """Print to ``file``, standard error by default."""
        if self.traceback is not None:
            click.echo(self.traceback, file=file, err=file is None)
        super().show(file)


class TargetError(LoadError):
    """What the command line names has not even the form of such a name."""

    exit_code = 2


def load_server(target: str) -> Server:
    """Import the server that ``target``, ``"package.module:name"``, stands for; the working directory comes first.

    Raises:
        TargetError: it is not of this form.
        LoadError: there is no such module or name, its import fails, or it is no :class:`Server`.

    """
    module_name, attribute = _split(target)
    if not _is_dotted(module_name) or not _is_dotted(attribute):
        raise TargetError(f"{target!r} is not MODULE:SERVER: {_rewritten(module_name, attribute)}")
    module = _import(module_name)
    return _server(module, _look_up(module, attribute, _suggestion), attribute)


def load_event(target: str) -> Event[Any, *tuple[Any, ...]]:
    """Import the `Event` that ``target``, ``"package.module:NAME"``, stands for; the working directory comes first.

    Raises:
        TargetError: it is not of this form.
        LoadError: there is no such module or name, its import fails, or it is no `Event`.

    """
    module_name, attribute = _split(target)
    if not _is_dotted(module_name) or not _is_dotted(attribute):
        raise TargetError(
            f"{target!r} is not MODULE:EVENT: write chat.events:SENT for the variable 'SENT' in the module "
            "'chat.events'"
        )
    module = _import(module_name)
    found = _look_up(module, attribute, _events)
    if not isinstance(found, Event):
        what = f"{module_name}:{attribute} is no Event but of the type {type(found).__name__}"
        raise LoadError(f"{what}: {_events(module)}")
    return found


def _split(target: str) -> tuple[str, str]:
    module, _, attribute = target.partition(":")
    return module, attribute


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _rewritten(module: str, attribute: str) -> str:
    """What was probably meant: a file's path stands for a module's name, and most servers are named ``server``."""
    guess = module.removeprefix("./").removesuffix(".py").replace("\\", ".").replace("/", ".")
    if _is_dotted(guess):
        return f"write {guess}:{attribute if _is_dotted(attribute) else 'server'}"
    return "write chat.server:server for the variable 'server' in the module 'chat.server'"


def _import(name: str) -> ModuleType:
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise LoadError(_not_found(name, error.name)) from None
        raise _failed(name, error) from None
    except SystemExit as error:
        raise LoadError(
            f"importing {name} ends the program (SystemExit: {error}): put what is to run only as a script under "
            'if __name__ == "__main__":'
        ) from None
    except Exception as error:
        raise _failed(name, error) from None


def _failed(name: str, error: Exception) -> LoadError:
    return LoadError(
        f"importing {name} failed, see above: the error is in the application's own code",
        traceback=format_user_traceback(error),
    )


def _not_found(name: str, missing: str) -> str:
    parent, _, leaf = missing.rpartition(".")
    if parent:
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None:
            return f"there is no module {name!r}: {parent!r} is a module and not a package, so nothing is inside it"
    else:
        path = [os.getcwd()]
    near = difflib.get_close_matches(leaf, [module.name for module in pkgutil.iter_modules(path)], n=1)
    if near:
        meant = f"{parent}.{near[0]}" if parent else near[0]
        return f"there is no module {missing!r}: did you mean {meant!r}?"
    where = f"in the package {parent!r}" if parent else f"in {os.getcwd()} or among the installed packages"
    return f"there is no module {missing!r} {where}: run the command where the application's top folder is"


def _look_up(module: ModuleType, attribute: str, suggestion: Callable[[ModuleType], str]) -> object:
    found: object = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadError(f"the module {module.__name__!r} has no {attribute!r}: {suggestion(module)}") from None
    return found


def _events(module: ModuleType) -> str:
    events = [f"{module.__name__}:{name}" for name, value in vars(module).items() if isinstance(value, Event)]
    if not events:
        return "it has no bellwire.Event at all; name the module where the events are declared"
    return f"its events are {', '.join(events)}" if len(events) > 1 else f"did you mean {events[0]}?"


def _servers(module: ModuleType) -> dict[str, Server]:
    return {f"{module.__name__}:{name}": value for name, value in vars(module).items() if isinstance(value, Server)}


def _suggestion(module: ModuleType) -> str:
    servers = _servers(module)
    if servers:
        return f"its servers are {', '.join(servers)}" if len(servers) > 1 else f"did you mean {next(iter(servers))}?"
    return "it has no bellwire.Server at all; make one with server = Server()"


def _server(module: ModuleType, found: object, attribute: str) -> Server:
    if isinstance(found, Server):
        return found
    what = f"{module.__name__}:{attribute} is"
    if isinstance(found, Namespace):
        raise LoadError(f"{what} a Namespace, which is served as a part of its server: {_suggestion(module)}")
    if isinstance(found, type):
        raise LoadError(f"{what} a class: name an object, made with server = Server()")
    if _is_application(found):
        raise LoadError(f"{what} another ASGI application ({type(found).__name__}), {_beside(module, attribute)}")
    if callable(found):
        raise LoadError(f"{what} a function: call it in the module, server = {attribute}(), and name the result")
    raise LoadError(f"{what} no bellwire.Server but of the type {type(found).__name__}: {_suggestion(module)}")


def _beside(module: ModuleType, attribute: str) -> str:
    """How another application is served. A server without an ``http`` may be mounted in it; alone it has no pages."""
    here, servers = f"{module.__name__}:{attribute}", _servers(module)
    joined = [name for name, server in servers.items() if server.http is not None]
    if joined:
        return f"which cannot be served natively: did you mean {' or '.join(joined)}?"
    join = f"to serve both natively, join them with server = Server(http={attribute}) and run that server"
    if servers:
        return f"which cannot be served natively: a Server that is mounted is served with `uvicorn {here}`; {join}"
    return f"which cannot be served natively: serve it as it is with `uvicorn {here}`; {join}"


def _is_application(value: object) -> bool:
    """Whether it could be an ASGI application or a middleware: an object, not a function, that can be called."""
    return callable(value) and not hasattr(value, "__qualname__")
