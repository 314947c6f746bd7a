"""The pytest plugin: runs ``async def`` tests that carry the marker ``bellwire``, and no others.

    @pytest.mark.bellwire                               # the virtual clock
    async def test_heartbeat(): ...

    @pytest.mark.bellwire(clock="real")                 # sockets, threads, processes
    @pytest.mark.bellwire(clock="real", uvloop=True)    # the loop that production uses

Every test has a loop of its own (every example of a Hypothesis test too). Beside its own assertions a test
fails, by name, when it leaves a task behind or when an exception reached the loop's exception handler, for
which nobody else would look.

Async fixtures are not supported: what a test opens it opens with ``async with``, in the loop that runs it.
Tests without the marker are left to pytest-asyncio or anyio; pytest-asyncio's *auto* mode takes all coroutine
tests for itself, so the two meet in its strict mode (the default).
"""

import asyncio
import gc
import inspect
import traceback
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal

import pytest

from bellwire.testing.clock import VirtualClockLoop, describe_task

_Test = Callable[..., Awaitable[object]]
_GRACE = 1.0
"""Real seconds in which tasks may end by themselves after a test on the real clock."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "bellwire(clock='virtual', uvloop=False): run this async test on a virtual clock; "
        "clock='real' on a real one, with uvloop=True on uvloop",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse options that the marker does not have before any test runs."""
    for item in items:
        mark = item.get_closest_marker("bellwire")
        if mark is not None:
            try:
                _check_options(mark)
            except ValueError as error:
                raise pytest.UsageError(f"{item.nodeid}: {error}") from None


def _check_options(mark: pytest.Mark) -> None:
    written = ", ".join([*map(repr, mark.args), *(f"{name}={value!r}" for name, value in mark.kwargs.items())])
    where = f"@pytest.mark.bellwire({written})"
    if mark.args or mark.kwargs.keys() - {"clock", "uvloop"}:
        raise ValueError(f"{where}: the options are clock='virtual' or 'real', and uvloop=True")
    clock = mark.kwargs.get("clock", "virtual")
    if clock not in ("virtual", "real"):
        raise ValueError(f"{where}: the clock is 'virtual' or 'real'")
    if mark.kwargs.get("uvloop", False) and clock == "virtual":
        raise ValueError(f"{where}: uvloop has no virtual clock, add clock='real'")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Put a plain function that runs the loop in the place of a marked coroutine function."""
    mark = pyfuncitem.get_closest_marker("bellwire")
    if mark is None:
        return (yield)
    factory = _loop_factory(**mark.kwargs)
    holder, attribute = _place_of_test(pyfuncitem)
    test = getattr(holder, attribute)
    if not inspect.iscoroutinefunction(test):
        return (yield)
    setattr(holder, attribute, _plain(test, factory, pyfuncitem.name))
    try:
        return (yield)
    finally:
        setattr(holder, attribute, test)


def _place_of_test(item: pytest.Function) -> tuple[object, str]:
    """Where the test function is kept: Hypothesis hides it behind a plain function of its own."""
    handle = getattr(item.obj, "hypothesis", None)
    return (item, "obj") if handle is None else (handle, "inner_test")


def _loop_factory(
    *, clock: Literal["virtual", "real"] = "virtual", uvloop: bool = False
) -> Callable[[], asyncio.AbstractEventLoop]:
    """The marker's options, which were checked, as a function that makes the loop."""
    if not uvloop:
        return VirtualClockLoop if clock == "virtual" else asyncio.new_event_loop
    from uvloop import new_event_loop

    return new_event_loop


def _plain(test: _Test, factory: Callable[[], asyncio.AbstractEventLoop], name: str) -> Callable[..., None]:
    def run(**arguments: Any) -> None:
        __tracebackhide__ = True
        _run(test, arguments, factory, name)

    return run


def _run(test: _Test, arguments: dict[str, Any], factory: Callable[[], asyncio.AbstractEventLoop], name: str) -> None:
    """Run one test in a new loop, then report what it left behind."""
    __tracebackhide__ = True
    faults: list[str] = []
    runner = asyncio.Runner(loop_factory=factory)
    loop = runner.get_loop()
    loop.set_exception_handler(lambda _, context: faults.append(_describe_fault(context)))
    try:
        with runner:
            runner.run(_watched(test, arguments, faults))
    except BaseException as error:
        # What the test's frames hold on to is freed in the middle of pytest's report, where nobody listens any more,
        # and where to format a traceback would break the parsing of another (CPython issue 106905).
        loop.set_exception_handler(_ignore)
        for fault in faults:
            error.add_note(f"Beside that: {fault}")
        raise
    gc.collect(1)  # a failed task tells the exception handler when it is freed, and its traceback is a cycle
    if faults:
        pytest.fail(f"{name} passed its assertions, but\n" + "\n".join(faults), pytrace=False)


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Stand in for a loop's exception handler when the test has failed already."""


async def _watched(test: _Test, arguments: dict[str, Any], faults: list[str]) -> None:
    __tracebackhide__ = True
    await test(**arguments)
    faults.extend(f"left a task behind: {describe_task(task)}" for task in await _left_behind())


async def _left_behind() -> list[asyncio.Task[Any]]:
    """The tasks that do not end by themselves, until all is quiet or, on a real clock, within the grace."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks and isinstance(loop, VirtualClockLoop):
        await loop.settle()
    elif tasks:
        await asyncio.wait(tasks, timeout=_GRACE)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return sorted(left, key=asyncio.Task.get_name)


def _describe_fault(context: dict[str, Any]) -> str:
    """What a loop's exception handler was given, as text (``loop.call_exception_handler``)."""
    lines = [f"the loop's exception handler was told: {context['message']}"]
    lines += [f"  {key}: {value!r}" for key, value in context.items() if key not in ("message", "exception")]
    error = context.get("exception")
    if error is not None:
        lines.append("".join(traceback.format_exception(error)).rstrip())
    return "\n".join(lines)
