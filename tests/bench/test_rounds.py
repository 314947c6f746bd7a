import pytest
from bench.contestants import OVER_NATS, OVER_VALKEY, PLAIN, TWO_WORKERS
from bench.report import rows
from bench.rounds import brief, run
from bench.works import Work

FANOUT = "fanout --connections 5 --windows 1,32"


@pytest.mark.parametrize("name", [OVER_VALKEY, OVER_NATS, TWO_WORKERS])
def test_what_is_published_on_one_node_reaches_everyone_on_the_other(name: str) -> None:
    done = run([name], [Work(FANOUT, (name,))], 1, 0.05)
    assert done.failures == {}
    assert [(row.server, row.shape.connections, row.shape.window) for row in rows(done.rounds)] == [
        (name, 5, 1),
        (name, 5, 32),
    ]


def test_who_fails_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    lost = "connecting --connections 5 --namespace /elsewhere"
    done = run([PLAIN], [Work(lost, (PLAIN,)), Work("roundtrips --connections 5", (PLAIN,))], 2, 0.05)
    assert list(done.failures) == [f"{PLAIN}, {lost}"]
    assert "Invalid namespace" in done.failures[f"{PLAIN}, {lost}"]
    assert [row.shape.work for row in rows(done.rounds)] == ["echo"]
    said = capsys.readouterr().err
    assert said.count("FAILED") == 1, "it is not tried again in the next round"
    assert "round 2 of 2 done" in said
    (found,) = done.rounds[0][PLAIN].values()
    assert brief(found).startswith("echo 5 of 128 B: per_second ")
