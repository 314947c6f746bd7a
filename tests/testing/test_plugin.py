import pytest

SETTINGS = """
[pytest]
addopts = --strict-markers -p no:cacheprovider
filterwarnings = error
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makefile(".ini", pytest=SETTINGS)
    return pytester


def outcome(suite: pytest.Pytester, source: str) -> tuple[dict[str, int], str]:
    suite.makepyfile(source)
    result = suite.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:anyio")
    return result.parseoutcomes(), result.stdout.str()


def test_a_marked_test_runs_on_the_virtual_clock(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest

        @pytest.fixture
        def number():
            return 7

        @pytest.mark.bellwire
        @pytest.mark.parametrize("hours", [1, 2])
        async def test_it(hours, number):
            await asyncio.sleep(hours * 3600)
            assert asyncio.get_running_loop().time() == hours * 3600
            assert number == 7

        class TestGroup:
            pytestmark = pytest.mark.bellwire

            async def test_method(self, number):
                await asyncio.sleep(number)

            def test_plain(self):
                pass
        """,
    )
    assert counts == {"passed": 4}, text


def test_the_assertions_of_a_marked_test_count(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest
        pytestmark = pytest.mark.bellwire

        async def test_wrong():
            assert 1 == 2

        async def test_skipped():
            pytest.skip("not today")
        """,
    )
    assert counts == {"failed": 1, "skipped": 1}, text
    assert "assert 1 == 2" in text


def test_the_real_clock_and_uvloop_are_there_on_demand(suite: pytest.Pytester) -> None:
    pytest.importorskip("uvloop")
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest, time, uvloop
        from bellwire.testing.clock import VirtualClockLoop

        @pytest.mark.bellwire(clock="real")
        async def test_real():
            loop = asyncio.get_running_loop()
            assert not isinstance(loop, (VirtualClockLoop, uvloop.Loop))
            began = time.monotonic()
            await asyncio.sleep(0.01)
            assert time.monotonic() - began >= 0.009

        @pytest.mark.bellwire(clock="real", uvloop=True)
        async def test_uvloop():
            assert isinstance(asyncio.get_running_loop(), uvloop.Loop)

        @pytest.mark.bellwire
        class TestAll:
            @pytest.mark.bellwire(clock="real")
            async def test_the_nearest_marker_counts(self):
                assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)
        """,
    )
    assert counts == {"passed": 3}, text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("clock='fast'", "the clock is 'virtual' or 'real'"),
        ("uvloop=True", "uvloop has no virtual clock, add clock='real'"),
        ("speed=2", "the options are clock='virtual' or 'real', and uvloop=True"),
        ("'real'", "the options are clock='virtual' or 'real', and uvloop=True"),
    ],
)
def test_a_wrong_option_is_a_usage_error_with_the_right_ones(
    suite: pytest.Pytester, options: str, message: str
) -> None:
    suite.makepyfile(
        f"""
        import pytest

        @pytest.mark.bellwire({options})
        async def test_it():
            pass
        """
    )
    result = suite.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:anyio")
    assert result.ret is pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line.startswith("ERROR: ")]
    assert line.startswith("ERROR: test_a_wrong_option_is_a_usage_error_with_the_right_ones.py::test_it: ")
    assert line.endswith(f"@pytest.mark.bellwire({options}): {message}")


def test_a_task_left_behind_fails_the_test_by_name(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest

        async def straggler():
            await asyncio.get_running_loop().create_future()

        @pytest.mark.bellwire
        async def test_virtual():
            task = asyncio.create_task(straggler(), name="lost-one")

        @pytest.mark.bellwire(clock="real")
        async def test_real():
            task = asyncio.create_task(straggler(), name="lost-two")
        """,
    )
    assert counts == {"failed": 2}
    assert "test_virtual passed its assertions, but" in text
    assert "left a task behind: lost-one straggler at " in text
    assert "left a task behind: lost-two straggler at " in text


def test_a_task_that_ends_by_itself_is_no_fault(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest

        async def busy():
            for _ in range(10):
                await asyncio.sleep(0)

        @pytest.mark.bellwire
        async def test_virtual():
            task = asyncio.create_task(busy())

        @pytest.mark.bellwire(clock="real")
        async def test_real():
            task = asyncio.create_task(asyncio.sleep(0.01))

        @pytest.mark.bellwire
        async def test_cancelled():
            asyncio.create_task(asyncio.sleep(100)).cancel()
        """,
    )
    assert counts == {"passed": 3}, text


def test_an_exception_nobody_saw_fails_the_test(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest
        pytestmark = pytest.mark.bellwire

        async def breaks():
            raise ValueError("in a task")

        async def test_callback():
            def broken():
                raise ValueError("in a callback")
            asyncio.get_running_loop().call_soon(broken)
            await asyncio.sleep(1)

        async def test_task():
            task = asyncio.create_task(breaks())
            await asyncio.sleep(1)

        async def test_task_in_a_cycle():
            cycle = [asyncio.create_task(breaks())]
            cycle.append(cycle)
            await asyncio.sleep(1)

        async def test_seen():
            with pytest.raises(ValueError):
                await asyncio.create_task(breaks())
        """,
    )
    assert counts == {"failed": 3, "passed": 1}, text
    assert "test_task_in_a_cycle passed its assertions, but" in text
    assert "test_callback passed its assertions, but" in text
    assert "ValueError: in a callback" in text
    assert "Task exception was never retrieved" in text
    assert "ValueError: in a task" in text


def test_a_failed_test_tells_what_else_went_wrong(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest

        @pytest.mark.bellwire
        async def test_it():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(1)
            assert "first" == "second"
        """,
    )
    assert counts == {"failed": 1}
    assert "'first' == 'second'" in text
    assert "Beside that: the loop's exception handler was told" in text
    assert "ZeroDivisionError" in text


