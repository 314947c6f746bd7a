import pytest
from bench.cluster import run


@pytest.mark.parametrize("broker", ["Valkey", "NATS"])
def test_what_is_published_on_one_node_reaches_everyone_on_the_other(broker: str) -> None:
    ((results),) = [each[broker] for each in run([broker], 1, 0.05, 5)]
    assert [(result.connections, result.window) for result in results] == [(5, 1), (5, 32)]
    assert all(result.messages > 0 for result in results)
