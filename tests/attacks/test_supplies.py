"""S12, S25: scripts that are made of input, and versions of others' code that have known holes."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "bellwire"

FLOORS = {
    "h11": (0, 16),  # CVE-2025-43859
    "websockets": (10, 0),  # CVE-2021-33880, CVE-2018-1000518
    "pyjwt": (2, 13),  # CVE-2026-48523, CVE-2022-29217
    "python-socketio": (5, 14),  # CVE-2025-61765; of the tests alone
}


def test_s12_scripts_are_files_and_no_program_puts_one_together() -> None:
    for path in SOURCE.rglob("*.py"):
        assert "redis.call" not in path.read_text(), path
    scripts = sorted(SOURCE.rglob("*.lua"))
    assert scripts
    for path in scripts:
        code = re.sub(r"--.*", "", path.read_text())
        assert not re.search(r"\b(loadstring|load|dofile|require)\b", code), path


def test_s12_the_versions_of_brokers_are_named() -> None:
    assert "7.0" in (ROOT / "docs" / "howto" / "redis.md").read_text()
    assert re.search(r"2\.1\d", (ROOT / "docs" / "howto" / "nats.md").read_text())


@pytest.mark.parametrize("package", FLOORS)
def test_s25_nothing_runs_here_that_is_known_to_be_open(package: str) -> None:
    found = tuple(int(part) for part in re.findall(r"\d+", version(package))[:2])
    assert found >= FLOORS[package]


def test_s25_what_is_installed_with_us_has_floors() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(re.search(r">=|==", requirement) for requirement in project["dependencies"])
