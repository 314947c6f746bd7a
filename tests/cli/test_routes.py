"""``bellwire routes``: the events of an application, as a table and as JSON."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import msgspec
import pytest
from click.testing import CliRunner, Result

from bellwire import PlainText
from bellwire.cli import main
from bellwire.cli.routes import type_name

APPLICATION = """
from typing import Annotated
import msgspec
from bellwire import Event, PlainText, Server

class Draft(msgspec.Struct):
    text: str

SEND = Event("message:send", Draft, PlainText, reply=list[int])
SENT = Event("message[sent]", rate="10/s", volatile=True)

server = Server()
chat = server.namespace("/chat", emits=(SENT,))
server.namespace("/org/{org}")

@chat.on(SEND)
async def send(socket, draft, text):
    return []
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "empty.py").write_text("from bellwire import Server\nserver = Server()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def routes(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["routes", *arguments])


def test_the_table_has_a_row_for_each_event() -> None:
    result = routes("app:server")
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [
        ["namespace", "event", "payload", "reply", "rate", "volatile"],
        ["/chat", "handles", "message:send", "Draft,", "PlainText", "list[int]", "-", "-"],
        ["emits", "message[sent]", "-", "-", "10/s", "yes"],
        ["/org/{org}", "no", "events"],
    ]


def test_json_has_an_object_for_each_namespace() -> None:
    result = routes("app:server", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == [
        {
            "namespace": "/chat",
            "handled": [
                {
                    "event": "message:send",
                    "payload": ["Draft", "PlainText"],
                    "reply": "list[int]",
                    "volatile": False,
                    "rate": None,
                }
            ],
            "emitted": [{"event": "message[sent]", "payload": [], "reply": None, "volatile": True, "rate": "10/s"}],
        },
        {"namespace": "/org/{org}", "handled": [], "emitted": []},
    ]


def test_a_server_without_namespaces_says_so() -> None:
    assert routes("empty:server").output == "empty:server has no namespaces.\n"
    assert json.loads(routes("empty:server", "--json").output) == []


class Draft(msgspec.Struct):
    text: str


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (str, "str"),
        (None, "None"),
        (type(None), "None"),
        (Any, "Any"),
        (Draft, "Draft"),
        (PlainText, "PlainText"),
        (Annotated[PlainText, msgspec.Meta(max_length=5)], "PlainText"),
        (Annotated[int, msgspec.Meta(gt=0)], "int"),
        (list[Draft], "list[Draft]"),
        (list[Any], "list[Any]"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (str | None, "str | None"),
        (Optional[Draft], "Draft | None"),  # noqa: UP045 - the older way to write it
        (list[Annotated[int, msgspec.Meta(gt=0)] | None], "list[int | None]"),
        (Literal["up", "down"], "'up' | 'down'"),
    ],
)
def test_types_are_written_as_people_do(type_: Any, name: str) -> None:
    assert type_name(type_) == name
