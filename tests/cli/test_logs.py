"""Who sees what, unless the application has decided that."""

import subprocess
import sys

PROGRAM = """
import logging
{before}
from bellwire.cli.logs import set_up_logging
set_up_logging()
for name in ("bellwire.server", "uvicorn.error", "application"):
    logging.getLogger(name).info("a detail")
    logging.getLogger(name).warning("a warning")
"""


def lines(before: str = "") -> list[str]:
    program = PROGRAM.format(before=before)
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


def test_an_application_that_set_logging_up_is_left_alone() -> None:
    assert lines("logging.basicConfig(level='ERROR')") == []
