"""For all tests: async ones run on our plugin, nothing blocks the loop, and in CI nothing is skipped."""

import inspect
import os
from collections.abc import Generator, Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

pytest_plugins = ["pytester"]

# A busy machine is no fault of the code: how long an example takes is not judged, only the test's own timeout.
settings.register_profile("bellwire", deadline=None)
settings.load_profile("bellwire")

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every coroutine test; one that says `bellwire(clock="real")` keeps its own marker."""
    function = getattr(item, "obj", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if inspect.iscoroutinefunction(inner) and item.get_closest_marker("bellwire") is None:
        item.add_marker(pytest.mark.bellwire)


@pytest.fixture(autouse=True, scope="session")
def no_blocking_calls() -> Iterator[None]:
    """A blocking call while a loop runs raises `BlockingError`. Outside of a loop all is as ever."""
    with blockbuster_ctx():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one. (xfail is reported as a skip too, and stays what it is.)"""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"in CI nothing is skipped: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is imported."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome, report.longrepr = "failed", f"in CI nothing is skipped: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> object:
    return longrepr[2] if isinstance(longrepr, tuple) else longrepr
