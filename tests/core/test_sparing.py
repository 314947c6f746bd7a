"""Warnings that come by the thousand."""

import logging

import pytest

from bellwire.core.sparing import Sparing


def test_a_line_in_ten_seconds_says_how_many_were_kept_back(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 1.0, 9.9, 10.0, 19.0, 31.0, 41.0))
    sparing = Sparing(logging.getLogger("test"), lambda: next(times))
    for _ in range(7):
        sparing.warning("%s is away", "it")
    assert caplog.messages == [
        "it is away",
        "it is away (2 more since the last line)",
        "it is away (1 more since the last line)",
        "it is away",
    ]
