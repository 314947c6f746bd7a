"""The public surface as type checkers see it, without any flag that users would have to set."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SURFACE = Path(__file__).with_name("surface.py.txt")


def _expected() -> list[int]:
    lines = SURFACE.read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith("# error")]


def _run(directory: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", "MYPY_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def _refused(directory: Path, module: str, *arguments: str) -> list[int]:
    pytest.importorskip(module, reason=f"{module} is not installed: pip install --group check")
    if _run(directory, module, "--version").returncode:  # pyright fetches itself from the npm registry
        pytest.skip(f"{module} does not start here")
    shutil.copy(SURFACE, directory / "surface.py")
    run = _run(directory, module, *arguments, "surface.py")
    assert run.returncode == 1, run.stdout + run.stderr
    print(run.stdout)  # noqa: T201 - shown when the test fails
    return sorted({int(line) for line in re.findall(r"surface\.py:(\d+):.*\berror\b", run.stdout)})


def test_the_surface_says_what_is_wrong() -> None:
    assert len(_expected()) == 40


@pytest.mark.timeout(180)
def test_mypy_agrees(tmp_path: Path) -> None:
    cache = Path(__file__).parents[2] / ".mypy_cache" / "surface"
    assert _refused(tmp_path, "mypy", "--strict", "--python-version=3.11", f"--cache-dir={cache}") == _expected()


@pytest.mark.timeout(180)
@pytest.mark.node
def test_pyright_agrees(tmp_path: Path) -> None:
    arguments = (f"--pythonpath={sys.executable}", "--pythonversion=3.11")
    assert _refused(tmp_path, "pyright", *arguments) == _expected()
