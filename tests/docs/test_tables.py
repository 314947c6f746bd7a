"""The tables that are made from the code."""

import pytest

from tests.docs.tables import PAGES, TABLES, config_table, errors_table, replaced


@pytest.mark.parametrize("name", TABLES)
def test_a_table_equals_the_code(name: str) -> None:
    assert PAGES[name].read_text() == replaced(name, TABLES[name]()), "run: python -m tests.docs.tables"


def test_the_tables_have_rows() -> None:
    assert "| `ping_interval` | `float` | `25` | Seconds between two pings (Engine.IO v4: 25). |" in config_table()
    assert "| `CallTimeout` | `timeout` | `BellwireError`, `TimeoutError` |" in errors_table()
    assert "ProtocolError" not in errors_table()  # users do not meet it
