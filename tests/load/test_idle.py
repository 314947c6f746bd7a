import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bellwire.load.clients.base import LoadError
from bellwire.load.idle import idle


class Crowd:
    def __init__(self, number: int) -> None:
        self.number, self.attended, self.here = number, 0, True

    def attend(self, seconds: float) -> None:
        assert self.here
        self.attended += 1


def test_who_came_first_is_attended_while_others_come() -> None:
    crowds: list[Crowd] = []
    seen: list[int] = []

    @contextmanager
    def connect(number: int) -> Iterator[Crowd]:
        seen.append(crowds[0].attended if crowds else 0)
        crowds.append(crowd := Crowd(number))
        yield crowd
        crowd.here = False

    (result,) = idle(connect, 2_500, seconds=0.01, server=os.getpid(), name="fake")
    assert result.shape == ("idle", 2_500, 0, 0, "fake")
    assert [crowd.number for crowd in crowds] == [500, 1_000, 1_000, 500]
    assert seen == sorted(set(seen)), "between any two"
    assert not any(crowd.here for crowd in crowds)
    assert all(crowd.attended for crowd in crowds)


def test_the_server_has_to_be_known() -> None:
    with pytest.raises(LoadError, match="whose memory"):
        idle(lambda _: pytest.fail("nobody needs to come"), 1, seconds=0.0, server=None)
