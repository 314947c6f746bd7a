"""The package that is built has all that stands beside the code."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "bellwire"
COMPILED = {".c", ".so", ".pyd"}


def test_every_file_beside_the_code_is_named() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["bellwire"]
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    beside = {path for path in files if path.suffix not in {".py", *COMPILED}}
    assert PACKAGE / "py.typed" in beside
    assert beside - {path for pattern in patterns for path in PACKAGE.glob(pattern)} == set()


def test_every_folder_of_code_is_a_package() -> None:
    """setuptools looks for these."""
    assert [path for path in PACKAGE.rglob("*.py") if not (path.parent / "__init__.py").exists()] == []
