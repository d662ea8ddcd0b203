"""What the HTTP server of the management API says: counted and told now and then, never with the words of whoever sent it."""

import logging
import time
from collections.abc import Callable

BETWEEN_SECONDS = 10.0
"""Broken HTTP comes as fast as anybody likes: it is told no more often."""


class HttpLog(logging.Handler):
    """Takes the lines of the HTTP server; `tell` gets how many came since the last time, and the kind of fault of the last."""

    def __init__(self, tell: Callable[[dict[str, object]], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._count = 0
        self._told = -BETWEEN_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        """Count a line, and tell where the last time is long enough ago. The token may be in its text."""
        self._count += 1
        if time.monotonic() - self._told < BETWEEN_SECONDS:
            return
        kind = record.exc_info[0] if record.exc_info else None
        self._told = time.monotonic()
        self._tell({"count": self._count, "fault": kind.__name__ if kind else "none"})
        self._count = 0


def http_logger(tell: Callable[[dict[str, object]], None]) -> logging.Logger:
    """Return the logger for the HTTP server of one management API."""
    logger = logging.getLogger("edgeproxy.management")
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(HttpLog(tell))
    return logger
