"""The package that is built has all that stands beside the code."""

import runpy
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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


@pytest.mark.parametrize("free_threaded", [False, True])
def test_it_can_be_installed_where_the_compiled_part_cannot_be_built(
    free_threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """setuptools refuses to make a wheel of the limited interface for a Python without the lock, up to 3.14."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": int(free_threaded)}.get)
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=said.update, Extension=lambda *_, **kw: kw))
    runpy.run_path(str(ROOT / "setup.py"))
    if free_threaded:
        assert said == {}
    else:
        assert [extension["optional"] for extension in said["ext_modules"]] == [True]
        assert said["options"] == {"bdist_wheel": {"py_limited_api": "cp311"}}
