import os
import subprocess
import sys

import pytest

from bellwire.load.clients.base import LoadError
from bellwire.load.result import Meter, Shape, own_memory, processor_time

SHAPE = Shape("fanout", 2, 128, 1)


def test_a_meter_adds_up_what_is_within_it() -> None:
    meter = Meter(os.getpid())
    for _ in range(2):
        with meter:
            sum(range(200_000))
    result = meter.result(SHAPE, 5, 10, [0.004, 0.001, 0.002])
    assert result.shape == SHAPE
    assert (result.messages, result.p50, result.p99) == (5, 2.0, 4.0)
    assert result.rate == pytest.approx(10 / result.seconds)
    assert 0 < result.busy <= 1.1
    assert 0 < result.cpu <= result.seconds * 1e6 / 10 * 1.1


def test_nothing_measured_is_an_error() -> None:
    with Meter() as meter:
        pass
    with pytest.raises(LoadError, match="not one"):
        meter.result(SHAPE, 0, 1, [])


def test_a_process_that_is_not_there_has_computed_nothing() -> None:
    assert processor_time(None) == 0.0
    assert processor_time(2**22 + 1) == 0.0


def test_memory_of_a_process_grows_with_what_it_holds() -> None:
    before = own_memory(os.getpid())
    held = b"x" * 64_000_000  # so much is never given from what the process has left over
    assert 60_000_000 < own_memory(os.getpid()) - before < 72_000_000, len(held)


def test_the_children_of_a_process_count() -> None:
    burn = "import sys; held = b'x' * 30_000_000; sum(range(3_000_000)); print(flush=True); sys.stdin.read()"
    memory, computed = own_memory(os.getpid()), processor_time(os.getpid())
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert own_memory(os.getpid()) > memory + own_memory(child.pid) - 1_000_000
        assert own_memory(child.pid) > 30_000_000
        assert processor_time(os.getpid()) >= computed + processor_time(child.pid) - 0.001
        child.communicate()
