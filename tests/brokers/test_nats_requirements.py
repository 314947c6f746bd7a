"""What is said of a NATS server that does not have what is needed, or does not let us have it."""

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme

from bellwire.brokers.nats import NatsBroker
from bellwire.brokers.nats_requirements import check_account, check_replicas, check_version, refused
from bellwire.core.errors import BrokerUnavailable, ConfigError
from tests.brokers.contract import Ears, draft
from tests.brokers.nats_server import NatsServer, again


@pytest.mark.parametrize("version", ["2.11.9", "1.4.1", "", "x.y", "2"])
def test_an_old_server_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=r"2\.12 or newer"):
        check_version(version)


@pytest.mark.parametrize("version", ["2.12.0", "2.15.1", "3.0.0-beta.1", "2.12.0-RC.3"])
def test_a_server_that_has_what_is_needed_is_taken(version: str) -> None:
    check_version(version)


def test_what_passes_by_itself_is_no_fault() -> None:
    check_account({"memory": 0})
    with pytest.raises(BrokerUnavailable, match="temporarily"):
        check_account({"error": {"err_code": 10008, "description": "JetStream system temporarily unavailable"}})
    assert isinstance(refused("s", {"err_code": 10008, "description": "temporarily"}, 3), BrokerUnavailable)
    offline = "no suitable peers for placement, peer offline"
    assert isinstance(refused("s", {"err_code": 10005, "description": offline}, 3), BrokerUnavailable)


def _info(name: str, replicas: int) -> dict[str, Any]:
    return {"config": {"name": name, "num_replicas": replicas}}


def test_other_replicas_than_asked_for_are_told_with_what_to_do() -> None:
    assert check_replicas([_info("a", 3), _info("b", 3)], 3)
    assert check_replicas([_info("a", 1), _info("b", 3)], None)
    assert not check_replicas([_info("a", 1)], None)
    with pytest.raises(ConfigError) as raised:
        check_replicas([_info("b", 1), _info("a", 1), _info("c", 3)], 3)
    assert str(raised.value) == (
        "broker: replicas=3 is asked for, and a has 1: change all of them while nobody is served, with nats stream "
        "edit --replicas=3 a b (one at a time), or ask for replicas=1"
    )


# --- a server that is there


@asynccontextmanager
async def server_with(folder: Path, **config: Any) -> AsyncIterator[NatsServer]:
    server = await asyncio.to_thread(partial(NatsServer, folder, **config))
    try:
        yield server
    finally:
        await asyncio.to_thread(server.kill)


async def start_at(url: str) -> None:
    """Start a broker, and use all that a node uses."""
    broker, ears = NatsBroker(url), Ears()
    try:
        await again(broker.start)
        await broker.subscribe("s", ears)
        appended = await broker.append("s", draft("m"))
        assert (await broker.append("s", draft("m"))) == appended.again
        await broker.publish("s", b"x")
        await ears.until(2)
        revision = await broker.put("k", b"v", ttl=60)
        assert await broker.get("k") == (b"v", revision)
        await broker.delete("k")
        await broker.forget("s")
        await broker.unsubscribe("s", ears)
    finally:
        await broker.close()


@pytest.mark.bellwire(clock="real")
async def test_a_server_without_jetstream_is_told_at_once(tmp_path: Path) -> None:
    async with server_with(tmp_path, jetstream=False) as server:
        with pytest.raises(ConfigError, match=r"write jetstream \{\} into"):
            await start_at(server.url)


@pytest.mark.bellwire(clock="real")
async def test_an_account_without_jetstream_is_told_at_once(tmp_path: Path) -> None:
    accounts = {
        "with": {"jetstream": "enabled", "users": [{"user": "a", "password": "p"}]},
        "without": {"users": [{"user": "b", "password": "p"}]},
    }
    async with server_with(tmp_path, accounts=accounts, authorization={}) as server:
        await start_at(f"nats://a:p@127.0.0.1:{server.port}")
        with pytest.raises(ConfigError, match=r"not enabled for this account.*jetstream: enabled"):
            await start_at(f"nats://b:p@127.0.0.1:{server.port}")


HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "nats.md"


def documented() -> dict[str, list[str]]:
    """Return the permissions that the documentation lists."""
    (publish, subscribe) = re.findall(r"allow: \[(.*?)\]", HOWTO.read_text(), re.DOTALL)
    return {kind: re.findall(r'"(.*?)"', text) for kind, text in (("publish", publish), ("subscribe", subscribe))}


