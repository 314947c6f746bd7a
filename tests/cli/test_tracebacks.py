"""Whose lines a traceback shows."""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bellwire.cli.tracebacks import format_user_traceback
from bellwire.core.events import require_event
from bellwire.demo.chat import identify
from bellwire.server.namespace import Namespace


def lines_of(error: BaseException) -> list[str]:
    """The functions in the traceback."""
    text = format_user_traceback(error)
    return [line.rpartition(" in ")[2] for line in text.splitlines() if line.lstrip(" |").startswith("File ")]


def raised_by(call: Any, *arguments: Any) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is
        call(*arguments)
    error = raised.value
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)  # without this function's own line


def test_what_bellwire_raises_on_purpose_ends_at_the_applications_line() -> None:
    def application() -> None:
        require_event("message", "on")

    error = raised_by(application)
    assert lines_of(error) == ["application"]
    assert "MESSAGE = Event('message', ...)" in format_user_traceback(error)


def test_a_fault_inside_bellwire_keeps_its_lines() -> None:
    def application() -> None:
        Namespace("/").extend(object())  # type: ignore[arg-type]

    assert lines_of(raised_by(application)) == ["application", "extend"]


def test_lines_that_only_lead_to_the_application_are_left_out() -> None:
    @contextmanager  # its lines belong to a library, as a web framework's would
    def lifespan() -> Iterator[None]:
        raise LookupError("no database")
        yield

    def enter() -> None:
        ExitStack().enter_context(lifespan())

    error = raised_by(enter)
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)  # from contextlib's line on, as in a server's start
    assert len(traceback.extract_tb(error.__traceback__)) > 1
    assert lines_of(error) == ["lifespan"]


def test_an_error_that_never_passed_the_application_keeps_all_lines() -> None:
    error = raised_by(require_event, 7, "on")
    assert lines_of(error) == ["require_event"]


def test_the_demo_counts_as_an_application() -> None:
    assert "identify" in lines_of(raised_by(identify, {}))


def test_causes_and_groups_are_trimmed_too() -> None:
    def application() -> None:
        try:
            require_event("first", "on")
        except TypeError as error:
            raise ExceptionGroup("several", [raised_by(require_second)]) from error

    def require_second() -> None:
        require_event("second", "on")

    assert lines_of(raised_by(application)) == ["application", "application", "require_second"]
