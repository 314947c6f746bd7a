from contextlib import ExitStack

import pytest
from bench.soak import Minute, late, serve, soak, table, verdicts

from bench import ROOT


@pytest.mark.parametrize("broker", ["valkey", "nats"])
def test_a_server_is_watched_while_it_works(broker: str) -> None:
    with ExitStack() as stack:
        server = serve(stack, broker)
        minutes = list(soak(server, connections=5, share=0.1, minutes=0.03, every=0.9))
    assert len(minutes) == 2
    for minute in minutes:
        assert minute.per_second > 0
        assert 0 < minute.p50_ms <= minute.p99_ms
        assert minute.memory_bytes > 10_000_000
        assert minute.tasks > 0
        assert minute.descriptors > 5, "the clients' among them"
        assert minute.broker_keys > 0


def minute(*, per_second: float = 100.0, tasks: int = 4) -> Minute:
    return Minute(100.0, per_second, 1.0, 2.0, 3.0, 20_000_000, tasks, 10, 0)


def test_what_grows_is_not_flat() -> None:
    grown = [verdict.name for verdict in verdicts([minute(tasks=n) for n in range(0, 90, 10)]) if not verdict.flat]
    assert grown == ["tasks"]


def test_the_table_has_each_figure_its_slope_and_its_verdict() -> None:
    said = table([minute(tasks=n) for n in range(0, 90, 10)], "9 min", every=60.0).splitlines()
    assert said[0] == "| 9 min | first minute | second third | last third | an hour adds | |"
    assert said[2] == "| deliveries a second | 100 | 100 | 100 | 0 |  |"
    assert "| 99th percentile, ms | 2.00 | 2.00 | 2.00 | 0.00 | flat |" in said
    assert "| memory, MB | 20.0 | 20.0 | 20.0 | 0.0 | flat |" in said
    assert "| tasks | 0 | 40 | 70 | 600 | **rises** |" in said
    assert said[0].partition("first")[2] in (ROOT / "docs/explanation/measuring.md").read_text()
    assert "| first 20 s |" in table([minute()] * 3, "1 min", every=20.0)


def test_minutes_in_which_it_fell_behind_are_named() -> None:
    assert late([minute(), minute(per_second=97.0), minute(per_second=99.0)]) == [2]
