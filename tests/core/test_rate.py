"""Rates as they are written."""

import pytest

from bellwire.core.rate import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, 1)),
        ("30/min", Rate(30, 60)),
        ("1/h", Rate(1, 3600)),
        ("999999999/s", Rate(999_999_999, 1)),
        ("off", None),
    ],
)
def test_rates(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0/s", "10", "10/d", "-1/s", "1.5/s", "10/s\n", "OFF", "1000000000/s", "٣/s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rate: write it as '10/s', '30/min', '100/h' or 'off'$"):
        parse_rate(text)
