import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import pytest

import bellwire.load.__main__ as load
from bellwire.load.amounts import amount, count, counts, fraction

NONE = ("0", "-1", "nan", "inf", "-inf", "", "many")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (count, (*NONE, "1.5")),
        (counts, (*NONE, "1.5", "1,", "1,,2", "1,0")),
        (amount, NONE),
        (fraction, (*NONE, "1.01")),
    ],
    ids=["count", "counts", "amount", "fraction"],
)
def test_what_cannot_be_measured_is_refused(kind: Callable[[str], object], wrong: tuple[str, ...]) -> None:
    for word in wrong:
        with pytest.raises(ArgumentTypeError, match="is"):
            kind(word)


def test_what_can_be_measured_is_taken() -> None:
    assert (count("1"), amount("0.05"), fraction("1"), fraction("0.2")) == (1, 0.05, 1.0, 0.2)
    assert (counts("1"), counts("1,32")) == ([1], [1, 32])


def test_no_load_takes_a_number_that_is_not_looked_at() -> None:
    code = Path(load.__file__).read_text()
    unseen = set(re.findall(r'"--([\w-]+)", type=(?:int|float|lambda)\b', code))
    assert unseen == {"port", "publish-at", "server"}, "ports and a process, which whoever starts it knows"


@pytest.mark.parametrize("size", ["7", "60001"])
def test_a_load_of_payloads_that_cannot_be_made_is_refused(size: str) -> None:
    """Shorter ones could not be told apart, longer ones do not go into the frames that its clients make."""
    for said, why in ((size, "a payload has 8 to 60,000 bytes"), ("8", ""), ("60000", "")):
        assert load.check(load.parser().parse_args(["fanout", "--port", "1", "--size", said])) == why


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--connections 0", "argument --connections: '0' is no number from 1 on"),
        ("--rooms 0", "argument --rooms: '0' is no number from 1 on"),
        ("--size -8", "argument --size: '-8' is no number from 1 on"),
        ("--windows 1,x", "argument --windows: 'x' is no number from 1 on"),
        ("--seconds nan", "argument --seconds: 'nan' is no number above 0"),
    ],
)
def test_a_load_says_which_number_is_wrong(words: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        load.parser().parse_args(["rooms", "--port", "1", *words.split()])
    assert end.value.code == 2
    assert why in capsys.readouterr().err
