"""Random bytes: none is given out twice, in a forked process neither."""

import os
import sys

import pytest

from bellwire.core.randomness import BLOCK, random_bytes, random_number


@pytest.mark.parametrize("count", [0, 1, 12, 16, BLOCK - 1, BLOCK, BLOCK + 1])
def test_there_are_as_many_as_were_asked_for(count: int) -> None:
    assert len(random_bytes(count)) == count


def test_none_is_given_out_twice() -> None:
    given = [random_bytes(15) for _ in range(10_000)]
    assert len(set(given)) == len(given)


def test_a_number_has_64_bits() -> None:
    given = [random_number() for _ in range(1_000)]
    assert len(set(given)) == len(given)
    assert max(given).bit_length() == 64


def test_two_threads_are_given_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them has fetched bytes, and the other takes some, before the first has its own."""
    theirs: list[bytes] = []
    urandom = os.urandom

    def interrupted(count: int) -> bytes:
        fetched = urandom(count)
        if not theirs:
            theirs.append(b"")
            theirs.append(random_bytes(16))
        return fetched

    monkeypatch.setattr(os, "urandom", interrupted)
    while not theirs:
        mine = random_bytes(16)
    assert mine != theirs[1] != random_bytes(16)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_has_others() -> None:
    random_bytes(1)
    there, here = os.pipe()
    child = os.fork()
    if not child:
        os.write(here, random_bytes(1_000))
        os._exit(0)
    mine = random_bytes(1_000)
    os.waitpid(child, 0)
    theirs = os.read(there, 1_000)
    os.close(there)
    os.close(here)
    assert len(theirs) == len(mine)
    assert not {mine[at : at + 8] for at in range(993)} & {theirs[at : at + 8] for at in range(993)}
