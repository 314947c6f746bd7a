from bench.load import Result
from bench.machine import Machine
from bench.report import Spread, rows, summary, text

MACHINE = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1, {"bellwire": "0.1"})


def result(rate: float, work: str = "fanout", busy: float = 0.5) -> Result:
    return Result(work, 1000, 128, 1, 10, 2.0, rate, 1.5, 4.5, busy)


ROUNDS = [
    {"Bellwire": [result(100.0)], "Peer": [result(10.0)]},
    {"Bellwire": [result(300.0)], "Peer": [result(20.0)]},
    {"Bellwire": [result(200.0)], "Peer": [result(10.0)]},
]


def test_rows_are_medians_between_extremes_and_ratios_of_each_round() -> None:
    ours, theirs = rows(ROUNDS)
    assert ours.rate == Spread(200.0, 100.0, 300.0)
    assert ours.ratio == Spread(15.0, 10.0, 20.0)
    assert theirs.rate == Spread(10.0, 10.0, 20.0)
    assert theirs.ratio == Spread(1.0, 1.0, 1.0)


def test_the_report_names_machine_load_and_ratio() -> None:
    report = text(MACHINE, ROUNDS)
    assert "A CPU, 2 cores; Linux 6; CPython 3.11" in report
    assert "Fan-out, 1,000 connections, 128 B, one message at a time" in report
    assert "200 (100 .. 300)" in report
    assert "15.0 (10.0 .. 20.0)" in report
    assert "whole core" not in report
    assert "computing on this machine" not in report


def test_what_makes_numbers_doubtful_is_said() -> None:
    busy = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 1.7, {})
    report = text(busy, [{"Bellwire": [result(100.0, work="echo", busy=0.99)]}])
    assert "others were computing on this machine (load average 1.7)" in report
    assert "100 (100 .. 100)*" in report
    assert "* The load generator used its whole core" in report


def test_the_summary_has_every_result() -> None:
    data = summary(MACHINE, ROUNDS)
    assert isinstance(data["rounds"], list)
    assert [each["Bellwire"][0]["rate"] for each in data["rounds"]] == [100.0, 300.0, 200.0]
