from pathlib import Path

from bench.contestants import BUN, GUARDED, PLAIN, SOCKET_IO
from bench.report import rows, summary
from bench.rounds import Run
from bench.tables import read, table

from bellwire.load.machine import Machine
from bellwire.load.result import CPU, IDLE_CPU, P99, Found, Idle, Result, Shape

MACHINE = Machine("A CPU", 2, "Linux 6", "CPython 3.11", 0.1, {})
FANOUT, ECHO, IDLE = Shape("fanout", 1000, 128, 1), Shape("echo", 100, 128, 1), Shape("idle", 2000, 0, 0)


def flow(shape: Shape, rate: float, busy: float = 0.5) -> Result:
    return Result(shape, 10, 2.0, rate, 1.5, 450 / rate, busy, 1e6 / rate)


def one_round(**servers: tuple[Found, ...]) -> dict[str, dict[Shape, Found]]:
    names = {"plain": PLAIN, "guarded": GUARDED, "bun": BUN, "node": SOCKET_IO}
    return {names[name]: {each.shape: each for each in found} for name, found in servers.items()}


ROUND = one_round(
    plain=(Idle(IDLE, 1.0, 3_500.0, 0.25, 0.1), flow(ECHO, 3_000.0), flow(FANOUT, 200_000.0)),
    bun=(Idle(IDLE, 1.0, 1_750.0, 0.5, 0.1), flow(FANOUT, 160_000.0, busy=0.99)),
    node=(flow(ECHO, 1_250.0), flow(FANOUT, 5_000.0)),
)


def test_each_work_is_a_line_and_each_server_a_column() -> None:
    head, rule, *lines = table(rows([ROUND]), (PLAIN, BUN, SOCKET_IO), (PLAIN,), also=(P99, IDLE_CPU)).splitlines()
    assert (head, rule) == ("| | Bellwire | Bun | socket.io |", "|---|--:|--:|--:|")
    assert lines == [
        "| fan-out, 1,000 connections, 128 B, one message at a time | 200,000 | 160,000* (1.25) | 5,000 (40) |",
        "| acknowledged round trips, 100 connections, 128 B | 3,000 |  | 1,250 (2.4) |",
        "| acknowledged round trips, 100 connections, 128 B: p99 ms | 0.15 |  | 0.36 (2.4) |",
        "| idle, 2,000 connections: bytes each | 3,500 | 1,750 (0.50) |  |",
        "| idle, 2,000 connections: % of a core | 0.25 | 0.50 (2.0) |  |",
    ]


def test_who_was_not_measured_has_no_column() -> None:
    assert table(rows([ROUND]), (PLAIN, GUARDED, BUN), ()).startswith("| | Bellwire | Bun |\n")


def test_what_none_of_the_servers_did_has_no_line() -> None:
    assert len(table(rows([ROUND]), (SOCKET_IO,), ()).splitlines()) == 4
    assert "connecting" not in table(rows([ROUND]), (SOCKET_IO,), ())


def test_a_second_figure_is_there_if_it_is_asked_for() -> None:
    lines = table(rows([ROUND]), (PLAIN, SOCKET_IO), (PLAIN,), also=(CPU,)).splitlines()
    assert lines[3] == "| fan-out, 1,000 connections, 128 B, one message at a time: us each | 5.00 | 200.00 (40) |"
    assert not any("p99 ms" in line or "% of a core" in line for line in lines)


def test_what_is_held_against_another_base_says_so_only_where_it_was_asked() -> None:
    assert "(40)" not in table(rows([ROUND]), (SOCKET_IO,), (GUARDED,))


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_bytes(summary(MACHINE, Run([ROUND]), {}))
    assert read(file) == rows([ROUND])
