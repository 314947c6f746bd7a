"""The pages of the documentation, taken apart: code blocks, links, headings.

A block whose first line is ```` ```python title="chat/server.py" ```` is a file. All pages together form one project in
which no path stands on two pages; where a page shows a file again, the later one takes its place. A block without a
title is a fragment: it only has to be valid.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block, and where it stands."""

    page: Path
    line: int
    language: str
    title: str | None
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that users read."""
    top = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    folders = [ROOT / name for name in ("docs", "examples", "deploy")]
    return [*top, *(page for folder in folders for page in sorted(folder.rglob("*.md")))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page,
            text[: match.start()].count("\n") + 1,
            match["language"],
            match["title"],
            match["code"],
        )
        for match in _FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    """The fenced blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The targets of a page's links, as they are written."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What may stand behind ``#`` in a link to this page: its headings, in the spelling of GitHub."""
    return {_slug(heading) for heading in _HEADING.findall(prose(page))}


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def write_project(directory: Path, chosen: list[Block]) -> list[Path]:
    """Write the files that blocks show; return their paths inside ``directory``, each once."""
    paths: dict[Path, None] = {}
    for block in chosen:
        assert block.title is not None
        path = directory / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.code)
        paths[Path(block.title)] = None
    return list(paths)
