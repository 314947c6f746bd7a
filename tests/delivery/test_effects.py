"""The four effects and the names they go by."""

import hashlib
from typing import get_args

import pytest

from bellwire.delivery.effects import (
    APPEND_SECONDS,
    DEDUPE_SECONDS,
    RULES,
    Effect,
    message_id,
    payload_digest,
    producer_key,
)

PRODUCER = "0123456789abcdef" * 2


def test_every_effect_has_its_rule() -> None:
    assert set(RULES) == set(get_args(Effect))
    assert [effect for effect, rule in RULES.items() if not rule.started] == ["relay"]
    assert [effect for effect, rule in RULES.items() if not rule.again] == ["at_most_once"]
    assert [effect for effect, rule in RULES.items() if rule.keyed] == ["transactional"]


def test_two_attempts_to_append_are_never_further_apart_than_the_broker_remembers() -> None:
    assert APPEND_SECONDS == 60
    assert APPEND_SECONDS * 2 == DEDUPE_SECONDS


def test_c14_ids_of_two_tabs_and_of_two_users_are_apart() -> None:
    other = "f" * 32
    keys = [
        producer_key(principal, producer)
        for principal in (None, "", "ann", "bob", "-", "+ann")
        for producer in (PRODUCER, other)
    ]
    assert len(set(keys)) == len(keys)
    assert producer_key("ann", PRODUCER) == producer_key("ann", PRODUCER)


@pytest.mark.parametrize("producer", ["", "0" * 31, "0" * 33, "0" * 31 + "G", "A" * 32, "0" * 32 + "\n", "\u0660" * 32])
def test_what_is_no_producer_id_is_refused(producer: str) -> None:
    with pytest.raises(ValueError, match="32 lower-case hexadecimal"):
        producer_key("ann", producer)


def test_a_message_id_is_what_any_node_makes_of_the_same_emission() -> None:
    """The formula is part of the record's format: nodes of two versions complete each other's relays."""
    key = producer_key("ann", PRODUCER)
    parts = (key.encode(), b"7", b"0")
    hashed = b"bellwire.emission.1" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert message_id(key, 7, 0) == hashlib.sha256(hashed).hexdigest()[:32]


def test_message_ids_are_apart() -> None:
    key, other = producer_key("ann", PRODUCER), producer_key("bob", PRODUCER)
    ids = [message_id(name, number, index) for name in (key, other) for number in (1, 11, 2) for index in (0, 1, 11)]
    assert len(set(ids)) == len(ids)
    assert all(len(mid) == 32 for mid in ids)


def test_a_digest_tells_where_one_part_ends() -> None:
    assert len(payload_digest(b"name", b"payload")) == 16
    assert payload_digest(b"name", b"payload") == payload_digest(b"name", b"payload")
    assert payload_digest(b"name", b"payload") != payload_digest(b"namep", b"ayload")
    assert payload_digest(b"a", b"") != payload_digest(b"a")
