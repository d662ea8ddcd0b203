"""Prints what native threads log, as JSON lines on standard error."""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec
import structlog

from edgeproxy import _native

ROUND_SECONDS = 0.1
"""How often the lines that wait are printed."""


def configure() -> None:
    """Take over native logging and make structlog print JSON."""
    _native.install_logger()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(serializer=_serialize)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _serialize(event: dict[str, object], **_: object) -> str:
    try:
        return msgspec.json.encode(event).decode()
    except (UnicodeError, TypeError):
        # A policy may raise with any text in it: half of a surrogate pair is no text that JSON could have.
        return msgspec.json.encode({name: str(value).encode(errors="backslashreplace").decode() for name, value in event.items()}).decode()


class LogPrinter:
    """Prints the lines that wait, and once for each loss that some were lost.

    Never raises: a disk that is full, or a reader that is gone, must take the lines and nothing else.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._lost = 0
        self.unwritten = 0
        """Lines that standard error did not take."""
        self.listener: Callable[[str, str, str, str], None] | None = None
        """Is told time, level, part and text of lines from level warning on."""

    def drain(self) -> None:
        """Print what waits."""
        lines, lost = _native.drain_log()
        for wall, level, target, message in lines:
            time = datetime.fromtimestamp(wall / 1_000_000, UTC).isoformat(timespec="microseconds")
            self._print(message, time=time, level=level, part=target)
            self._tell(time, level, target, message)
        if lost > self._lost:
            self._print("log lines lost", level="warning", part="log", lost=lost - self._lost)
            self._lost = lost

    def event(self, message: str, level: str = "info", values: Mapping[str, object] | None = None) -> None:
        """Print a line of our own."""
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        self._print(message, time=time, level=level, part="server", **(values or {}))
        self._tell(time, level, "server", message)

    def _print(self, message: str, **values: object) -> None:
        try:
            self._log.msg(message, **values)
        except (OSError, ValueError):
            self.unwritten += 1

    def _tell(self, time: str, level: str, part: str, message: str) -> None:
        """Tell the listener; what it prints because of that is not told again."""
        listener = self.listener
        if listener and level in {"warning", "error"}:
            self.listener = None
            try:
                listener(time, level, part, message)
            finally:
                self.listener = listener
