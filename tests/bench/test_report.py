from bench.machine import Machine
from bench.report import Round, Spread, rows, summary, text
from bench.result import Result

MACHINE = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1, {"bellwire": "0.1"})


def result(rate: float, work: str = "fanout", busy: float = 0.5) -> Result:
    return Result(work, 1000, 128, 1, 10, 2.0, rate, 1.5, 4.5, busy, 7.25)


def round_of(plain: float, recovering: float, peer: float) -> Round:
    return {"Plain": [result(plain)], "recovering": [result(recovering)], "Peer": [result(peer)]}


ROUNDS = [round_of(100.0, 90.0, 10.0), round_of(300.0, 240.0, 20.0), round_of(200.0, 200.0, 10.0)]


def test_rows_are_medians_between_extremes_and_ratios_of_each_round() -> None:
    plain, recovering, peer = rows(ROUNDS, "Plain", "Peer")
    assert plain.rate == Spread(200.0, 100.0, 300.0)
    assert plain.ratio == Spread(15.0, 10.0, 20.0)
    assert recovering.share == Spread(0.9, 0.8, 1.0)
    assert recovering.cpu == Spread(7.25, 7.25, 7.25)
    assert peer.rate == Spread(10.0, 10.0, 20.0)
    assert peer.ratio == Spread(1.0, 1.0, 1.0)


def test_all_kinds_of_round_trips_are_in_one_table_against_plain_ones() -> None:
    only = {"Plain": [result(100.0, "echo")], "v1": [result(80.0, "echo"), result(25.0, "relay")]}
    plain, echo, relay = rows([only], "Plain", "Peer")
    assert plain.title == echo.title == relay.title == "acknowledged round trips, 1,000 connections, 128 B"
    assert [row.label for row in (plain, echo, relay)] == ["Plain", "v1", "v1, relay"]
    assert relay.share == Spread(0.25, 0.25, 0.25)
    assert relay.ratio is None


def test_the_report_names_machine_load_and_ratios() -> None:
    report = text(MACHINE, ROUNDS, "Plain", "Peer")
    assert "A CPU, 2 cores; Linux 6; CPython 3.11" in report
    assert "Fan-out, 1,000 connections, 128 B, one message at a time" in report
    assert "200 (100 .. 300)" in report
    assert "15.0 (10.0 .. 20.0)" in report
    assert "0.90 (0.80 .. 1.00)" in report
    assert "whole core" not in report
    assert "computing on this machine" not in report


def test_what_makes_numbers_doubtful_is_said() -> None:
    busy = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 1.7, {})
    report = text(busy, [{"Plain": [result(100.0, work="connecting", busy=0.99)]}], "Plain", "Peer")
    assert "others were computing on this machine (load average 1.7)" in report
    assert "Connecting, 1,000 clients, 1 at a time" in report
    assert "100 (100 .. 100)*" in report
    assert "* The load generator used its whole core" in report


def test_the_summary_has_every_result() -> None:
    data = summary(MACHINE, ROUNDS, "Plain", "Peer")
    assert isinstance(data["rounds"], list)
    assert [each["Plain"][0]["rate"] for each in data["rounds"]] == [100.0, 300.0, 200.0]
