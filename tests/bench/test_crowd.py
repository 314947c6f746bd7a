import pytest
from bench.crowd import report, run, waits

from bellwire.load.processes import ProcessError


def test_what_one_publishes_reaches_everyone() -> None:
    found = run(nodes=1, connections=10, messages=3, options="", pause=0.3)
    assert (found.members, found.nodes, found.messages) == (10, 1, 3)
    assert found.rate > 0
    assert found.alone[0] <= found.alone[1] <= found.alone[2]
    assert report(found).startswith("10 clients on 1 nodes, 3 messages")


def test_waits_are_in_milliseconds() -> None:
    assert waits([n / 1000 for n in range(1, 101)]) == (51, 100, 100)
    with pytest.raises(ProcessError, match="more --messages"):
        waits([])
