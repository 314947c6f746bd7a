"""What writes to many is there twice, compiled and in Python: who uses ``writing`` runs with either."""

import pytest

from bellwire.transports import descriptor


@pytest.fixture(params=["compiled", "in Python"])
def writing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in Python":
        monkeypatch.setattr(descriptor, "write_all", descriptor.write_in_python)
    elif descriptor.write_all is descriptor.write_in_python:
        pytest.skip("nothing was compiled: that needs a C compiler and Python's headers")
