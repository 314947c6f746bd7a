import json
from pathlib import Path

import pytest
from bench.curve import FLAT, LINEAR, SQUARE, Curve, Found
from bench.growth import EXPERIMENTS, all_of, main, read, summary, table, verdict

from bellwire.load.machine import Machine

GOOD = Curve.of("an emit", "members", "us", LINEAR, (1, 10, 100), (11, 20, 110))
WRONG = Curve.of("a leave", "rooms", "us", FLAT, (1, 10, 100), (1, 10, 100))


def test_what_is_steeper_than_it_may_be_is_said() -> None:
    assert verdict(Found([GOOD], {})) == "None of 1 curves is steeper than it may be."
    assert "a leave, by rooms: STEEPER THAN FLAT" in verdict(Found([GOOD, WRONG], {}))
    assert "an emit" not in verdict(Found([GOOD, WRONG], {}))


def test_an_experiment_runs_in_a_process_of_its_own_and_tells_what_it_finds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = all_of(["presence"])
    assert found.constants.keys() == {"presence_each"}
    said = capsys.readouterr().err
    assert "1 of 1: presence" in said
    assert "presence of a quiet room" in said


def test_the_summary_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "growth.json"
    file.write_text(summary(Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1), Found([GOOD], {"emit_us": 10.0})))
    assert read(file) == Found([GOOD], {"emit_us": 10.0})


def test_the_table_says_what_each_adds() -> None:
    square = Curve.of("beats", "nodes", "a second", SQUARE, (1, 10), (0.4, 40))
    assert table([GOOD, WRONG, square]).splitlines()[2:] == [
        "| an emit | members | 11.0 µs at 1 | 110 µs at 100 | 1.00 µs |",
        "| a leave | rooms | 1.00 µs at 1 | 100 µs at 100 | **more than it may** |",
        "| beats | nodes | 0.400 a second at 1 | 40.0 a second at 10 | 0.400 a second, its square |",
    ]


def test_the_summary_has_points_and_what_was_made_of_them() -> None:
    data = json.loads(summary(Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1), Found([GOOD], {"emit_us": 10.0})))
    (curve,) = data["curves"]
    assert curve["points"] == [[1, 11], [10, 20], [100, 110]]
    assert (curve["fixed"], curve["each"]) == (pytest.approx(10), pytest.approx(1))
    assert data["constants"] == {"emit_us": 10.0}
    assert data["machine"]["cpu"] == "A CPU"


def test_figures_of_some_experiments_are_not_written_over_those_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "presence", "--out", str(tmp_path)])
    assert "leave --only out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_experiments_have_names_for_the_command_line() -> None:
    assert all(name == name.lower() for name in EXPERIMENTS)
