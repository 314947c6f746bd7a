"""Tokens that are let in, and all those that are not."""

import base64
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from bellwire import AuthUnavailable, ConfigError, ConnectRefused, Identity, JWTAuth, Server, TokenRefused
from bellwire.guard.jwt import MAX_TOKEN
from bellwire.testing import connect
from tests.guard.tokens import SECRET, claims, jwk, key_set, private_key, private_pem, public_pem, secret_auth, unsigned
from tests.guard.tokens import token as make

ASYMMETRIC = ("RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA")


async def identity(auth: JWTAuth, token: object) -> Identity:
    return await auth(None, {"token": token})


async def refused(auth: JWTAuth, token: object) -> str:
    with pytest.raises(TokenRefused) as caught:
        await identity(auth, token)
    assert caught.value.data == {"code": caught.value.code}
    return caught.value.code


# --- let in


async def test_a_token_says_who_it_is_and_how_long() -> None:
    now = int(time.time())
    found = await identity(secret_auth(), make(role="admin", iat=now, exp=now + 60))
    assert (found.user, found.claims["role"], found.expires, found.issued) == ("ada", "admin", now + 60, now)


async def test_clocks_may_differ_by_the_leeway_and_the_connection_lasts_as_long() -> None:
    now = int(time.time())
    token = make(exp=now - 20, nbf=now + 20, iat=now + 20)
    assert (await identity(secret_auth(leeway=30), token)).expires == now + 10
    assert await refused(secret_auth(leeway=10), make(exp=now - 20)) == "token_expired"
    assert await refused(secret_auth(leeway=10), make(nbf=now + 20)) == "token_invalid"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_public_key_verifies(algorithm: str) -> None:
    key = private_key(algorithm)
    auth = JWTAuth(key=public_pem(key), algorithms=[algorithm])
    assert (await identity(auth, make(key, algorithm))).user == "ada"
    assert await refused(auth, make(private_key(algorithm, 1), algorithm)) == "token_invalid"


async def test_several_algorithms_of_one_kind_of_key() -> None:
    auth = JWTAuth(key=SECRET, algorithms=["HS256", "HS512"])
    assert (await identity(auth, make(algorithm="HS512"))).user == "ada"
    assert await refused(auth, make(algorithm="HS384")) == "token_invalid"


async def test_the_user_may_stand_in_another_claim() -> None:
    auth = secret_auth(user_claim="email")
    assert (await identity(auth, make(email="ada@example.com", sub=None))).user == "ada@example.com"
    assert await refused(auth, make()) == "token_invalid"


async def test_audience_and_issuer_may_be_several() -> None:
    auth = secret_auth(audience=["chat", "calls"], issuer=("https://a", "https://b"))
    assert (await identity(auth, make(aud=["calls", "x"], iss="https://b"))).user == "ada"
    assert await refused(auth, make(aud="chat", iss="https://c")) == "token_invalid"


# --- not let in


async def test_without_a_token() -> None:
    with pytest.raises(TokenRefused) as caught:
        await secret_auth()(None, {})
    assert caught.value.code == "token_missing"


NOW = int(time.time())
PUBLIC = public_pem(private_key("RS256"))


