"""When a set of keys is read again, and which keys of it count."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from bellwire import AuthUnavailable
from bellwire.guard.fetch import FetchError
from bellwire.guard.jwks import FRESH_SECONDS, MAX_KEYS, PAUSE_SECONDS, KeySet, usable_keys
from tests.guard.tokens import jwk, key_set, private_key


class Issuer:
    """What stands at an issuer's URL, and how often it was asked for."""

    def __init__(self, *members: dict[str, Any]) -> None:
        self.document = key_set(*members)
        self.away = False
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self) -> bytes:
        self.asked += 1
        self.answers.wait(60)
        if self.away:
            raise FetchError("the answer is 503")
        return self.document


def keys_of(issuer: Issuer) -> KeySet:
    return KeySet(issuer, "https://idp.example/keys", ["RS256", "ES256", "EdDSA"])


async def test_it_is_read_when_the_first_token_comes_and_kept() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    assert issuer.asked == 0
    for _ in range(3):
        found = await keys.find("one")
        assert found is not None
        assert found.algorithms == ("ES256",)
    assert issuer.asked == 1


async def test_a_key_that_is_new_is_found_and_one_that_was_taken_out_is_not_for_long() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    await keys.find("one")
    issuer.document = key_set(jwk("ES256", "two", number=1))
    await asyncio.sleep(PAUSE_SECONDS)
    assert await keys.find("two") is not None
    assert await keys.find("one") is None
    issuer.document = key_set(jwk("ES256", "one"))
    await asyncio.sleep(FRESH_SECONDS)
    assert await keys.find("two") is None
    assert issuer.asked == 3


async def test_names_that_are_made_up_cause_no_more_reads_than_the_pause_lets_through() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    await keys.find("one")
    for number in range(1000):
        assert await keys.find(f"made up {number}") is None
        await asyncio.sleep(PAUSE_SECONDS / 100)
    assert issuer.asked <= 11
    assert await keys.find("one") is not None


async def test_a_thousand_at_a_time_wait_for_one_read() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    found = await asyncio.gather(*[keys.find("one") for _ in range(1000)])
    assert all(found)
    assert issuer.asked == 1


async def test_a_client_that_leaves_while_it_is_read_does_not_end_that() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    leaving = asyncio.ensure_future(keys.find("one"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await keys.find("one") is not None
    assert issuer.asked == 1


async def test_keys_are_kept_while_the_url_is_away(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    await keys.find("one")
    issuer.away = True
    with caplog.at_level(logging.WARNING, "bellwire"):
        for _ in range(5):
            await asyncio.sleep(FRESH_SECONDS)
            assert await keys.find("one") is not None
            await asyncio.sleep(1)
        issuer.away = False
        await asyncio.sleep(PAUSE_SECONDS)
        await keys.find("one")
        await asyncio.sleep(1)
    assert issuer.asked == 7
    assert [record.getMessage() for record in caplog.records] == [
        "the keys at https://idp.example/keys cannot be read: the answer is 503; those of before are kept",
        "the keys at https://idp.example/keys can be read again",
    ]


async def test_nobody_waits_for_a_url_that_is_away_and_whose_key_is_there() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    await keys.find("one")
    issuer.away = True
    await asyncio.sleep(FRESH_SECONDS)
    assert await keys.find("one") is not None
    await asyncio.sleep(PAUSE_SECONDS)
    finding = keys.find("one")
    with pytest.raises(StopIteration) as found:  # at once, though it is asked for
        finding.send(None)
    assert found.value.value is not None
    await asyncio.sleep(PAUSE_SECONDS)
    assert issuer.asked == 3


@pytest.mark.bellwire(clock="real")
async def test_a_read_that_does_not_end_keeps_nobody_waiting_for_long(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(jwk("ES256", "one"))
    issuer.answers.clear()
    keys = KeySet(issuer, "https://idp.example/keys", ["ES256"], patience=0.05)
    with caplog.at_level(logging.WARNING, "bellwire"):
        try:
            for _ in range(3):
                with pytest.raises(AuthUnavailable):
                    await asyncio.wait_for(keys.find("one"), 5)
        finally:
            issuer.answers.set()
        assert keys._reading is not None
        await asyncio.wait_for(keys._reading, 5)
        assert await keys.find("one") is not None
    assert issuer.asked == 1, "there is one read at a time, however long it takes"
    assert [record.getMessage() for record in caplog.records] == [
        "the keys at https://idp.example/keys cannot be read: it takes more than 0.05 seconds",
        "the keys at https://idp.example/keys can be read again",
    ]


async def test_without_any_keys_nobody_can_be_known() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    issuer.away = True
    keys = keys_of(issuer)
    for _ in range(2):
        with pytest.raises(AuthUnavailable, match=r"^the keys at https://idp.example/keys cannot be read$"):
            await keys.find("one")
    assert issuer.asked == 1
    issuer.away = False
    await asyncio.sleep(PAUSE_SECONDS)
    assert await keys.find("one") is not None


def test_it_goes_on_in_another_event_loop() -> None:
    issuer = Issuer(jwk("ES256", "one"))
    keys = keys_of(issuer)
    for _ in range(2):
        assert asyncio.run(keys.find("one")) is not None


async def test_a_token_without_a_name_takes_the_only_key() -> None:
    assert await keys_of(Issuer(jwk("ES256"))).find(None) is not None
    assert await keys_of(Issuer(jwk("ES256"), jwk("RS256"))).find(None) is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"keys": 5}',
        b'{"keys": []}',
        b'{"keys": [5, {}, {"kty": 5}, {"kty": "EC", "crv": []}]}',
        b"[" * 100_000,
        b'{"keys": [' + b"[" * 100_000,
        key_set({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}),
        key_set(jwk("ES256", use="enc")),
        key_set(jwk("ES256", alg="RS256")),
        key_set(jwk("ES256", x="AA")),
        key_set(jwk("ES384")),
        key_set({**jwk("RS256"), "n": "u" * 100}),
        key_set({**jwk("RS256"), "d": "AQAB"}),
    ],
)
def test_what_is_no_set_or_has_no_key_for_us(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(this is no JSON Web Key Set|there is no public key in it for)"):
        usable_keys(document, ("ES256", "RS256"))


def test_a_key_is_for_its_own_algorithms() -> None:
    found = usable_keys(
        key_set(jwk("RS256", "a"), jwk("RS256", "b", alg="RS512"), jwk("EdDSA", "c")),
        ("RS256", "RS512", "ES256", "EdDSA"),
    )
    assert {kid: key.algorithms for kid, key in found.items()} == {
        "a": ("RS256", "RS512"),
        "b": ("RS512",),
        "c": ("EdDSA",),
    }
    assert found["a"].key.public_numbers() == private_key("RS256").public_key().public_numbers()


def test_of_one_name_the_first_key_counts_and_a_set_has_so_many() -> None:
    first, second = jwk("ES256", "one"), jwk("ES256", "one", number=1)
    found = usable_keys(key_set(first, second), ("ES256",))
    assert found["one"].key.public_numbers() == private_key("ES256").public_key().public_numbers()
    many = [{**first, "kid": str(number)} for number in range(MAX_KEYS + 5)]
    assert len(usable_keys(key_set(*many), ("ES256",))) == MAX_KEYS
