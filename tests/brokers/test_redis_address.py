"""Addresses of Redis: what they say, and that none is shown with its secrets."""

import pytest

from bellwire.brokers.redis_address import RedisAddress
from bellwire.core.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", RedisAddress("host", 6379, encrypted=False)),
        ("redis://host:1/", RedisAddress("host", 1, encrypted=False)),
        ("rediss://host:1/7", RedisAddress("host", 1, encrypted=True, database=7)),
        ("redis://[::1]:2", RedisAddress("::1", 2, encrypted=False)),
        ("redis://:p%40ss@host", RedisAddress("host", 6379, encrypted=False, password="p@ss")),
        (
            "rediss://:p@a,b:2/3?sentinel=ma%20in",
            RedisAddress(
                "", 0, encrypted=True, password="p", database=3, sentinels=(("a", 26379), ("b", 2)), service="ma in"
            ),
        ),
        ("redis://:p@a,b:2", RedisAddress("a", 6379, encrypted=False, password="p", others=(("b", 2),))),
        ("redis://us%2Fer:p:w@h", RedisAddress("h", 6379, encrypted=False, user="us/er", password="p:w")),
    ],
)
def test_an_address_is_read(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("nats://host", "begins with redis://"),
        ("redis://", "write redis://host:6379"),
        ("redis://:6379", "write redis://host:6379"),
        ("redis://host:0", "write redis://host:6379"),
        ("redis://host:x", "a port is a number"),
        ("redis://host:70000", "a port is a number"),
        ("redis://host/x", "a database is a number"),
        ("redis://host/-1", "a database is a number"),
        ("redis://host#x", "write redis://host:6379"),
        ("redis://[::1", "a port is a number"),
        ("redis://secret@host", "a password stands behind a colon"),
        ("redis://secret:@host", "a password stands behind a colon"),
        ("redis://:sec@ret@host", "write user and password once"),
        ("redis://:sec/ret@host", "write user and password once"),
        ("redis://:secret@a,b/3", "a cluster, which has no databases"),
        ("redis://:secret@a?cluster", "there is one option"),
        ("redis://:secret@a?sentinel=", "there is one option"),
        ("redis://:secret@a?sentinel=b&x=y", "there is one option"),
        ("redis://a,,b?sentinel=main", "write redis://host:6379"),
    ],
)
def test_what_is_none_is_told_with_its_remedy_and_without_its_secrets(url: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy) as raised:
        RedisAddress.parse(url)
    assert "sec" not in str(raised.value)
