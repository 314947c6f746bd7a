"""Which broker an address means; a real nats-server where one is needed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from bellwire.brokers.memory import MemoryBroker
from bellwire.brokers.nats import NatsBroker
from bellwire.brokers.redis import RedisBroker
from bellwire.brokers.urls import make_broker
from bellwire.core.counters import Counters
from bellwire.core.errors import BrokerUnavailable, ConfigError
from bellwire.delivery.log import DEFAULT_LIMITS, Limits
from tests.brokers.contract import draft
from tests.brokers.nats_server import NatsServer

LIMITS = Limits(messages=3)


def test_each_scheme_has_its_broker() -> None:
    assert type(make_broker("memory://", LIMITS, Counters())) is MemoryBroker
    assert type(make_broker("nats://host", LIMITS, Counters())) is NatsBroker
    assert type(make_broker("tls://user:password@a:1,b", LIMITS, Counters())) is NatsBroker
    assert type(make_broker("redis://host", LIMITS, Counters())) is RedisBroker
    assert type(make_broker("rediss://user:password@host:1/2", LIMITS, Counters())) is RedisBroker


@pytest.mark.parametrize("url", ["memcached://secret@host", "memory://secret@host", "memory", "", "NATS://secret@x"])
def test_others_are_named_with_what_there_is_and_without_secrets(url: str) -> None:
    with pytest.raises(ConfigError, match=r"there are memory:// .*, nats://host:4222 and tls://host:4222") as raised:
        make_broker(url, LIMITS, Counters())
    assert "secret" not in str(raised.value)


def test_an_address_that_is_none_is_found_out_before_anything_is_connected() -> None:
    with pytest.raises(ConfigError, match=r"broker = 'nats://\*\*\*@host:port' is no address of NATS: a port"):
        make_broker("nats://secret@host:port", LIMITS, Counters())


@pytest.mark.parametrize(
    ("module", "url", "told"),
    [
        ("nats", "nats://secret@host", "nats:// or tls:// needs the NATS client: pip install 'bellwire[nats]'"),
        ("hiredis", "redis://:secret@host", "redis:// or rediss:// needs a parser: pip install 'bellwire[redis]'"),
    ],
)
def test_without_the_extra_memory_works_and_others_say_what_to_install(module: str, url: str, told: str) -> None:
    source = """
import sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
from bellwire.brokers.urls import make_broker
from bellwire.core.counters import Counters
from bellwire.core.errors import ConfigError
from bellwire.delivery.log import DEFAULT_LIMITS
make_broker("memory://", DEFAULT_LIMITS, Counters())
try:
    make_broker(sys.argv[2], DEFAULT_LIMITS, Counters())
except ConfigError as error:
    sys.exit(str(error))
"""
    command = [sys.executable, "-c", source, module, url]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert run.stderr == f"a broker at {told}\n"


@pytest.mark.bellwire(clock="real")
async def test_the_limits_are_the_brokers(server: NatsServer) -> None:
    for url in ("memory://", server.url):
        broker = make_broker(url, Limits(messages=2), Counters())
        await broker.start()
        start = await broker.top("urls")
        for n in range(5):
            await broker.append("urls", draft(f"m{n}"))
        answer = await broker.read("urls", start, confirmed=True)
        assert not hasattr(answer, "entries")
        page = await broker.read("urls", answer.restart, confirmed=True)
        assert [entry.mid for entry in getattr(page, "entries", ())] == ["m2", "m3", "m4"]
        await broker.close()


@pytest.mark.bellwire(clock="real")
async def test_one_server_of_several_is_enough(server: NatsServer) -> None:
    broker = make_broker(f"{server.url},127.0.0.1:1,127.0.0.1:2", DEFAULT_LIMITS, Counters())
    await broker.start()
    assert await broker.get("urls") is None
    await broker.close()


@pytest.mark.bellwire(clock="real")
async def test_nothing_is_said_in_clear_to_a_server_that_should_encrypt(server: NatsServer) -> None:
    broker = make_broker(server.url.replace("nats://", "tls://"), DEFAULT_LIMITS, Counters())
    with pytest.raises(BrokerUnavailable, match="does not encrypt"):
        await broker.start()
    await broker.close()


@pytest.fixture
def encrypting(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with a certificate of an authority whose own is ``authority.pem``."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "chain.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    tls = {"cert_file": str(tmp_path / "chain.pem"), "key_file": str(tmp_path / "key.pem")}
    server = NatsServer(tmp_path, tls=tls)
    yield server
    server.kill()


@pytest.mark.bellwire(clock="real")
async def test_a_server_that_encrypts_has_to_be_vouched_for(
    encrypting: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = encrypting.url.replace("nats://", "tls://")
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await make_broker(url, DEFAULT_LIMITS, Counters()).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    broker = make_broker(url, DEFAULT_LIMITS, Counters())
    await broker.start()
    assert not (await broker.append("urls", draft("m"))).duplicate
    await broker.close()
