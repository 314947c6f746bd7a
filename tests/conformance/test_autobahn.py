"""The Autobahn cases, RFC 6455 and RFC 7692, against the echo server in a process of its own.

Groups 1 to 7 and 10 always, a few seconds; ``BELLWIRE_CONFORMANCE=all`` adds the limits (9) and
compression (12, 13), which take minutes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

CASES = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1}
if os.environ.get("BELLWIRE_CONFORMANCE") == "all":
    CASES |= {"9": 54, "12": 90, "13": 126}

GOOD = {"OK", "INFORMATIONAL"}  # the second: the RFCs leave it open, the suite records what happened


class Verdict(msgspec.Struct):
    behavior: str
    close: str = msgspec.field(name="behaviorClose")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start the echo; its first line ends with its address."""
    command = [sys.executable, "-m", "bellwire.testing.echo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
        try:
            line = echo.stdout.readline() if echo.stdout else ""
            assert "ws://" in line
            yield line.split()[-1]
        finally:
            echo.terminate()


def run_group(address: str, group: str, reports: Path) -> dict[str, Verdict]:
    """Run the group's cases with kosoku and read its report, by case."""
    kosoku = Path(sys.executable).with_name("kosoku")
    options = ["--parallelism", "2", "--outdir", str(reports), "--include", f"{group}.*"]
    run = subprocess.run([kosoku, *options, address], capture_output=True, text=True, check=False)
    index = reports / "index.json"
    assert index.exists(), run.stderr
    (by_case,) = msgspec.json.decode(index.read_bytes(), type=dict[str, dict[str, Verdict]]).values()
    return by_case


@pytest.mark.conformance
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("group", CASES)
def test_every_autobahn_case_behaves(address: str, tmp_path: Path, group: str) -> None:
    by_case = run_group(address, group, tmp_path)
    bad = {
        case: f"{verdict.behavior}, close {verdict.close}"
        for case, verdict in by_case.items()
        if not {verdict.behavior, verdict.close} <= GOOD
    }
    assert not bad, f"see {tmp_path}"
    assert len(by_case) == CASES[group]
