import pytest
from bench.clients import V1
from bench.connecting import connecting

from tests.bench.server import V1Server, running


def test_everyone_who_came_in_is_counted() -> None:
    with running(kind=V1Server) as (port, fake):
        (result,) = connecting("127.0.0.1", port, connections=7, seconds=0.0, client=V1)
        assert fake.left.wait(10)
    assert (result.work, result.connections, result.messages) == ("connecting", 7, 7)
    assert len(fake.members) == 7
    assert result.rate == pytest.approx(7 / result.seconds)
    assert 0 < result.p50 <= result.p99
