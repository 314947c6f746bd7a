"""What an application hands over to be called: whether it can be is found out then, and not at the first client.

Every error names the function, what is wrong with it, and what to write.
"""

import inspect
import keyword
from collections.abc import Callable, Collection, Iterable
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin

_USUAL_NAMES: Final = {
    str: "text",
    int: "number",
    float: "number",
    bool: "flag",
    bytes: "data",
    list: "items",
    dict: "fields",
}
_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def check_async(function: Callable[..., Any], where: str) -> None:
    """Raise :class:`TypeError` unless calling ``function`` gives something to await."""
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(f"{where} takes an async function: write 'async def {short_name(function)}'")


def check_handler(function: Callable[..., Any], arguments: Collection[str], where: str) -> None:
    """Raise :class:`TypeError` unless ``function`` is async and can be called with these positional arguments."""
    check_async(function, where)
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments)
    except TypeError:
        written = f"write async def {short_name(function)}({', '.join(arguments)})"
        raise TypeError(
            f"{where}: handler {short_name(function)} takes {_taken(signature.parameters.values())} "
            f"and is called with {len(arguments)}: {written}"
        ) from None


def check_any_handler(function: Callable[..., Any], where: str) -> None:
    """Raise :class:`TypeError` unless ``function`` is async and takes a socket, a name, and a payload of any length."""
    check_async(function, where)
    signature = inspect.signature(function)
    try:
        signature.bind("socket", "name")
        takes_all = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in signature.parameters.values())
    except TypeError:
        takes_all = False
    if not takes_all:
        name = short_name(function)
        raise TypeError(
            f"{where}: handler {name} takes {_taken(signature.parameters.values())} and is called with 2 and those "
            f"of the event, as many as they are: write async def {name}(socket, name, *payload)"
        )


def check_lifespan(function: Callable[..., Any], where: str) -> None:
    """Raise :class:`TypeError` unless ``function`` may give an async context manager when called with the server."""
    if not callable(function):
        raise TypeError(f"{where} takes a function of the server, not {type(function).__name__}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise no_manager(function, where)
    signature = inspect.signature(function)
    try:
        signature.bind("server")
    except TypeError:
        raise TypeError(
            f"{where}: {short_name(function)} takes {_taken(signature.parameters.values())} and is called with 1: "
            f"write async def {short_name(function)}(server)"
        ) from None


def no_manager(function: Callable[..., Any], where: str) -> TypeError:
    """The error of a lifespan whose call gives no async context manager."""
    name = short_name(function)
    return TypeError(
        f"{where}: {name} gives no async context manager: write @asynccontextmanager (of contextlib) above "
        f"async def {name}(server), and a yield inside"
    )


def payload_names(types: Iterable[Any]) -> tuple[str, ...]:
    """Names for a handler's arguments, made from the types of an event: ``draft`` for a ``Draft``."""
    names: list[str] = []
    for type_ in types:
        name = _name_for(type_)
        names.append(f"{name}{len(names) + 1}" if name in names else name)
    return tuple(names)


def _name_for(type_: Any) -> str:
    while get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    base = get_origin(type_) or type_
    if base in _USUAL_NAMES:
        return _USUAL_NAMES[base]
    name = getattr(base, "__name__", "").lower()
    usable = isinstance(base, type) and base is not UnionType and name.isidentifier() and not keyword.iskeyword(name)
    return name if usable else "value"


def short_name(function: object) -> str:
    """The name of a function; that of the class for another object that can be called; ``handler`` without any."""
    name = str(getattr(_inside(function), "__name__", type(function).__name__ if callable(function) else "handler"))
    return name if name.isidentifier() else "handler"


def full_name(function: object) -> str:
    """The name of a function with its module, as a traceback's reader looks for it: ``chat.server.send``."""
    inside = _inside(function)
    named: Any = inside if hasattr(inside, "__qualname__") else type(inside)
    return f"{named.__module__}.{named.__qualname__}"


def _inside(function: object) -> object:
    """The function of a ``functools.partial``."""
    return getattr(function, "func", function)


def _taken(parameters: Iterable[Parameter]) -> str:
    parameters = list(parameters)
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    least, most = sum(parameter.default is Parameter.empty for parameter in positional), len(positional)
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        text, most = f"at least {least}", least
    else:
        text = str(most) if least == most else f"{least} to {most}"
    text += " argument" if most == 1 else " arguments"
    by_name = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is Parameter.empty]
    return f"{text} and {', '.join(by_name)} by name" if by_name else text
