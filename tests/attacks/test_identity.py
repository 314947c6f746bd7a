"""S13, S14, S15, S16: forged tokens, secrets in logs, what outlives its time, and the sessions of others."""

import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from tests.attacks.application import AUDIENCE, KEY
from tests.attacks.peer import Ended, Peer
from tests.attacks.target import Target, running


def token(user: str = "ann", *, key: str = KEY, algorithm: str = "HS256", headers: Any = None, **claims: Any) -> str:
    """A token that is good, but for what is given."""
    now = int(time.time())
    payload = {"sub": user, "aud": AUDIENCE, "exp": now + 600, "iat": now, **claims}
    return jwt.encode({k: v for k, v in payload.items() if v is not None}, key, algorithm=algorithm, headers=headers)


def answer_to(client: Peer, bearer: object, **auth: Any) -> str:
    client.say(f"40{json.dumps({'token': bearer, **auth})}")
    return client.text()


def unsigned(algorithm: str) -> str:
    head, body, _ = token().split(".")
    forged = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
    return f"{forged}.{body}." if algorithm.lower() == "none" else f"{forged}.{body}.{head}"


# --- S13: tokens

FORGED: list[tuple[str, Callable[[], object]]] = [
    ("none", lambda: unsigned("none")),
    ("NONE", lambda: unsigned("NoNe")),
    ("another algorithm", lambda: token(algorithm="HS512")),
    ("one that is none", lambda: unsigned("HS999")),
    ("another key", lambda: token(key="another key, as long as the right one is")),
    ("an empty signature", lambda: token().rpartition(".")[0] + "."),
    ("a part of it", lambda: token()[:-2]),
    ("expired", lambda: token(exp=int(time.time()) - 60)),
    ("not yet", lambda: token(nbf=int(time.time()) + 600)),
    ("for ever", lambda: token(exp=None)),
    ("another audience", lambda: token(aud="somebody else")),
    ("no audience", lambda: token(aud=None)),
    ("nobody", lambda: token(sub=None)),
    ("a number", lambda: token(sub="", exp="soon")),
    ("its own key", lambda: token(key="k" * 40, headers={"jwk": {"kty": "oct", "k": "a2tr"}})),
    ("an address of a key", lambda: token(key="k" * 40, headers={"jku": "http://127.0.0.1:1/keys", "kid": "../x"})),
    ("a critical extension", lambda: token(headers={"crit": ["exp"], "exp": 1})),
    ("text", lambda: "nonsense"),
    ("dots", lambda: "." * 8_000),
    ("no text", lambda: {"a": 1}),
    ("nothing", lambda: None),
    ("8 KiB", lambda: token(more="x" * 9_000)),
]


@pytest.mark.parametrize("forge", [forge for _, forge in FORGED], ids=[name for name, _ in FORGED])
def test_s13_forged_tokens_are_refused(target: Target, forge: Callable[[], object]) -> None:
    answer = answer_to(target.open(), forge())
    assert answer.startswith("44"), answer
    assert json.loads(answer[2:])["data"]["code"] in ("token_invalid", "token_expired", "token_missing")


def test_s13_a_token_of_a_megabyte_is_not_read(target: Target) -> None:
    assert answer_to(target.open(), "x" * 900_000).startswith('44{"message":"auth is larger')


def test_s13_a_good_one_is_not(target: Target) -> None:
    client = target.open()
    assert answer_to(client, token()).startswith("40{")
    assert client.call("who am i") == "ann"


# --- S14: secrets in logs


def test_s14_no_secret_is_logged_or_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("secrets") / "log"
    with running(log, "--log-level", "debug") as target:
        good, bad = token(), token(key="another key, as long as the right one is")
        client, other, polling = target.open(), target.open(), target.dial()
        answer_to(client, good, bellwire={"version": 1, "instance": "i"})
        answer_to(other, bad)
        sid = polling.polling()
        polling.post(sid, b"40" + json.dumps({"token": good}).encode())
        polling.get(sid, f"Authorization: Bearer {good}\r\n")
        polling.post(sid, b"4broken")
        target.dial().get(f"{sid}&token={good}")
        target.serves()
        counters = json.dumps(target.vitals()["counters"])
        written = log.read_text()
        for secret in (good, bad, good.split(".")[2], bad.split(".")[2], sid):
            assert secret not in written
            assert secret not in counters


# --- S15: what has been good


def test_s15_a_session_ends_with_its_token(target: Target) -> None:
    client = target.open()
    assert answer_to(client, token(exp=int(time.time()) + 2)).startswith("40{")
    with contextlib.suppress(Ended):
        while not client.text().startswith("41"):  # out of its only namespace
            pass
    assert answer_to(target.open(), token(exp=int(time.time()) - 1)).startswith("44")


def test_s15_what_is_revoked_is_so_online_and_offline(target: Target) -> None:
    online = target.open()
    old = token("eve")
    assert answer_to(online, old).startswith("40{")
    assert target.bystander.call("revoke", "eve") is True
    online.ends()
    answer = answer_to(target.open(), old)
    assert json.loads(answer[2:])["data"]["code"] == "token_revoked"
    assert answer_to(target.open(), token("mallory")).startswith("40{")


# --- S16: the sessions of others


def test_s16_sids_cannot_be_guessed(target: Target) -> None:
    clients = [target.dial() for _ in range(50)]
    sids = [client.polling() for client in clients]
    random_parts = {sid[8:] for sid in sids}
    assert len(random_parts) == 50
    assert all(len(part) == 16 for part in random_parts)  # 96 bits
    for place in range(16):
        assert len({part[place] for part in random_parts}) > 10
    for client, sid in zip(clients, sids, strict=True):
        client.post(sid, b"1")


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + "A", str.swapcase, lambda s: s[:8], lambda _: "x"])
def test_s16_a_sid_that_is_not_exactly_one_opens_nothing(target: Target, change: Callable[[str], str]) -> None:
    client = target.dial()
    sid = client.polling()
    assert client.get(change(sid))[0] == 400
    assert client.post(change(sid), b"40")[0] == 400
    client.post(sid, b"1")


def test_s16_a_session_is_its_users_alone(target: Target) -> None:
    hello = {"version": 1, "instance": "the owner"}
    owner = target.open()
    secret = json.loads(answer_to(owner, token("ann"), bellwire=hello)[2:])["bellwire"]["session"]
    assert len(secret) >= 22  # 128 bits of base64
    owner.close()
    for thief in (token("bob"), None):
        client = target.open()
        stolen = {"version": 1, "instance": "the thief", "session": secret}
        auth = {"bellwire": stolen} if thief is None else {"bellwire": stolen, "token": thief}
        client.say(f"40{json.dumps(auth)}")
        answer = json.loads(client.text()[2:])["bellwire"]
        assert answer["resumed"] is False
        assert answer["session"] != secret
        client.close()
    owner = target.open()
    answer = json.loads(answer_to(owner, token("ann"), bellwire={**hello, "session": secret})[2:])["bellwire"]
    assert answer["resumed"] is True