@pytest.mark.bellwire(clock="real")
async def test_the_permissions_in_the_documentation_are_enough_and_nothing_less_is_told(tmp_path: Path) -> None:
    allowed = {kind: {"allow": subjects} for kind, subjects in (await asyncio.to_thread(documented)).items()}
    users = [
        {"user": "all", "password": "p", "permissions": allowed},
        {"user": "silent", "password": "p", "permissions": allowed | {"publish": "nothing"}},
        {"user": "deaf", "password": "p", "permissions": allowed | {"subscribe": "nothing"}},
    ]
    async with server_with(tmp_path, authorization={"users": users}) as server:
        at = f"127.0.0.1:{server.port}"
        await start_at(f"nats://all:p@{at}")
        for user, refused_to in (("silent", "publish to .*js.api.info"), ("deaf", "subscription to .*_inbox")):
            with pytest.raises(ConfigError, match=f"NATS refuses permissions violation for {refused_to}"):
                await start_at(f"nats://{user}:p@{at}")


@pytest.mark.bellwire(clock="real")
async def test_tls_with_a_certificate_authority_of_ones_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")

    def write() -> dict[str, str]:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        return {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}

    async with server_with(tmp_path, tls=await asyncio.to_thread(write)) as server:
        url = server.url.replace("nats://", "tls://")
        await start_at(f"{url}?ca={tmp_path}/ca.pem")
        for wrong in ("", f"?ca={tmp_path}/other.pem"):
            with pytest.raises(BrokerUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
                await NatsBroker(url + wrong).start()
        with pytest.raises(ConfigError, match=r"ca=.*/absent\.pem cannot be used: No such file"):
            await NatsBroker(f"{url}?ca={tmp_path}/absent.pem").start()
        with pytest.raises(ConfigError, match=r"ca=.*/key\.pem cannot be used"):
            await NatsBroker(f"{url}?ca={tmp_path}/key.pem").start()


@pytest.mark.bellwire(clock="real")
async def test_an_nkey_says_who_we_are(tmp_path: Path) -> None:
    seed, other = (nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) for _ in range(2))

    def write() -> None:
        (tmp_path / "user.nk").write_bytes(seed)
        (tmp_path / "other.nk").write_bytes(other)

    await asyncio.to_thread(write)
    user = nkeys.from_seed(bytearray(seed)).public_key.decode()
    async with server_with(tmp_path, authorization={"users": [{"nkey": user}]}) as server:
        at = f"nats://127.0.0.1:{server.port}"
        await start_at(f"{at}?nkey={tmp_path}/user.nk")
        for wrong in ("", f"?nkey={tmp_path}/other.nk"):
            with pytest.raises(BrokerUnavailable, match="Authorization Violation"):
                await NatsBroker(at + wrong).start()
        with pytest.raises(ConfigError, match=r"nkey=/absent cannot be used: No such file"):
            await NatsBroker(f"{at}?nkey=/absent").start()
        with pytest.raises(ConfigError, match=r"nkey=.*\.conf cannot be used: it holds no seed"):
            await NatsBroker(f"{at}?nkey={tmp_path}/test.conf").start()


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class Operator:
    """Signs for accounts and users, as nsc does (nats.docs, "JWT")."""

    def __init__(self, prefix: int, signer: "Operator | None" = None, **claims: Any) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.key = self._pair.public_key.decode()
        issuer = signer or self
        claims = {"jti": self.key, "iat": 1, "iss": issuer.key, "sub": self.key, "name": "test", "nats": claims}
        text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
        signature = base64.urlsafe_b64encode(issuer._pair.sign(text.encode())).decode().rstrip("=")
        self.jwt = f"{text}.{signature}"


@pytest.mark.bellwire(clock="real")
async def test_a_file_of_credentials_says_who_we_are(tmp_path: Path) -> None:
    limits = dict.fromkeys(("subs", "data", "payload", "conn", "leaf"), -1)
    jetstream = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    operator = Operator(nkeys.PREFIX_BYTE_OPERATOR, type="operator", version=2)
    account = Operator(nkeys.PREFIX_BYTE_ACCOUNT, operator, type="account", version=2, limits=limits | jetstream)
    user = Operator(nkeys.PREFIX_BYTE_USER, account, type="user", version=2, subs=-1, data=-1, payload=-1)
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{user.jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )

    def write() -> None:
        (tmp_path / "user.creds").write_text(credentials)
        (tmp_path / "seedless.creds").write_text(credentials.partition("\n\n")[0])

    await asyncio.to_thread(write)
    system = Operator(nkeys.PREFIX_BYTE_ACCOUNT, operator, type="account", version=2, limits=limits)
    accounts = {"resolver_preload": {a.key: a.jwt for a in (account, system)}, "system_account": system.key}
    more = {"operator": operator.jwt, "resolver": "MEMORY", "authorization": {}, **accounts}
    async with server_with(tmp_path, **more) as server:
        at = f"nats://127.0.0.1:{server.port}"
        await start_at(f"{at}?credentials={tmp_path}/user.creds")
        with pytest.raises(BrokerUnavailable, match="Authorization Violation"):
            await NatsBroker(at).start()
        with pytest.raises(ConfigError, match=r"seedless\.creds cannot be used: it holds no JWT and seed"):
            await NatsBroker(f"{at}?credentials={tmp_path}/seedless.creds").start()
