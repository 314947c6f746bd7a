"""The table of the threat model: a row for each attack, and tests by the names that it gives."""

import re

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "explanation" / "threat-model.md"


def rows() -> dict[str, list[str]]:
    found = re.findall(r"^\| (S\d+) \|.*\| ([^|]*) \|$", PAGE.read_text(), re.MULTILINE)
    return {row: re.findall(r"`(test_\w+)`", tests) for row, tests in found}


def test_there_is_a_row_for_each_attack() -> None:
    assert list(rows()) == [f"S{number}" for number in range(1, 28)]


def test_each_row_names_tests_that_are_there() -> None:
    written = "\n".join([path.read_text() for path in (ROOT / "tests").rglob("test_*.py")])
    there = set(re.findall(r"def (test_\w+)\(", written))
    for row, names in rows().items():
        assert names, row
        assert all(name.startswith(f"test_{row.lower()}_") for name in names), row
        assert set(names) <= there, set(names) - there