def test_a_deadlock_fails_instead_of_hanging(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest
        from bellwire.testing import plugin
        from bellwire.testing.clock import VirtualClockLoop

        class Impatient(VirtualClockLoop):
            def __init__(self):
                super().__init__(patience=0.01)

        @pytest.fixture(autouse=True)
        def impatient(monkeypatch):
            monkeypatch.setattr(plugin, "VirtualClockLoop", Impatient)

        @pytest.mark.bellwire
        async def test_it():
            await asyncio.Event().wait()
        """,
    )
    assert counts == {"failed": 1}
    assert "deadlock: nothing is ready" in text


@pytest.mark.parametrize("clock", ["virtual", "real"])
def test_what_is_left_open_fails_the_test(suite: pytest.Pytester, clock: str) -> None:
    counts, text = outcome(
        suite,
        f"""
        import asyncio, pytest, socket

        @pytest.mark.bellwire(clock="{clock}")
        async def test_socket():
            left, right = socket.socketpair()

        @pytest.mark.bellwire(clock="{clock}")
        async def test_transport():
            left, right = socket.socketpair()
            with right:
                _, transport = await asyncio.open_connection(sock=left)
        """,
    )
    assert counts == {"failed": 2}, text
    assert "ResourceWarning" in text


def test_unmarked_tests_are_left_alone(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio

        async def test_unmarked():
            await asyncio.sleep(1)

        def test_plain():
            pass
        """,
    )
    assert counts == {"failed": 1, "passed": 1}
    assert "async def functions are not natively supported" in text


def test_anyio_keeps_its_own_tests(suite: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    suite.makepyfile(
        """
        import asyncio, pytest
        from bellwire.testing.clock import VirtualClockLoop

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_theirs(anyio_backend):
            assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)

        @pytest.mark.bellwire
        async def test_ours():
            assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=2)


def test_every_example_of_hypothesis_has_its_own_loop(suite: pytest.Pytester) -> None:
    pytest.importorskip("hypothesis")
    suite.makepyfile(
        """
        import asyncio, pytest
        from hypothesis import given, settings, strategies as st

        seen = set()

        @pytest.mark.bellwire
        @settings(max_examples=10, database=None)
        @given(st.integers(0, 5))
        async def test_it(number):
            loop = asyncio.get_running_loop()
            assert loop.time() == 0.0
            await asyncio.sleep(number)
            seen.add(number)

        def test_it_ran():
            assert seen
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=2)


def test_parameters_and_examples_go_together(suite: pytest.Pytester) -> None:
    pytest.importorskip("hypothesis")
    suite.makepyfile(
        """
        import asyncio, pytest
        from hypothesis import given, settings, strategies as st

        @pytest.mark.bellwire
        @pytest.mark.parametrize("place", ["here", "there"])
        @settings(max_examples=3, database=None)
        @given(number=st.integers(0, 5))
        async def test_it(place, number):
            task = asyncio.create_task(asyncio.sleep(100))
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(failed=2)
    assert "test_it[here] passed its assertions, but" in result.stdout.str()
    assert "test_it[there] passed its assertions, but" in result.stdout.str()


def test_the_marker_is_registered(suite: pytest.Pytester) -> None:
    text = suite.runpytest_subprocess("--markers").stdout.str()
    assert "@pytest.mark.bellwire(clock='virtual', uvloop=False): run this async test" in text


def test_a_deadlock_names_the_line_of_the_test(suite: pytest.Pytester) -> None:
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest
        from bellwire import Event, Server
        from bellwire.testing import VirtualClockLoop, connect

        @pytest.fixture(autouse=True)
        def impatient(monkeypatch):
            monkeypatch.setattr(VirtualClockLoop.__init__, "__kwdefaults__", {"patience": 0.01})

        class Stuck(Server):
            async def start(self):
                await asyncio.get_running_loop().create_future()

        @pytest.mark.bellwire
        async def test_it():
            async with connect(Stuck()):  # here
                pass
        """,
    )
    assert counts == {"failed": 1}, text
    assert "Task-1 test_it at " in text
    assert "test_a_deadlock_names_the_line_of_the_test.py:15" in text
    assert "never retrieved" not in text


def test_what_a_failed_test_leaves_is_not_told_in_the_middle_of_its_report(suite: pytest.Pytester) -> None:
    suite.makeconftest(
        """
        import gc, sys
        from bellwire.testing import plugin

        plugin._describe_fault = lambda context: print("told:", context["message"])

        def pytest_sessionfinish():
            sys.last_type = sys.last_value = sys.last_traceback = sys.last_exc = None
            gc.collect()
        """
    )
    counts, text = outcome(
        suite,
        """
        import asyncio, pytest

        async def fail():
            raise LookupError

        @pytest.mark.bellwire
        async def test_it():
            task = asyncio.ensure_future(fail())
            await asyncio.sleep(1)
            assert 1 == 2
        """,
    )
    assert counts == {"failed": 1}, text
    assert "assert 1 == 2" in text
    assert "told:" not in text