def _signed_with_the_public_key() -> str:
    """What an attacker makes who knows the public key: a token of HS256 with its bytes as the secret."""
    head = unsigned({"alg": "HS256", "typ": "JWT"}, claims())[:-1]
    signature = hmac.new(PUBLIC, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        pytest.param(make(exp=NOW - 1), "token_expired", id="expired"),
        pytest.param(make(exp=None), "token_invalid", id="no exp"),
        pytest.param(make(exp="soon"), "token_invalid", id="exp is text"),
        pytest.param(make(exp=1e999), "token_invalid", id="exp is infinite"),
        pytest.param(make(nbf=NOW + 600), "token_invalid", id="not yet"),
        pytest.param(make(iat=NOW + 600), "token_invalid", id="from the future"),
        pytest.param(make(aud="chat"), "token_invalid", id="for somebody"),
        pytest.param(make(sub=None), "token_invalid", id="nobody's"),
        pytest.param(make(sub=""), "token_invalid", id="nobody's by name"),
        pytest.param(make(sub=5), "token_invalid", id="a number's"),
        pytest.param(make(sub=["ada"]), "token_invalid", id="a list's"),
        pytest.param(make(sub="a" * 256), "token_invalid", id="a long name's"),
        pytest.param(make(sub="\ud800"), "token_invalid", id="no text's"),
        pytest.param(make(key="x" * 64), "token_invalid", id="another's"),
        pytest.param(make()[:-2], "token_invalid", id="cut"),
        pytest.param(unsigned({"alg": "none", "typ": "JWT"}, claims()), "token_invalid", id="none"),
        pytest.param(unsigned({"alg": "nOnE"}, claims()), "token_invalid", id="nOnE"),
        pytest.param(unsigned({"alg": ["HS256"]}, claims()), "token_invalid", id="a list of algorithms"),
        pytest.param(unsigned({}, claims()), "token_invalid", id="no algorithm"),
        pytest.param(make(headers={"crit": ["exp"]}), "token_invalid", id="something critical"),
        pytest.param(unsigned({"alg": "HS256", "kid": {}}, claims()), "token_invalid", id="kid is no text"),
        pytest.param("a" * 1_000_000, "token_invalid", id="1 MB"),
        pytest.param(make(pad="x" * MAX_TOKEN), "token_invalid", id="a good one of 11 KB"),
        pytest.param("", "token_invalid", id="empty"),
        pytest.param("...", "token_invalid", id="dots"),
        pytest.param("\u0660", "token_invalid", id="not ASCII"),
        pytest.param(7, "token_invalid", id="a number"),
        pytest.param({"a": 1}, "token_invalid", id="an object"),
        pytest.param(make().encode(), "token_invalid", id="bytes"),
    ],
)
async def test_the_matrix(token: object, code: str) -> None:
    assert await refused(secret_auth(), token) == code


@pytest.mark.parametrize("wrong", [{"aud": "other"}, {"aud": None}, {"iss": "other"}, {"iss": None}, {"iss": ["idp"]}])
async def test_audience_and_issuer_have_to_be_right(wrong: dict[str, Any]) -> None:
    auth = secret_auth(audience="chat", issuer="idp")
    good: dict[str, Any] = {"aud": "chat", "iss": "idp"}
    assert (await identity(auth, make(**good))).user == "ada"
    head, said, _ = make().split(".")
    text = json.dumps({name: value for name, value in (claims() | good | wrong).items() if value is not None})
    said = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    signature = hmac.new(SECRET.encode(), f"{head}.{said}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{said}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert await refused(auth, forged) == "token_invalid"


async def test_a_public_key_is_no_secret() -> None:
    auth = JWTAuth(key=PUBLIC, algorithms=["RS256"])
    assert await refused(auth, _signed_with_the_public_key()) == "token_invalid"


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk", "x5c"])
async def test_keys_that_a_token_brings_along_are_not_looked_at(header: str) -> None:
    attacker = private_key("RS256", 1)
    value: Any = {"jwk": jwk("RS256", number=1), "x5c": ["MII"]}.get(header, "http://127.0.0.1:1/keys")
    auth = JWTAuth(key=PUBLIC, algorithms=["RS256"])
    assert await refused(auth, make(attacker, "RS256", {header: value})) == "token_invalid"
    assert (await identity(auth, make(private_key("RS256"), "RS256", {header: value}))).user == "ada"


def _deep() -> str:
    return unsigned({"alg": "HS256"}, None).replace(".", f".{'W1tb' * 1000}", 1)


async def test_nesting_is_no_way_to_a_traceback() -> None:
    assert await refused(secret_auth(), _deep()) == "token_invalid"
    head = base64.urlsafe_b64encode(b"[" * 5000).decode().rstrip("=")
    assert await refused(secret_auth(), f"{head}.e30.AA") == "token_invalid"


async def test_numbers_without_end_are_cut() -> None:
    found = await identity(secret_auth(), make(exp=10**400))
    assert found.expires == 253_402_300_799


@given(st.text() | st.text(alphabet="eyJ0.-_=AZaz9").filter(bool))
async def test_any_text_is_refused(text: str) -> None:
    assert await refused(secret_auth(), text) == "token_invalid"


@given(
    st.dictionaries(
        st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jku", "jwk"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()) | st.just("HS256"),
    ),
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ),
)
async def test_any_token_that_nobody_signed_is_refused(header: dict[str, Any], said: object) -> None:
    assert await refused(secret_auth(), unsigned(header, said, b"x" * 32)) == "token_invalid"


