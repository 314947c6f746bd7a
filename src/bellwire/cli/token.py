"""``bellwire token``: make and look at JSON Web Tokens, for development.

Keys and tokens are secrets: they come from a file, a variable or a prompt, and never stand on the command line, where
every user of the machine can read them.
"""

import asyncio
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from getpass import GetPassWarning
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import jwt
from jwt.warnings import InsecureKeyLengthWarning

from bellwire.cli.address import WrongUse
from bellwire.cli.told import told
from bellwire.core.errors import ConfigError, TokenRefused
from bellwire.guard.jwt import ALGORITHMS, MAX_TOKEN, MAX_USER, JWTAuth

F = TypeVar("F", bound=Callable[..., Any])

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TIMES: Final = ("iat", "nbf", "exp")


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Return the seconds of a duration such as 90s, 15m, 1h or 7d."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration: write 90s, 15m, 1h or 7d", ctx, param)
    return int(found[1]) * _UNITS[found[2]]


def _user(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not 0 < len(value) <= MAX_USER:
        raise click.BadParameter(f"servers refuse an id that has not 1 to {MAX_USER} characters", ctx, param)
    return value


def _key_options(command: F) -> F:
    """Add ``--key-file``, ``--key-env`` and ``--algorithm``."""
    for option in (
        click.option(
            "--algorithm",
            type=click.Choice(ALGORITHMS),
            default="HS256",
            show_default=True,
            help="How tokens are signed.",
        ),
        click.option("--key-env", metavar="NAME", help="The environment variable that holds the key."),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="The file that holds the key; the end of its last line does not count.",
        ),
    ):
        command = option(command)
    return command


def _user_claim(command: F) -> F:
    """Add ``--user-claim``, which is ``JWTAuth(user_claim=...)`` of the servers."""
    return click.option(
        "--user-claim",
        default="sub",
        show_default=True,
        metavar="NAME",
        help="The claim that is the user's id.",
    )(command)


@click.group("token")
def command() -> None:
    """Make and look at JSON Web Tokens, for development."""


