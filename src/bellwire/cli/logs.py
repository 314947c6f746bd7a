"""Logging of the commands that serve: to standard error, unless the application has set logging up by itself."""

import logging
import logging.config
import multiprocessing
from typing import Final

LEVELS: Final = ("debug", "info", "warning")
"""From the most to the least; at ``debug`` there is a record for each refusal, without payloads and secrets."""


_TIME: Final = "%Y-%m-%dT%H:%M:%S%z"


def set_up_logging(level: str = "info", *, worker: str = "") -> None:
    """Show Bellwire's records from ``level``, one of `LEVELS`, and everybody else's from WARNING on.

    The name of a ``worker`` stands in each line, and is ``%(processName)s`` in the formats of an application.

    To be called when the application is imported: if it gave the root logger a handler, nothing is touched.
    """
    if worker:
        multiprocessing.current_process().name = worker
    if logging.getLogger().handlers:
        return
    mark = "%(processName)s " if worker else ""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {"format": f"%(asctime)s %(levelname)s {mark}%(name)s: %(message)s", "datefmt": _TIME}
            },
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {"bellwire": {"level": level.upper()}},
        }
    )
