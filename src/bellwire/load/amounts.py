"""The numbers of a command line: what cannot be measured is a mistake of whoever asks for it."""

import math
from argparse import ArgumentTypeError


def count(word: str) -> int:
    """How many of something: a number from 1 on."""
    if not word.isdecimal() or int(word) < 1:
        raise ArgumentTypeError(f"{word!r} is no number from 1 on")
    return int(word)


def counts(words: str) -> list[int]:
    """Several numbers from 1 on, with commas between."""
    return [count(word) for word in words.split(",")]


def amount(word: str) -> float:
    """How much of something: more than 0, and finite."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{word!r} is no number above 0")
    return value


def fraction(word: str) -> float:
    """What part of a whole: more than 0, and all of it at most."""
    value = amount(word)
    if value > 1:
        raise ArgumentTypeError(f"{word!r} is more than 1, the whole")
    return value
