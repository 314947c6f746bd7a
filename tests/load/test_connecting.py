import pytest

from bellwire.load.clients.base import Manner
from bellwire.load.clients.v1 import V1
from bellwire.load.connecting import connecting
from tests.load.server import V1Server, running


def test_everyone_who_came_in_is_counted() -> None:
    with running(kind=V1Server) as (port, fake):
        (result,) = connecting(("127.0.0.1", port), 7, lambda _: V1(Manner()), seconds=0.0)
        assert fake.left.wait(10)
    assert (result.shape.work, result.shape.connections, result.messages) == ("connecting", 7, 7)
    assert len(fake.members) == 7
    assert result.rate == pytest.approx(7 / result.seconds)
    assert 0 < result.p50 <= result.p99
