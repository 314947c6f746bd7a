"""Tables made from the code, and from figures: ``python -m tests.docs.tables`` writes them into their pages."""

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from bench.contestants import BUN, GUARDED, NCHAN, OVER_VALKEY, PLAIN, PYTHON_SOCKETIO, SOCKET_IO, TWO_WORKERS
from bench.works import BROKERS, EVERYONE, OURS

import bellwire
from bellwire.core.config import Option, config_options
from bellwire.core.errors import BellwireError, EventRefused, TokenRefused
from bellwire.load.result import CPU, IDLE_CPU, P99
from bench import growth, model, tables
from tests.docs.pages import ROOT

PAGES = {
    "config": ROOT / "docs/reference/config.md",
    "errors": ROOT / "docs/reference/errors.md",
    "growth": ROOT / "docs/explanation/growth.md",
    "model": ROOT / "docs/explanation/growth.md",
    "speed": ROOT / "README.md",
    "nodes": ROOT / "README.md",
    "matrix": ROOT / "docs/explanation/matrix.md",
    "workers": ROOT / "docs/howto/several-processes.md",
    "recovery": ROOT / "docs/explanation/fan-out.md",
}


def config_table() -> str:
    """Every setting of `Config`: name, type, default, meaning."""
    rows = [f"| `{o.field}` | {_type(o)} | `{_value(o.default)}` | {_sentence(o.help)} |" for o in config_options()]
    return "\n".join(("| Setting | Type | Default | Meaning |", "|---|---|---|---|", *rows))


def errors_table() -> str:
    """Every error that users meet, with the code and the first sentence of its docstring."""
    rows = [
        f"| `{error.__name__}` | {_code(error)} | {_bases(error)} | {_doc(error)} |" for error in _tree(BellwireError)
    ]
    return "\n".join(("| Exception | Code | Kind of | Meaning |", "|---|---|---|---|", *rows))


def growth_table() -> str:
    """Every curve that was measured."""
    return growth.table(growth.read(growth.FILE).curves)


def model_table() -> str:
    """What the model says of common clusters."""
    costs = model.read(growth.FILE)
    return model.table([model.predict(each, costs) for each in model.SCENARIOS])


def speed_table() -> str:
    """What ``make bench`` measured last."""
    servers = (PLAIN, GUARDED, PYTHON_SOCKETIO, SOCKET_IO, BUN, NCHAN)
    return tables.table(tables.read(tables.SPEED), servers, (PLAIN,), also=(P99,))


def nodes_table() -> str:
    """What two nodes with a broker did in the whole matrix."""
    return tables.table(tables.read(tables.MATRIX), BROKERS, (OVER_VALKEY,))


def workers_table() -> str:
    """What two workers did beside one process."""
    servers = (PLAIN, TWO_WORKERS)
    rows = tables.read(tables.SPEED)
    shared = {row.title for row in rows if row.server == TWO_WORKERS}
    return tables.table([row for row in rows if row.title in shared], servers, (PLAIN,), also=(CPU,))


def recovery_table() -> str:
    """What recovery costs, in the run of the README."""
    return tables.table(tables.read(tables.SPEED), OURS, (PLAIN,), also=(CPU,))


def matrix_table() -> str:
    """All that was measured of one process."""
    return tables.table(tables.read(tables.MATRIX), EVERYONE, (PLAIN,), also=(P99, IDLE_CPU))


def replaced(name: str, table: str) -> str:
    """The text of a table's page, with this table in it."""
    block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
    text, found = re.subn(
        rf"<!-- {name} -->.*<!-- /{name} -->", lambda _: block, PAGES[name].read_text(), flags=re.DOTALL
    )
    assert found == 1
    return text


def _type(option: Option) -> str:
    if get_origin(option.type) is tuple:
        item = get_args(option.type)[0]
        return f"{_type_of_literal(item) if get_origin(item) is Literal else '`str`'}, a list"
    if get_origin(option.type) is Literal:
        return _type_of_literal(option.type)
    return f"`{option.type.__name__}`"


def _type_of_literal(literal: Any) -> str:
    return " or ".join(f"`{name}`" for name in get_args(literal))


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return '""' if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _tree(error: type[BellwireError]) -> Iterator[type[BellwireError]]:
    yield error
    for child in error.__subclasses__():
        if child.__name__ in bellwire.__all__:
            yield from _tree(child)


def _bases(error: type[BellwireError]) -> str:
    return ", ".join(f"`{base.__name__}`" for base in error.__bases__)


def _code(error: type[BellwireError]) -> str:
    return "its own" if error in (EventRefused, TokenRefused) else f"`{error.code}`"


def _doc(error: type[BellwireError]) -> str:
    first = " ".join((error.__doc__ or "").split("\n\n")[0].split())
    return first.replace("``", "`")


TABLES = {
    "config": config_table,
    "errors": errors_table,
    "growth": growth_table,
    "model": model_table,
    "speed": speed_table,
    "nodes": nodes_table,
    "matrix": matrix_table,
    "workers": workers_table,
    "recovery": recovery_table,
}

if __name__ == "__main__":
    for name, table in TABLES.items():
        PAGES[name].write_text(replaced(name, table()))
