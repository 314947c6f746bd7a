"""What is read out of what clients have said; the servers are tried by hand."""

from typing import Any

import pytest

from tests.chaos.compare import Heard, table


def noted(*numbers: int) -> list[list[Any]]:
    return [["noted", "w", number] for number in numbers]


FIRST = ["connect", "a", False]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ([FIRST, *noted(1, 2, 3, 4)], Heard(0, 0, 0, 0, 0)),
        ([FIRST, *noted(1), ["connect", "a", True], *noted(2, 3, 4)], Heard(1, 0, 0, 0, 0)),
        ([FIRST, *noted(1), ["connect", "a", True], *noted(4)], Heard(1, 2, 2, 0, 0)),
        ([FIRST, *noted(1), ["connect", "a", None], *noted(4)], Heard(1, 2, 2, 0, 0)),
        ([FIRST, *noted(1), ["connect", "b", False], *noted(4)], Heard(1, 2, 0, 0, 0)),
        ([FIRST, *noted(3), ["connect", "b", False], *noted(4)], Heard(1, 2, 2, 0, 0)),
        ([["state", "connected"], *noted(1), ["reset", "r", "truncated"], *noted(4)], Heard(0, 2, 0, 0, 0)),
        ([FIRST, *noted(1, 2, 2, 1, 3, 4)], Heard(0, 0, 0, 2, 1)),
        ([FIRST, *noted(1, 2, 5)], Heard(0, 2, 2, 0, 0)),
    ],
)
def test_what_became_of_a_client(said: list[list[Any]], heard: Heard) -> None:
    assert Heard.of(said, 4) == heard


def test_the_table_has_a_number_for_each_client() -> None:
    assert table([("one", [Heard(1, 2, 3, 4, 5), Heard(0, 0, 0, 0, 0)]), ("another", [Heard(10, 0, 0, 0, 0)])]) == (
        "         reconnected  lost  silently  doubled  disordered\n"
        "one      1 0          2 0   3 0       4 0      5 0\n"
        "another  10           0     0         0        0\n"
    )
