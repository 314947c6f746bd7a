"""Every way to name no server has an error of its own, with what to write instead."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bellwire.cli.loading import LoadError, load_event, load_server
from bellwire.server.server import Server

SOURCE = """
from bellwire import Server

server = Server()
chat = server.namespace("/chat")
number = 7

def make():
    return server

class Middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)

wrapped = Middleware(server)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the package ``shop``; what is imported from it is forgotten again."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "live.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(target: str) -> LoadError:
    with pytest.raises(LoadError) as raised:
        load_server(target)
    return raised.value


def test_the_working_directory_is_importable() -> None:
    assert isinstance(load_server("shop.live:server"), Server)


def test_a_server_inside_an_object_is_found(folder: Path) -> None:
    (folder / "holder.py").write_text("from bellwire import Server\nclass State:\n    server = Server()\n")
    assert isinstance(load_server("holder:State.server"), Server)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("shop.live", "write shop.live:server"),
        ("shop/live.py", "write shop.live:server"),
        ("./shop/live.py:server", "write shop.live:server"),
        ("shop.live:", "write shop.live:server"),
        ("shop.live:make()", "write shop.live:server"),
        (":server", "write chat.server:server for"),
        ("", "write chat.server:server for"),
    ],
)
def test_what_is_not_module_and_server_is_rewritten(target: str, hint: str) -> None:
    error = failure(target)
    assert f"{target!r} is not MODULE:SERVER" in error.message
    assert hint in error.message
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shop.life:server", "there is no module 'shop.life': did you mean 'shop.live'?"),
        ("shopp.live:server", "there is no module 'shopp': did you mean 'shop'?"),
        ("shop.quite_other:server", "there is no module 'shop.quite_other' in the package 'shop': "),
        ("quite_other:server", "there is no module 'quite_other' in "),
        ("shop.live.more:server", "there is no module 'shop.live.more': 'shop.live' is a module and not a package"),
    ],
)
def test_a_missing_module_is_named(target: str, message: str) -> None:
    error = failure(target)
    assert error.message.startswith(message)
    assert error.traceback is None
    assert error.exit_code == 1


def test_a_missing_name_brings_the_servers_of_the_module() -> None:
    assert failure("shop.live:app").message == ("the module 'shop.live' has no 'app': did you mean shop.live:server?")


def test_several_servers_are_all_named(folder: Path) -> None:
    (folder / "two.py").write_text("from bellwire import Server\na, b = Server(), Server()\n")
    assert failure("two:c").message == "the module 'two' has no 'c': its servers are two:a, two:b"


def test_a_module_without_servers_is_told_how_to_get_one() -> None:
    assert failure("shop:server").message.endswith("it has no bellwire.Server at all; make one with server = Server()")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "is no bellwire.Server but of the type int: did you mean shop.live:server?"),
        ("chat", "is a Namespace, which is served as a part of its server: did you mean shop.live:server?"),
        ("Server", "is a class: name an object, made with server = Server()"),
        ("make", "is a function: call it in the module, server = make(), and name the result"),
    ],
)
def test_what_is_no_server_is_told_apart(name: str, message: str) -> None:
    assert failure(f"shop.live:{name}").message == f"shop.live:{name} {message}"


def test_a_server_inside_another_application_is_refused_with_a_hint() -> None:
    assert failure("shop.live:wrapped").message == (
        "shop.live:wrapped is another ASGI application (Middleware), which cannot be served natively: a Server that is "
        "mounted is served with `uvicorn shop.live:wrapped`; to serve both natively, join them with "
        "server = Server(http=wrapped) and run that server"
    )


def test_an_application_that_a_server_has_is_refused_for_that_server(folder: Path) -> None:
    source = SOURCE + "\njoined = Server(http=wrapped)\n"
    (folder / "shop" / "joined.py").write_text(source)
    assert failure("shop.joined:wrapped").message.endswith("natively: did you mean shop.joined:joined?")


def test_an_application_without_any_server_is_for_uvicorn(folder: Path) -> None:
    (folder / "shop" / "pages.py").write_text("from shop.live import wrapped as app\n")
    message = failure("shop.pages:app").message
    assert "natively: serve it as it is with `uvicorn shop.pages:app`; " in message
    assert "mounted" not in message


def test_a_failing_import_shows_the_applications_lines_only(folder: Path) -> None:
    (folder / "broken.py").write_text("def fail():\n    raise LookupError('no key')\n\nfail()\n")
    error = failure("broken:server")
    assert error.message == "importing broken failed, see above: the error is in the application's own code"
    assert error.traceback is not None
    # Python 3.13 underlines the call
    lines = [line for line in error.traceback.splitlines() if line.strip(" ~^")]
    assert lines == [
        "Traceback (most recent call last):",
        f'  File "{folder}/broken.py", line 4, in <module>',
        "    fail()",
        f'  File "{folder}/broken.py", line 2, in fail',
        "    raise LookupError('no key')",
        "LookupError: no key",
    ]


def test_a_missing_module_that_the_application_imports_is_its_own_failure(folder: Path) -> None:
    (folder / "needy.py").write_text("import quite_other\n")
    error = failure("needy:server")
    assert error.traceback is not None
    assert error.traceback.endswith("ModuleNotFoundError: No module named 'quite_other'")
    assert str(folder / "needy.py") in error.traceback


def test_a_syntax_error_is_shown_where_it_is(folder: Path) -> None:
    (folder / "wrong.py").write_text("server = = 1\n")
    error = failure("wrong:server")
    assert error.traceback is not None
    assert "importlib" not in error.traceback
    assert f'File "{folder}/wrong.py", line 1' in error.traceback
    assert error.traceback.endswith("SyntaxError: invalid syntax")


def test_a_script_that_exits_is_no_silent_end(folder: Path) -> None:
    (folder / "script.py").write_text("import sys\nsys.exit(0)\n")
    assert failure("script:server").message.startswith("importing script ends the program (SystemExit: 0)")


def test_the_traceback_stands_before_the_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    failure("broken:server").show()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "ZeroDivisionError: division by zero"
    assert lines[-1].startswith("Error: importing broken failed")


def test_an_event_is_found_as_a_server_is(folder: Path) -> None:
    (folder / "shop" / "events.py").write_text('from bellwire import Event\nSOLD = Event("sold", int)\n')
    assert load_event("shop.events:SOLD").name == "sold"
    for target, message in (
        ("shop.events:sold", "the module 'shop.events' has no 'sold': did you mean shop.events:SOLD?"),
        ("shop.live:server", "shop.live:server is no Event but of the type Server: it has no bellwire.Event at all; "),
        ("shop.event:SOLD", "there is no module 'shop.event': did you mean 'shop.events'?"),
        ("sold", "'sold' is not MODULE:EVENT: write chat.events:SENT for "),
    ):
        with pytest.raises(LoadError) as raised:
            load_event(target)
        assert raised.value.message.startswith(message)
