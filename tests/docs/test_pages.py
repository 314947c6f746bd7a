"""The pages against the code and against each other: nothing they name is gone, nothing they list is missing."""

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest

import bellwire
import bellwire.testing
from bellwire.cli import main
from bellwire.core.config import config_options
from tests.docs.pages import ROOT, Block, all_blocks, anchors, links, pages, prose

SURFACE: dict[str, Any] = {
    **{name: getattr(bellwire, name) for name in bellwire.__all__},
    **{name: getattr(bellwire.testing, name) for name in bellwire.testing.__all__},
}
REFERENCE = ROOT / "docs" / "reference"


def each_page(*, under: Path = ROOT) -> pytest.MarkDecorator:
    chosen = [page for page in pages() if page.is_relative_to(under)]
    return pytest.mark.parametrize("page", chosen, ids=[str(page.relative_to(ROOT)) for page in chosen])


# --- between pages


@each_page()
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / unquote(target)).resolve() if target else page
        assert path.exists(), f"{link} leads nowhere"
        assert path.is_relative_to(ROOT), f"{link} leads out of the project"
        if anchor:
            assert anchor in anchors(path), f"{link}: there is no such heading"


@each_page(under=ROOT / "docs")
def test_every_page_can_be_found_from_the_index(page: Path) -> None:
    index = ROOT / "docs" / "index.md"
    found = {(index.parent / link).resolve() for link in links(index)}
    assert page == index or page in found


@each_page()
def test_no_page_names_a_path_of_somebodys_machine(page: Path) -> None:
    assert re.search(r"/(work|home|tmp|Users)/", page.read_text()) is None


def test_what_the_readme_has_one_save_is_not_linted_and_not_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    titles = [block.title for block in all_blocks() if block.page == ROOT / "README.md" and block.title is not None]
    assert len(titles) == 3
    assert [title for title in titles if f"/{title}" not in ignored] == []


# --- the surface


@each_page()
def test_what_a_page_names_is_there(page: Path) -> None:
    """`Socket.join` in prose is an attribute of `Socket`; so is every member in the tables of the reference."""
    for owner, member in re.findall(r"`([A-Z][A-Za-z]+)\.([a-z]\w*)", prose(page)):
        if owner in SURFACE:
            assert _has(SURFACE[owner], member), f"{owner}.{member} is not there"


def _has(owner: Any, member: str) -> bool:
    if hasattr(owner, member):
        return True
    source = ast.parse(textwrap.dedent(inspect.getsource(owner)))  # an attribute that __init__ sets
    stores = (node for node in ast.walk(source) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    return any(node.attr == member for node in stores)


def test_a_name_that_is_not_there_is_found_out() -> None:
    assert _has(bellwire.Server, "counters")
    assert _has(bellwire.Socket, "join")
    assert not _has(bellwire.Socket, "enter_room")


@pytest.mark.parametrize("name", bellwire.__all__)
def test_the_reference_names_everything_that_is_exported(name: str) -> None:
    assert any(re.search(rf"`{name}\b|^## {name}$", page.read_text(), re.MULTILINE) for page in REFERENCE.glob("*.md"))


SIGNATURES = [
    (block, statement.value)
    for block in all_blocks()
    if block.page.parent == REFERENCE and block.language == "python"
    for statement in ast.parse(block.code).body
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
]


@pytest.mark.parametrize(("block", "call"), SIGNATURES, ids=[str(block) for block, _ in SIGNATURES])
def test_a_signature_is_the_codes(block: Block, call: ast.Call) -> None:
    assert isinstance(call.func, ast.Name)
    parameters = inspect.signature(SURFACE[call.func.id]).parameters.values()
    words = ast.unparse(call)[:-1].partition("(")[2].split(", ")
    assert [re.sub(r"\*|=.*", "", word) for word in words] == [parameter.name for parameter in parameters]
    for keyword in call.keywords:
        (default,) = (parameter.default for parameter in parameters if parameter.name == keyword.arg)
        assert ast.literal_eval(keyword.value) == default or repr(default) == "<factory>"  # msgspec's


def test_there_are_signatures() -> None:
    assert len(SIGNATURES) >= 4


# --- counters


def test_the_counters_are_those_of_the_code() -> None:
    """By the literals at the calls; what is computed is one of those in the table."""
    used: set[str] = set()
    for path in (ROOT / "src" / "bellwire").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                used |= _series(call)
    listed = _listed()
    assert [series for series in sorted(used) if not _is_listed(series, listed)] == []
    assert len(used) >= 8


def _is_listed(series: str, listed: set[str]) -> bool:
    pattern = re.escape(series).replace(r"=\?", r"=\w+")
    return any(re.fullmatch(pattern, one) for one in listed)


def _series(call: ast.Call) -> set[str]:
    assert isinstance(call.func, ast.Attribute)
    if not ast.unparse(call.func.value).endswith("counters") or call.func.attr not in ("add", "dropped"):
        return set()
    name = _literal(call.args[0])
    labels = {k.arg: _literal(k.value) for k in call.keywords if k.arg != "n"}
    if call.func.attr == "dropped":
        name, labels = "dropped_total", {"kind": name, **labels}
    assert name != "?"
    return {_written(name, labels)}


def _literal(value: ast.expr) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else "?"


def _written(name: str, labels: dict[Any, Any]) -> str:
    order = ("kind", "outcome", "policy", "reason")
    return " ".join([name, *(f"{label}={labels[label]}" for label in order if label in labels)])


def _listed() -> set[str]:
    found, name = set(), ""
    for line in (REFERENCE / "counters.md").read_text().splitlines():
        if line.startswith("| "):
            first, labels, _ = (cell.strip(" `") for cell in line.strip("|").split("|"))
            name = first or name
            found.add(_written(name, dict(re.findall(r'(\w+)="(\w+)"', labels))))
    return found


# --- commands


def test_every_command_and_option_is_described() -> None:
    text = (REFERENCE / "commands.md").read_text()
    settings = {option.field for option in config_options()}
    assert isinstance(main, click.Group)
    assert len(main.commands) >= 4
    for name, command in main.commands.items():
        (section,) = re.findall(rf"^## bellwire {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in settings:
                assert any(option in section for option in parameter.opts), f"{name}: {parameter.opts}"


def test_every_command_that_is_described_is_there() -> None:
    for page in pages():
        for name in re.findall(r"`bellwire ([a-z]+)\b", prose(page)):
            assert name in main.commands, f"{page.name}: bellwire {name}"