@command.command("make")
@_key_options
@click.option("--user", required=True, callback=_user, metavar="ID", help="Whose token it is.")
@_user_claim
@click.option(
    "--expires",
    callback=_seconds,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="How long it is good: 90s, 15m, 1h, 7d.",
)
@click.option("--audience", metavar="NAME", help="Whom it is for (aud).")
@click.option("--issuer", metavar="NAME", help="Who issues it (iss).")
@click.option("--kid", metavar="NAME", help="The name of the key in the issuer's key set.")
@click.option(
    "--claim", "claims", multiple=True, metavar="NAME=VALUE", help="One more claim, JSON or text; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def make(
    algorithm: str,
    key_env: str | None,
    key_file: Path | None,
    user: str,
    user_claim: str,
    expires: int,
    audience: str | None,
    issuer: str | None,
    kid: str | None,
    claims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a token and print it.

    The key is the secret, or a private key as PEM. Without --key-file and --key-env you are asked for it.

    bellwire token make --key-env CHAT_KEY --user ada
    """
    now = int(time.time())
    said: dict[str, Any] = {user_claim: user, "iat": now, "exp": now + expires}
    said |= {name: value for name, value in (("aud", audience), ("iss", issuer)) if value is not None}
    with told(as_json=as_json):
        said |= dict(map(_claim, claims))
        token = _signed(said, _key(key_file, key_env, ask=True), algorithm, None if kid is None else {"kid": kid})
    click.echo(_encode({"ok": True, "token": token, "claims": said}) if as_json else token)


@command.command("inspect")
@_key_options
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--audience", metavar="NAME", help="Whom it has to be for (aud).")
@click.option("--issuer", metavar="NAME", help="Who has to have issued it (iss).")
@_user_claim
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(
    algorithm: str,
    key_env: str | None,
    key_file: Path | None,
    file: Path | None,
    audience: str | None,
    issuer: str | None,
    user_claim: str,
    as_json: bool,
) -> None:
    """Print what the token in FILE says, or that on standard input.

    With a key, the secret or the public one, it is verified as a server would: the exit code is 1 if it is refused.
    Without one anybody may have made it.
    """
    with told(as_json=as_json):
        key = _key(key_file, key_env, ask=False)
        token = _token(file)
        header, claims = _parts(token)
        refusal = None if key is None else _refusal(token, key, algorithm, audience, issuer, user_claim)
    if as_json:
        code, reason = refusal or (None, None)
        verdict = {"verified": None if key is None else refusal is None, "code": code, "reason": reason}
        said = {"header": header, "claims": claims, "user": claims.get(user_claim)}
        click.echo(_encode({"ok": not refusal, **said, **verdict}))
    else:
        _print(header, claims, user_claim, _verdict(refusal, verified=key is not None))
    if refusal is not None:
        raise click.exceptions.Exit(1)


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims, whoever made them."""
    try:
        return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise click.ClickException("this is no token: it has three parts with dots between") from None


def _refusal(
    token: str, key: str, algorithm: str, audience: str | None, issuer: str | None, user_claim: str
) -> tuple[str, str] | None:
    """Return the code with which a server would refuse it, and why, None if it would not."""
    try:
        auth = JWTAuth(key=key, algorithms=[algorithm], audience=audience, issuer=issuer, user_claim=user_claim)
    except ConfigError as error:
        raise WrongUse(str(error)) from None
    try:
        asyncio.run(auth(None, {"token": token}))
    except TokenRefused as refused:
        # What a client is not told: the error that the refusal stands for. Whoever has the key may know.
        cause = refused.__context__ or refused
        if audience is None and isinstance(cause, jwt.InvalidAudienceError):
            return refused.code, f"it is for the audience {_encode(_parts(token)[1]['aud'])}: give --audience"
        return refused.code, str(cause)
    return None


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise WrongUse(f"--claim {text!r}: write --claim role=admin, or --claim 'rooms=[\"a\"]'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _signed(claims: dict[str, Any], key: str | None, algorithm: str, headers: dict[str, Any] | None) -> str:
    with warnings.catch_warnings(record=True, category=InsecureKeyLengthWarning) as warned:
        warnings.simplefilter("always", InsecureKeyLengthWarning)
        try:
            token = jwt.encode(claims, key or "", algorithm, headers)
        except NotImplementedError:
            raise WrongUse(f'{algorithm} needs the package cryptography: pip install "bellwire[crypto]"') from None
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):  # the last for public keys
            raise WrongUse(f"this is no key to sign with {algorithm}") from None
    if warned:
        click.echo("warning: the key is short, and who has a token can guess it: openssl rand -base64 48", err=True)
    return token


def _key(file: Path | None, variable: str | None, *, ask: bool) -> str | None:
    if file is not None and variable is not None:
        raise WrongUse("give --key-file or --key-env, not both")
    if file is not None:
        return _read(file).rstrip("\r\n")
    if variable is not None:
        if variable not in os.environ:
            raise WrongUse(f"--key-env {variable}: there is no such variable")
        return os.environ[variable]
    return _asked() if ask else None


def _asked() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)
        try:
            return str(click.prompt("Key", hide_input=True, err=True))
        except GetPassWarning:
            raise WrongUse("there is no terminal to ask for the key: give --key-file or --key-env") from None


def _token(file: Path | None) -> str:
    if file is not None and str(file) != "-":
        if file.name.count(".") == 2 and not os.path.exists(file):  # also if it is too long
            raise WrongUse("give the token on standard input or in a file: all on this machine can see arguments")
        text = _read(file)
    elif sys.stdin.isatty():
        text = str(click.prompt("Token", hide_input=True, err=True))
    else:
        text = sys.stdin.read(MAX_TOKEN + 2)
    return text.strip()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeError) as error:
        raise WrongUse(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None


def _print(header: dict[str, Any], claims: dict[str, Any], user_claim: str, verdict: str) -> None:
    for name, value in header.items():
        click.echo(f"header {_shown(name)}: {_encode(value)}")
    for name, value in claims.items():
        meaning = _when(value) if name in _TIMES else " (the user)" if name == user_claim else ""
        click.echo(f"{_shown(name)}: {_encode(value)}{meaning}")
    click.echo(verdict)


def _shown(name: str) -> str:
    """Return a name from a token of anybody's so that a terminal does nothing but show it."""
    return name if name.isprintable() else _encode(name)


def _verdict(refusal: tuple[str, str] | None, *, verified: bool) -> str:
    if not verified:
        return "Not verified: give --key-file or --key-env"
    return "Verified" if refusal is None else "Refused: {}: {}".format(*refusal)


def _when(value: Any) -> str:
    """Return a time in words, "" for what is none."""
    try:
        moment = datetime.fromtimestamp(int(value), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return ""
    seconds = int(value) - int(time.time())
    return f" ({moment:%Y-%m-%d %H:%M:%S} UTC, {f'in {seconds} s' if seconds > 0 else f'{-seconds} s ago'})"


def _encode(value: object) -> str:
    return json.dumps(value)
