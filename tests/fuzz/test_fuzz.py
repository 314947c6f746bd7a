"""A short run of `python -m tests.fuzz`; what a long one has found is in the tests of the parser."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 4

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="Atheris is not installed: it has wheels for Linux on x86-64"
)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@needs_atheris
def test_a_short_run_over_all_targets_finds_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "all", "--seconds", str(SECONDS), "--corpus", "corpus", "--seed", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*"))
    assert "Done" in done.stderr
