import platform

import pytest

from bellwire.load import machine
from bellwire.transports import descriptor


def test_what_is_not_compiled_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor, "write_all", descriptor.write_in_python)
    assert machine.describe([]).python == f"CPython {platform.python_version()}, nothing compiled"
    monkeypatch.setattr(descriptor, "write_all", lambda *_: [])
    assert machine.describe([]).python == f"CPython {platform.python_version()}"
