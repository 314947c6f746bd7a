import json

from bench.contestants import BUN, GUARDED, PLAIN, SOCKET_IO, V1
from bench.report import rows, summary, text
from bench.rounds import Run
from bench.spread import Spread

from bellwire.load.machine import Machine
from bellwire.load.result import CPU, MEMORY, RATE, Found, Idle, Result, Shape

MACHINE = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1, {"bellwire": "0.1"})
FANOUT = Shape("fanout", 1000, 128, 1)


def result(rate: float, shape: Shape = FANOUT, busy: float = 0.5) -> Result:
    return Result(shape, 10, 2.0, rate, 1.5, 4.5, busy, 1e6 / rate)


def round_of(**figures: Found) -> dict[str, dict[Shape, Found]]:
    names = {"plain": PLAIN, "guarded": GUARDED, "bun": BUN, "node": SOCKET_IO, "v1": V1}
    return {names[name]: {found.shape: found} for name, found in figures.items()}


ROUNDS = [
    round_of(plain=result(100.0), guarded=result(90.0), bun=result(10.0)),
    round_of(plain=result(300.0), guarded=result(240.0), bun=result(20.0)),
    round_of(plain=result(200.0), guarded=result(200.0), bun=result(10.0)),
]


def test_rows_are_medians_between_extremes_and_their_ratios() -> None:
    plain, guarded, bun = rows(ROUNDS)
    assert plain.figures[RATE] == Spread(200.0, 100.0, 300.0)
    assert not any(plain.times.values())
    assert bun.times[RATE] == {PLAIN: Spread(20.0, 10.0, 20.0), GUARDED: Spread(20.0, 9.0, 20.0)}
    assert guarded.times[RATE] == {PLAIN: Spread(1.0, 1.0, 300 / 240)}


def test_of_memory_and_time_less_is_better() -> None:
    shape = Shape("idle", 2000, 0, 0)
    plain, node = rows([round_of(plain=Idle(shape, 1.0, 4000.0, 0.0, 0.1), node=Idle(shape, 1.0, 16000.0, 2.0, 0.1))])
    assert node.times[MEMORY] == {PLAIN: Spread(4.0, 4.0, 4.0)}
    assert node.times["core_percent"] == {}, "nothing can be divided by nothing"
    assert rows(ROUNDS)[2].times[CPU][PLAIN].median == 20.0
    assert plain.title == "idle, 2,000 connections"


def test_what_is_missing_in_one_round_has_no_row() -> None:
    found = rows([ROUNDS[0], round_of(plain=result(300.0), bun=result(10.0)), ROUNDS[2]])
    assert [row.server for row in found] == [PLAIN, BUN]
    assert found[1].times[RATE] == {PLAIN: Spread(20.0, 10.0, 30.0)}


def test_all_kinds_of_round_trips_are_in_one_table_against_plain_ones() -> None:
    echo, relay = Shape("echo", 1000, 128, 1), Shape("relay", 1000, 128, 1)
    of_v1 = {echo: result(80.0, echo), relay: result(25.0, relay)}
    plain, v1, relayed = rows([{**round_of(plain=result(100.0, echo)), V1: of_v1}])
    assert plain.title == v1.title == relayed.title == "acknowledged round trips, 1,000 connections, 128 B"
    assert [row.label for row in (plain, v1, relayed)] == [PLAIN, V1, f"{V1}, relay"]
    assert relayed.times[RATE] == {PLAIN: Spread(4.0, 4.0, 4.0)}


def test_a_title_says_what_is_special() -> None:
    (binary,) = rows([round_of(plain=result(1.0, Shape("fanout", 10, 16, 32, "binary")))])
    (rooms,) = rows([round_of(plain=result(1.0, Shape("rooms", 10, 16, 1, "5 rooms")))])
    assert binary.title == "fan-out, 10 connections, 16 B, 32 messages in flight, binary"
    assert rooms.title == "a message at a time in each room, 10 connections, 16 B, 5 rooms"


def test_the_report_names_machine_and_ratios_and_who_is_not_in_it() -> None:
    report = text(MACHINE, Run(ROUNDS, {"bun, idle": "it died"}), {"nchan": "there is no nginx"})
    assert "A CPU, 2 cores; Linux 6; CPython 3.11" in report
    assert "Fan-out, 1,000 connections, 128 B, one message at a time" in report
    assert "200 (100 .. 300)" in report
    assert "Bellwire 20.00 (10.00 .. 20.00)" in report
    assert "Not measured: nchan: there is no nginx" in report
    assert "Failed: bun, idle: it died" in report
    assert "whole core" not in report
    assert "computing on this machine" not in report


def test_what_makes_numbers_doubtful_is_said() -> None:
    busy = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 1.7, {})
    shape = Shape("connecting", 1000, 0, 100)
    report = text(busy, Run([round_of(plain=result(100.0, shape, busy=0.99))]), {})
    assert "others were computing on this machine (load average 1.7)" in report
    assert "Connecting, 1,000 clients, 100 at a time" in report
    assert "100 (100 .. 100)*" in report
    assert "* The load generator used its whole core" in report


def test_the_summary_has_every_result() -> None:
    data = json.loads(summary(MACHINE, Run(ROUNDS), {"nchan": "why"}))
    assert [each[PLAIN][0]["rate"] for each in data["rounds"]] == [100.0, 300.0, 200.0]
    assert data["rows"][0]["figures"][RATE] == {"median": 200.0, "low": 100.0, "high": 300.0}
    assert data["skipped"] == {"nchan": "why"}
