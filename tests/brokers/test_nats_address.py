"""How an address of NATS is read, and what is said of a wrong one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.brokers.nats_address import NatsAddress
from bellwire.core.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("nats://host", NatsAddress(("nats://host:4222",), False)),
        ("nats://host:1/", NatsAddress(("nats://host:1",), False)),
        ("tls://a,b:5", NatsAddress(("tls://a:4222", "tls://b:5"), True)),
        ("nats://[::1]:7,[::2]", NatsAddress(("nats://[::1]:7", "nats://[::2]:4222"), False)),
        ("nats://t%2Fk@a,b", NatsAddress(("nats://a:4222", "nats://b:4222"), False, token="t/k")),
        ("nats://u%3A:p%40:%C3%A4@a", NatsAddress(("nats://a:4222",), False, user="u:", password="p@:ä")),
        ("nats://u:@a", NatsAddress(("nats://a:4222",), False, user="u", password="")),
        ("nats://t@a/?replicas=3", NatsAddress(("nats://a:4222",), False, token="t", replicas=3)),
        ("nats://a?credentials=/c%26.creds", NatsAddress(("nats://a:4222",), False, credentials="/c&.creds")),
        ("tls://a?nkey=/k&ca=/ca", NatsAddress(("tls://a:4222",), True, nkey="/k", ca="/ca")),
    ],
)
def test_servers_and_who_we_are_to_them(url: str, address: NatsAddress) -> None:
    assert NatsAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("host:4222", "begins with nats://"),
        ("http://host", "begins with nats://"),
        ("nats://", "write nats://host:4222"),
        ("nats://a,", "write nats://host:4222"),
        ("nats://a,nats://b", "up to 65535|write nats://host:4222"),
        ("nats://a/b", "write nats://host:4222"),
        ("nats://a?b", "its options are replicas=..., ca=..., credentials=..., nkey=..., each once"),
        ("nats://a?replicas=3&replicas=3", "each once"),
        ("nats://a?nkey=", "each once"),
        ("nats://a?replicas=0", "replicas is a number from 1 to 5"),
        ("nats://a?replicas=33", "replicas is a number from 1 to 5"),
        ("nats://a?ca=/ca.pem", "ca is for tls://"),
        ("nats://a?nkey=/k&credentials=/c", "not both"),
        ("nats://secret@a?nkey=/k", "leave out what stands before the @"),
        ("nats://secret?secret@a", "as %3F"),
        ("nats://:4222", "write nats://host:4222"),
        ("nats://a:port", "a port is a number"),
        ("nats://a:70000", "a port is a number"),
        ("nats://[::1", "IPv6 address stands in brackets"),
        ("nats://secret:sec/ret@a", "with / as %2F"),
        ("nats://secret@a,secret@b", "once, before the first host"),
    ],
)
def test_a_wrong_one_is_shown_without_its_secrets(url: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy) as raised:
        NatsAddress.parse(url)
    assert str(raised.value).startswith("broker = ")
    assert "secret" not in str(raised.value)


@given(st.text().map("nats://".__add__) | st.text())
def test_any_text_is_an_address_or_a_config_error(url: str) -> None:
    try:
        assert NatsAddress.parse(url).servers
    except ConfigError as error:
        assert "is no address of NATS" in str(error)  # noqa: PT017 - either way is right
