"""Rooms against a small server, in which everyone is in one room: of several rooms each is told of the others."""

import pytest

from bellwire.load.clients.base import LoadError, Manner
from bellwire.load.clients.socketio import Stock
from bellwire.load.rooms import rooms
from tests.load.server import running


def test_every_delivery_is_counted() -> None:
    with running() as (port, _):
        (result,) = rooms(("127.0.0.1", port), 4, lambda _: Stock(Manner()), size=64, rooms=1, seconds=0.05)
    assert result.shape == ("rooms", 4, 64, 1, "1 rooms")
    assert result.messages > 0
    assert result.rate == pytest.approx(result.messages * 4 / result.seconds)


def test_what_was_published_in_another_room_is_found() -> None:
    with running() as (port, _), pytest.raises(LoadError, match="not what was published in this room"):
        rooms(("127.0.0.1", port), 4, lambda _: Stock(Manner()), size=64, rooms=2, seconds=0.05)
