"""No part of a secret is shown, however badly the address is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellwire.core.redaction import without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("memory://", "memory://"),
        ("nats://host:4222,other", "nats://host:4222,other"),
        ("nats://token@host", "nats://***@host"),
        ("nats://user:password@host:4222,other", "nats://***@host:4222,other"),
        ("nats://user:p@ss/wo,rd?#@host", "nats://***@host"),
        ("nats://user:http://x@host", "nats://***@host"),
        ("user:password@host", "***@host"),
        ("us@er://password@host", "***@host"),
        ("nats://@host", "nats://***@host"),
    ],
)
def test_what_stands_before_the_host_is_hidden(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


@given(
    scheme=st.sampled_from(["nats://", "tls://", ""]),
    secret=st.text(min_size=1),
    host=st.from_regex(r"[a-z.,:]+", fullmatch=True),
)
def test_no_secret_comes_through(scheme: str, secret: str, host: str) -> None:
    shown = without_secrets(f"{scheme}{secret}SECRET@{host}")
    assert "SECRET" not in shown
    assert shown.endswith(f"@{host}")
