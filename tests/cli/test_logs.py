"""Who sees what, unless the application has decided that."""

import subprocess
import sys

PROGRAM = """
import logging
{before}
from bellwire.cli.logs import set_up_logging
set_up_logging({level})
for name in ("bellwire.server", "uvicorn.error", "application"):
    logging.getLogger(name).debug("a refusal")
    logging.getLogger(name).info("a detail")
    logging.getLogger(name).warning("a warning")
"""


def lines(before: str = "", level: str = "") -> list[str]:
    program = PROGRAM.format(before=before, level=level)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == ""
    return [line.partition(" ")[2] for line in done.stderr.splitlines()]


def test_bellwire_speaks_from_info_on_and_others_from_warning_on() -> None:
    assert lines() == [
        "INFO bellwire.server: a detail",
        "WARNING bellwire.server: a warning",
        "WARNING uvicorn.error: a warning",
        "WARNING application: a warning",
    ]


def test_the_level_is_that_of_bellwires_own_records() -> None:
    others = ["WARNING uvicorn.error: a warning", "WARNING application: a warning"]
    assert lines(level="'warning'") == ["WARNING bellwire.server: a warning", *others]
    assert lines(level="'debug'") == [
        "DEBUG bellwire.server: a refusal",
        "INFO bellwire.server: a detail",
        "WARNING bellwire.server: a warning",
        *others,
    ]


def test_an_application_that_set_logging_up_is_left_alone() -> None:
    assert lines("logging.basicConfig(level='ERROR')") == []
