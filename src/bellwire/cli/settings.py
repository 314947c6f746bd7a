"""The settings as a command line gives them: a flag for each field of :class:`Config`, and who set what."""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

import click
import msgspec

from bellwire.core.config import ENVIRONMENT_PREFIX, Config, Option, config_options
from bellwire.core.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_METAVARS: Final[Mapping[Any, str]] = {str: "TEXT", int: "INTEGER", float: "NUMBER"}


class SettingsError(click.ClickException):
    """A setting is wrong; the message names the field, the value, where it came from and what would be right."""

    exit_code = 2


class Setting(NamedTuple):
    """One field with the value that it will have, and what set it."""

    field: str
    value: Any
    default: Any
    source: str
    """``default``, ``code``, the TOML file's path, the variable's name, or the flag."""


def settings_flags(command: F) -> F:
    """Add ``--config FILE`` and one flag for each setting to a command.

    The command gets them as ``toml`` and by the fields' names, None where nothing was given.
    """
    for option in reversed(config_options()):
        command = _flag(option)(command)
    return click.option(
        "--config",
        "toml",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file of settings, by the names below with underscores. BELLWIRE_* variables go before it, and "
        "flags before those.",
    )(command)


def _flag(option: Option) -> Callable[[F], F]:
    # Values stay text here: Config converts and checks them, with one kind of message for all sources.
    flag, help_ = flag_of(option.field), _help(option)
    if option.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", option.field, default=None, help=help_)
    return click.option(flag, option.field, type=str, metavar=_metavar(option.type), help=help_)


def _metavar(type_: Any) -> str:
    return "|".join(get_args(type_)) if get_origin(type_) is Literal else _METAVARS.get(type_, "LIST")


def flag_of(field: str) -> str:
    """The flag of a field: ``--ping-interval`` of ``ping_interval``."""
    return f"--{field.replace('_', '-')}"


def _help(option: Option) -> str:
    sentence = f"{option.help[:1].upper()}{option.help[1:]}."
    return f"{sentence}  [default: {_text(option.default)}]" if option.default not in ("", ()) else sentence


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def merge(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> Config:
    """The settings with which a server made with ``base`` will start, checked.

    Raises:
        SettingsError: one of them is wrong.

    """
    try:
        return Config.load(base, toml=toml, environ=os.environ, flags=flags)
    except ConfigError as error:
        raise SettingsError(str(error)) from None


def trace(base: Config, toml: Path | None, flags: Mapping[str, Any]) -> list[Setting]:
    """Every setting, in the order of the fields, with its source. Raises as :func:`merge` does."""
    merged = merge(base, toml, flags)
    in_file = _read(toml) if toml is not None else {}
    settings = []
    for option in config_options():
        field = option.field
        if flags.get(field) is not None:
            source = flag_of(field) if flags[field] is not False else f"--no-{flag_of(field)[2:]}"
        elif (variable := _variable(field)) in os.environ:
            source = variable
        elif field in in_file:
            source = str(toml)
        else:
            source = "default" if getattr(base, field) == option.default else "code"
        settings.append(Setting(field, getattr(merged, field), option.default, source))
    return settings


def _read(toml: Path) -> dict[str, Any]:
    with toml.open("rb") as file:
        return tomllib.load(file)


def _variable(field: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{field.upper()}"


def variable_warnings(environ: Mapping[str, str]) -> list[str]:
    """What to say of variables that nothing reads and that are hardly meant so."""
    found = [f"{name} is no setting: {meant} is one" for name, meant in misspelt_variables(environ)]
    return found + [f"{name} is no setting: give {option} to bellwire run" for name, option in _options(environ)]


def _options(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that nothing reads, each with the option of ``bellwire run`` that it is named after.

    A ``BELLWIRE_PORT`` with an address is none of them: Kubernetes makes one for a service called bellwire.
    """
    options = ("DATA", "HOST", "PORT", "LOG_LEVEL", "CONFIG", "WORKERS")
    named = {f"{ENVIRONMENT_PREFIX}{option}": flag_of(option.lower()) for option in options}
    return [(name, flag) for name, flag in named.items() if name in environ and "://" not in environ[name]]


def misspelt_variables(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that are no setting but nearly one, each with the one that was meant.

    Others with the prefix may belong to somebody else: Kubernetes makes some for a service called bellwire.
    """
    known = [_variable(field) for field in msgspec.structs.asdict(Config())]
    found = []
    for name in environ:
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            found += [(name, meant) for meant in near]
    return found
