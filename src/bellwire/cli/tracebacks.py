"""Tracebacks that show an application's own lines, and not those of the machinery that called them."""

import importlib
import sysconfig
import traceback
from pathlib import Path
from traceback import FrameSummary
from typing import Final

from bellwire.core.errors import BellwireError

_PACKAGE: Final = str(Path(__file__).parents[1])
_CALLERS: Final = (str(Path(__file__).parent), str(Path(str(importlib.__file__)).parent), "<frozen ")
_LIBRARIES: Final = (_PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), "<frozen ")
_APPLICATION: Final = str(Path(_PACKAGE, "demo"))
_ON_PURPOSE: Final = (BellwireError, TypeError, ValueError)
"""What Bellwire raises at a wrong call: the message names the fix, and the line to change is the caller's."""


def format_user_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` from the first line of the application on, without a newline at its end.

    An error that never passed the application keeps all its lines: it is Bellwire's own.
    """
    summary = traceback.TracebackException.from_exception(error)
    _trim(summary, error)
    return "".join(summary.format()).rstrip()


def _trim(summary: traceback.TracebackException, error: BaseException) -> None:
    summary.stack[:] = _of_application(summary.stack, error)
    if summary.__cause__ is not None and error.__cause__ is not None:
        _trim(summary.__cause__, error.__cause__)
    if summary.__context__ is not None and error.__context__ is not None:
        _trim(summary.__context__, error.__context__)
    if isinstance(error, BaseExceptionGroup):
        for inner, one in zip(summary.exceptions or (), error.exceptions, strict=False):
            _trim(inner, one)


def _of_application(stack: list[FrameSummary], error: BaseException) -> list[FrameSummary]:
    frames = [frame for frame in stack if not frame.filename.startswith(_CALLERS)]
    theirs = [position for position, frame in enumerate(frames) if not _is_in(_LIBRARIES, frame)]
    if not theirs:
        return frames
    end = len(frames)
    while isinstance(error, _ON_PURPOSE) and _is_in((_PACKAGE,), frames[end - 1]):
        end -= 1
    return frames[theirs[0] : end]


def _is_in(folders: tuple[str, ...], frame: FrameSummary) -> bool:
    return frame.filename.startswith(folders) and not frame.filename.startswith(_APPLICATION)