async def test_nothing_of_a_token_is_told_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    forged = make(key="x" * 64, sub="mallory")
    with caplog.at_level(logging.DEBUG), pytest.raises(TokenRefused) as caught:
        await identity(secret_auth(), forged)
    assert str(caught.value) == "the token is not valid"
    assert caught.value.__cause__ is None
    assert [record.getMessage() for record in caplog.records] == ["a token was refused: InvalidSignatureError"]


# --- in a server


async def test_a_server_tells_the_client_what_is_wrong_and_counts_it() -> None:
    server = Server(auth=secret_auth())
    root = server.namespace("/")
    users = []

    @root.on_connect
    async def enter(socket: Any) -> None:
        users.append((socket.user, socket.claims["sub"]))

    async with server.lifespan():
        async with connect(server, auth={"token": make()}):
            assert users == [("ada", "ada")]
        for token, code in ((None, "token_missing"), (make(exp=1), "token_expired"), ("x", "token_invalid")):
            with pytest.raises(ConnectRefused) as caught:
                async with connect(server, auth={"token": token}):
                    pass
            assert caught.value.data == {"code": code}
            assert server.counters.get("connects_refused_total", reason=code) == 1


async def test_a_client_comes_back_when_there_are_no_keys_yet(tmp_path: Path) -> None:
    server = Server(auth=JWTAuth(jwks=tmp_path / "keys.json", algorithms=["RS256"]))
    server.namespace("/")
    async with server.lifespan():
        with pytest.raises(Exception, match="transport close"):
            async with connect(server, auth={"token": make(private_key("RS256"), "RS256")}):
                pass
        assert server.counters.get("sessions_closed_total", reason="auth_unavailable") == 1


