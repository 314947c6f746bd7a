import pytest
from bench.__main__ import main
from bench.contestants import CONTESTANTS, PLAIN, PYTHON_SOCKETIO, Contestant

from bench import peers
from tests.bench.test_peers import no_package

ONE = ("--rounds", "1", "--seconds", "0.05")


def ended(*words: str) -> object:
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--work rooms", "rooms is part of --full"),
        ("--work rooms --only Bellwire", "rooms of Bellwire is part of --full"),
        ("--work roundtrips --only Bun", "Bun takes no part in roundtrips"),
        ("--work roundtrips --only Bun --only ws", "Bun and ws take no part in roundtrips"),
    ],
)
def test_to_measure_nothing_is_a_mistake(words: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(*words.split()) == 2
    assert why in capsys.readouterr().err


def test_what_was_measured_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--only", PLAIN, "--work", "roundtrips", *ONE) == 0
    assert "Nothing was missing in any round" in capsys.readouterr().out


def test_it_is_no_success_if_nobody_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "version", no_package)
    assert ended("--only", PYTHON_SOCKETIO, *ONE) == 1
    said = capsys.readouterr().out
    assert "NOTHING was measured" in said
    assert f"Not measured: {PYTHON_SOCKETIO}: the package python-socketio is absent" in said


def test_it_is_no_success_if_one_fails_and_that_is_told_in_full_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CONTESTANTS, PLAIN, Contestant("{python} -c raise(ValueError('first\\nlast'))"))
    assert ended("--only", PLAIN, *ONE, "--rounds", "2") == 1
    said = capsys.readouterr()
    assert said.err.count("FAILED") == said.err.count("Traceback") == 1, "of two servers, and two rounds"
    assert f"Failed: {PLAIN}: {PLAIN} ended with status 1 ... last" in said.out
    assert "Traceback" not in said.out
