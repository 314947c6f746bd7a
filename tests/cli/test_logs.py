"""Who sees what, unless the application has decided that."""

import subprocess
import sys

PROGRAM = """
import logging
{before}
from bellwire.cli.logs import set_up_logging
set_up_logging({arguments})
for name in ("bellwire.server", "uvicorn.error", "application"):
    logging.getLogger(name).debug("a refusal")
    logging.getLogger(name).info("a detail")
    logging.getLogger(name).warning("a warning")
"""


def lines(before: str = "", arguments: str = "") -> list[str]:
    program = PROGRAM.format(before=before, arguments=arguments)
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
    assert lines(arguments="'warning'") == ["WARNING bellwire.server: a warning", *others]
    assert lines(arguments="'debug'") == [
        "DEBUG bellwire.server: a refusal",
        "INFO bellwire.server: a detail",
        "WARNING bellwire.server: a warning",
        *others,
    ]


def test_an_application_that_set_logging_up_is_left_alone() -> None:
    assert lines("logging.basicConfig(level='ERROR')") == []


def test_a_worker_is_named_in_each_line_and_to_formats_of_the_applications_own() -> None:
    assert lines(arguments="worker='worker-2'")[0] == "INFO worker-2 bellwire.server: a detail"
    own = "logging.basicConfig(format='%(asctime)s %(processName)s: %(message)s', datefmt='now')"
    assert lines(own, arguments="worker='worker-2'")[0] == "worker-2: a warning"
