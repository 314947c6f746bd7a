"""Logging of the commands that serve: to standard error, unless the application has set logging up by itself."""

import logging
import logging.config
from typing import Final

LEVELS: Final = ("debug", "info", "warning")
"""From the most to the least; at ``debug`` there is a record for each refusal, without payloads and secrets."""


def set_up_logging(level: str = "info") -> None:
    """Show Bellwire's records from ``level``, one of `LEVELS`, and everybody else's from WARNING on.

    To be called when the application is imported: if it gave the root logger a handler, nothing is touched.
    """
    if logging.getLogger().handlers:
        return
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
            },
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {"bellwire": {"level": level.upper()}},
        }
    )
