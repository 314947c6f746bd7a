"""How many files may be open, and what is told when they are."""

import errno
import math
import resource

import pytest

from bellwire.core.open_files import MORE, explained, limits


@pytest.mark.parametrize("limit", [(1_024, 4_096), (1_024, resource.RLIM_INFINITY)])
def test_the_limits_are_those_of_this_process(limit: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit)
    assert limits() == (1_024, 4_096 if limit[1] == 4_096 else math.inf)


def test_an_error_says_where_more_are_allowed_if_that_is_what_is_wrong() -> None:
    assert (
        explained(OSError(errno.EMFILE, "Too many open files"))
        == f"[Errno 24] Too many open files: allow more with {MORE}"
    )
    assert explained(OSError(errno.EPIPE, "Broken pipe")) == "[Errno 32] Broken pipe"