# --- keys in a set


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A set of two keys."""
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk("RS256", "one"), jwk("ES256", "two")))
    return path


async def test_a_set_in_a_file_verifies_by_the_name_of_the_key(file: Path) -> None:
    auth = JWTAuth(jwks=file, algorithms=["RS256", "ES256"])
    assert (await identity(auth, make(private_key("RS256"), "RS256", {"kid": "one"}))).user == "ada"
    assert (await identity(auth, make(private_key("ES256"), "ES256", {"kid": "two"}))).user == "ada"
    for algorithm, kid in (("RS256", "two"), ("ES256", "one"), ("RS256", "three")):
        assert await refused(auth, make(private_key(algorithm), algorithm, {"kid": kid})) == "token_invalid"
    assert await refused(auth, make(private_key("RS256"), "RS256")) == "token_invalid"  # which of the two?


@pytest.fixture
def large_file(file: Path) -> Path:
    """The same, and more bytes than a set may have."""
    file.write_bytes(b" " * 300_000 + file.read_bytes())
    return file


async def test_a_set_is_only_read_in_bounds(large_file: Path) -> None:
    auth = JWTAuth(jwks=large_file, algorithms=["RS256"])
    with pytest.raises(AuthUnavailable):
        await identity(auth, make(private_key("RS256"), "RS256", {"kid": "one"}))


@pytest.fixture
def issuer() -> Iterator[str]:
    """The address of an issuer's keys, which are served by HTTP as they are."""
    document = key_set(jwk("RS256", "one"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        @override
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        server.shutdown()
        thread.join()


@pytest.mark.bellwire(clock="real")
async def test_a_set_at_an_address_verifies(issuer: str) -> None:
    auth = JWTAuth(jwks=issuer, algorithms=["RS256"])
    assert (await identity(auth, make(private_key("RS256"), "RS256", {"kid": "one"}))).user == "ada"
    assert await refused(auth, make(private_key("RS256", 1), "RS256", {"kid": "one"})) == "token_invalid"
    assert await refused(auth, make(private_key("RS256"), "RS256", {"kid": "two"})) == "token_invalid"


# --- made wrongly


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"algorithms": ["HS256"]}, "either key=... or jwks=..."),
        ({"key": SECRET, "jwks": "https://x/", "algorithms": ["HS256"]}, "either key=... or jwks=..."),
        ({"key": SECRET, "algorithms": []}, "give a list"),
        ({"key": SECRET, "algorithms": "HS256"}, "give a list"),
        ({"key": SECRET, "algorithms": ["none"]}, "'none' is none of HS256"),
        ({"key": SECRET, "algorithms": ["HS256", "RS256"]}, "do not go with others"),
        ({"jwks": "https://x/", "algorithms": ["HS256", "RS256"]}, "do not go with others"),
        ({"jwks": "https://x/", "algorithms": ["HS256"]}, "HS256 takes a secret"),
        ({"jwks": "http://idp.example/keys", "algorithms": ["RS256"]}, "http:// is for this machine only"),
        ({"jwks": "ftp://idp.example/keys", "algorithms": ["RS256"]}, "this is no address"),
        ({"jwks": "https://ada:pw@idp.example/keys", "algorithms": ["RS256"]}, "do not belong into this address"),
        ({"jwks": "", "algorithms": ["RS256"]}, "or the path of a file"),
        ({"key": PUBLIC, "algorithms": ["HS256"]}, "this is no key for HS256"),
        ({"key": "", "algorithms": ["HS256"]}, "this is no key for HS256"),
        ({"key": SECRET, "algorithms": ["RS256"]}, "give an RSA public key as PEM"),
        ({"key": PUBLIC, "algorithms": ["ES256"]}, "public key on the algorithm's curve"),
        ({"key": public_pem(private_key("ES384")), "algorithms": ["ES256"]}, "on the algorithm's curve"),
        ({"key": PUBLIC, "algorithms": ["RS256", "ES256"]}, "no key is for EC and RSA"),
        ({"key": private_pem(private_key("RS256")), "algorithms": ["RS256"]}, "this is a private key"),
        ({"key": 5, "algorithms": ["HS256"]}, "text or bytes, not int"),
        ({"key": SECRET, "algorithms": ["HS256"], "leeway": 61}, "seconds from 0 to 60"),
        ({"key": SECRET, "algorithms": ["HS256"], "leeway": -1}, "seconds from 0 to 60"),
        ({"key": SECRET, "algorithms": ["HS256"], "audience": ""}, r"JWTAuth\(audience=''\)"),
        ({"key": SECRET, "algorithms": ["HS256"], "issuer": []}, r"JWTAuth\(issuer=\[\]\)"),
        ({"key": SECRET, "algorithms": ["HS256"], "user_claim": ""}, "such as 'sub'"),
    ],
)
def test_what_cannot_go_together_is_told_at_once(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        cast("Any", JWTAuth)(**options)
    assert SECRET not in str(caught.value)


def test_an_rsa_key_that_is_too_short_is_none() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(ConfigError, match="2048 bits at least"):
        JWTAuth(key=public_pem(key), algorithms=["RS256"])


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_short_secret_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    auth = JWTAuth(key="...", algorithms=["HS256", "HS384"])
    token = jwt.encode(claims(), "...", "HS256")
    assert (await identity(auth, token)).user == "ada"
    (record,) = caplog.records
    assert "who has a token can guess it" in record.getMessage()


def test_a_secret_is_not_shown() -> None:
    assert repr(secret_auth()) == "JWTAuth(algorithms=['HS256'])"


def test_without_cryptography_secrets_work_and_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["cryptography"] = None
from bellwire import ConfigError, JWTAuth
JWTAuth(key="k" * 32, algorithms=["HS256"])
try:
    JWTAuth(jwks="https://idp.example/keys", algorithms=["RS256"])
except ConfigError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout.strip().endswith('RS256 needs the package cryptography: pip install "bellwire[crypto]"')
