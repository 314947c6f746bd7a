import pytest
from bench.sockets import sockets


@pytest.mark.timeout(240)  # seven servers, one after the other
def test_connections_with_sockets_are_measured() -> None:
    found = sockets(crowd=(5, 50), idle=(200, 400), seconds=0.5)
    alone, together, memory, pings = found.curves
    assert alone.points[1].y > alone.points[0].y > 10
    assert together.points[1].y < alone.points[1].y, "what is written at once costs less"
    assert 1_000 < memory.points[1].y < 20_000
    assert pings.points[1].y > 0
    assert 10 < found.constants["refuse_us"] < 10_000
    assert 1_000 < found.constants["kernel_bytes"] < 50_000
    assert found.constants["recovering_bytes"] > found.constants["connection_bytes"]
