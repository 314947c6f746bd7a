"""``bellwire token``: what it makes, servers let in; what it says of a token, they say too."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result

from bellwire import JWTAuth, Server
from bellwire.cli import main
from bellwire.testing import connect
from tests.guard.tokens import SECRET, private_key, private_pem, public_pem, token, unsigned


def run(*arguments: str, stdin: str = "", **environ: str) -> Result:
    return CliRunner().invoke(main, ["token", *arguments], input=stdin, env={"KEY": SECRET, **environ})


def made(*arguments: str, **environ: str) -> str:
    result = run("make", "--key-env", "KEY", "--user", "ada", *arguments, **environ)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_what_is_made_says_what_was_asked_for() -> None:
    options = ("--audience", "chat", "--issuer", "me", "--kid", "k1", "--expires", "15m", "--user-claim", "uid")
    found = made(*options, "--claim", "role=admin", "--claim", 'rooms=["a"]', "--claim", "empty=")
    said = jwt.decode(found, SECRET, ["HS256"], audience="chat")
    assert said["exp"] - said["iat"] == 900
    assert abs(said["iat"] - time.time()) < 60
    assert {name: said[name] for name in ("uid", "aud", "iss", "role", "rooms", "empty")} == {
        "uid": "ada",
        "aud": "chat",
        "iss": "me",
        "role": "admin",
        "rooms": ["a"],
        "empty": "",
    }
    assert jwt.get_unverified_header(found)["kid"] == "k1"


async def test_a_server_lets_it_in() -> None:
    server = Server(auth=JWTAuth(key=SECRET, algorithms=["HS256"]))
    root = server.namespace("/")
    async with connect(server, auth={"token": made()}):
        assert [socket.user for socket in await root.sockets()] == ["ada"]


def test_the_key_may_stand_in_a_file_or_be_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    from_file = run("make", "--key-file", str(file), "--user", "ada")
    asked = run("make", "--user", "ada", stdin=f"{SECRET}\n")
    for result in (from_file, asked):
        assert result.exit_code == 0
        assert SECRET not in result.output
        assert jwt.decode(result.stdout.strip().splitlines()[-1], SECRET, ["HS256"])["sub"] == "ada"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_private_keys_sign_and_public_ones_verify(algorithm: str, tmp_path: Path) -> None:
    key = private_key(algorithm)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(private_pem(key))
    public.write_bytes(public_pem(key))
    made = run("make", "--key-file", str(private), "--algorithm", algorithm, "--user", "ada")
    assert made.exit_code == 0, made.output
    seen = run("inspect", "--key-file", str(public), "--algorithm", algorithm, stdin=made.stdout)
    assert (seen.exit_code, seen.stdout.splitlines()[-1]) == (0, "Verified")
    wrong = run("make", "--key-file", str(public), "--algorithm", algorithm, "--user", "ada")
    assert (wrong.exit_code, wrong.stderr) == (2, f"Error: this is no key to sign with {algorithm}\n")


def test_it_says_what_is_in_a_token_and_when() -> None:
    found = run("inspect", stdin=made("--claim", "role=admin"))
    assert found.exit_code == 0
    lines = found.stdout.splitlines()
    assert lines[:3] == ['header alg: "HS256"', 'header typ: "JWT"', 'sub: "ada" (the user)']
    assert " UTC, in " in next(line for line in lines if line.startswith("exp: "))
    assert lines[-2:] == ['role: "admin"', "Not verified: give --key-file or --key-env"]


def test_the_user_is_in_the_claim_that_it_was_made_with() -> None:
    text = made("--user-claim", "uid", "--claim", "sub=somebody")
    seen = run("inspect", "--key-env", "KEY", "--user-claim", "uid", stdin=text)
    assert 'uid: "ada" (the user)' in seen.stdout.splitlines()
    assert 'sub: "somebody"' in seen.stdout.splitlines()
    answer = json.loads(run("inspect", "--user-claim", "uid", "--json", stdin=text).stdout)
    assert (answer["user"], answer["verified"]) == ("ada", None)


def test_a_token_without_the_users_claim_is_refused_by_the_name_of_it() -> None:
    refused = run("inspect", "--key-env", "KEY", "--user-claim", "uid", "--json", stdin=made())
    answer = json.loads(refused.stdout)
    assert (answer["user"], answer["reason"]) == (None, "its claim 'uid' names no user")


@pytest.mark.parametrize(
    ("said", "options", "refused"),
    [
        ({}, (), None),
        ({"exp": 1}, (), ("token_expired", "Signature has expired")),
        ({"exp": None}, (), ("token_invalid", 'Token is missing the "exp" claim')),
        ({"key": "x" * 64}, (), ("token_invalid", "Signature verification failed")),
        ({"aud": "chat"}, (), ("token_invalid", 'it is for the audience "chat": give --audience')),
        ({"aud": ["chat", "x"]}, (), ("token_invalid", 'it is for the audience ["chat", "x"]: give --audience')),
        ({"aud": 7}, (), ("token_invalid", "it is for the audience 7: give --audience")),
        ({"aud": "chat"}, ("--audience", "x"), ("token_invalid", "Audience doesn't match")),
        ({"aud": "chat"}, ("--audience", "chat"), None),
        ({"iss": "x"}, ("--issuer", "me"), ("token_invalid", "Invalid issuer")),
        ({"sub": ""}, (), ("token_invalid", "its claim 'sub' names no user")),
        ({}, ("--algorithm", "HS512"), ("token_invalid", "The specified alg value is not allowed")),
    ],
)
def test_with_a_key_it_says_what_a_server_would_and_why(
    said: dict[str, Any], options: tuple[str, ...], refused: tuple[str, str] | None
) -> None:
    text = token(**said)
    code, reason = refused or (None, None)
    found = run("inspect", "--key-env", "KEY", *options, "--json", stdin=text)
    answer = json.loads(found.stdout)
    assert (answer["ok"], answer["verified"], answer["code"]) == (code is None, code is None, code)
    assert answer["reason"] == reason
    assert found.exit_code == (0 if code is None else 1)
    assert answer["claims"] == jwt.decode(text, options={"verify_signature": False})
    plain = run("inspect", "--key-env", "KEY", *options, stdin=text)
    assert plain.stdout.splitlines()[-1] == ("Verified" if code is None else f"Refused: {code}: {reason}")


def test_a_token_of_an_attacker_does_nothing_to_the_terminal() -> None:
    found = run("inspect", stdin=unsigned({"alg": "none", "\x1b[2J": 1}, {"\x1b]0;x\x07": "\x1b[31m", "exp": 10**30}))
    assert found.exit_code == 0
    assert "\x1b" not in found.stdout
    assert "\x07" not in found.stdout


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "x" * 100_000, "[" * 5_000, unsigned({"alg": "none"}, [])])
def test_what_is_no_token(text: str) -> None:
    found = run("inspect", stdin=text)
    assert (found.exit_code, found.stderr) == (1, "Error: this is no token: it has three parts with dots between\n")
    as_json = run("inspect", "--json", stdin=text)
    assert json.loads(as_json.stdout) == {
        "ok": False,
        "errors": ["this is no token: it has three parts with dots between"],
    }


def test_a_token_among_the_arguments_is_not_repeated() -> None:
    token = made("--claim", f"role={'a' * 300}")
    found = run("inspect", token)
    assert found.exit_code == 2
    assert "give the token on standard input" in found.stderr
    assert token not in found.output


def test_a_time_that_is_now_has_passed() -> None:
    assert re.search(r"^iat: .*, \d+ s ago\)$", run("inspect", stdin=made()).stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--key-env", "NONE"), "there is no such variable"),
        (("--key-env", "KEY", "--key-file", "x"), "not both"),
        (("--key-file", "/nowhere/key"), "/nowhere/key cannot be read"),
        (("--key-env", "KEY", "--expires", "soon"), "write 90s, 15m, 1h or 7d"),
        (("--key-env", "KEY", "--expires", "0s"), "write 90s, 15m, 1h or 7d"),
        (("--key-env", "KEY", "--claim", "role"), "write --claim role=admin"),
        (("--key-env", "KEY", "--user", ""), "servers refuse an id that has not 1 to 255 characters"),
        (("--key-env", "KEY", "--user", "x" * 256), "servers refuse an id that has not 1 to 255 characters"),
        (("--key-env", "KEY", "--algorithm", "none"), "'none' is not one of"),
        (("--key-env", "KEY", "--algorithm", "RS256"), "this is no key to sign with RS256"),
    ],
)
def test_what_cannot_be_meant_is_told(arguments: tuple[str, ...], told: str) -> None:
    found = run("make", "--user", "ada", *arguments)
    assert found.exit_code == 2
    assert told in found.stderr
    assert SECRET not in found.output


def test_without_a_terminal_nobody_is_asked() -> None:
    command = [sys.executable, "-m", "bellwire", "token", "make", "--user", "ada"]
    done = subprocess.run(
        command, input=f"{SECRET}\n", capture_output=True, text=True, start_new_session=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: there is no terminal to ask for the key: give --key-file or --key-env\n"


def test_a_short_secret_is_told() -> None:
    found = run("make", "--key-env", "KEY", "--user", "ada", KEY="short")
    assert found.exit_code == 0
    assert "can guess it" in found.stderr
