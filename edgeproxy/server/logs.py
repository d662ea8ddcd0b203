"""Prints what native threads log, as JSON lines on standard error."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO, cast

import msgspec
import structlog

from edgeproxy import _native
from edgeproxy.server.log_writer import LogWriter
from edgeproxy.server.readable import readable

END_SECONDS = 0.5
"""How long the last lines may take when the process ends."""
ROUND_SECONDS = 0.1
"""How long lines gather while more come: the first one is printed at once."""


def configure() -> tuple[LogWriter, int]:
    """Take over native logging and make structlog print JSON; return what it prints to, and the descriptor readable while lines wait."""
    descriptor = _native.install_logger()
    writer = LogWriter()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(serializer=_serialize)],
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, writer)),
    )
    return writer, descriptor


def _serialize(event: dict[str, object], **_: object) -> str:
    try:
        return msgspec.json.encode(event).decode()
    except (UnicodeError, TypeError):
        # A policy may raise with any text in it: half of a surrogate pair is no text that JSON could have.
        return msgspec.json.encode({name: str(value).encode(errors="backslashreplace").decode() for name, value in event.items()}).decode()


class LogPrinter:
    """Prints the lines that wait, and once for each loss that some were lost.

    Never raises and never waits: a disk that is full, or a reader that is gone or stands still, must take the lines and nothing else.
    """

    def __init__(self, writer: LogWriter, descriptor: int) -> None:
        self._log = structlog.get_logger()
        self._writer = writer
        self._descriptor = descriptor
        self._lost = 0
        self._refused = 0
        self.listener: Callable[[str, str, str, str], None] | None = None
        """Is told time, level, part and text of lines from level warning on."""

    async def run(self) -> None:
        """Print lines as they come."""
        while True:
            self.drain()
            await asyncio.sleep(ROUND_SECONDS)
            await readable(self._descriptor)

    def drain(self) -> None:
        """Print what waits."""
        lines, lost = _native.drain_log()
        for wall, level, target, message, values in lines:
            time = datetime.fromtimestamp(wall / 1_000_000, UTC).isoformat(timespec="microseconds")
            self._print(message, time=time, level=level, part=target, **values)
            self._tell(time, level, target, message)
        if lost > self._lost:
            self._print("log lines lost", level="warning", part="log", lost=lost - self._lost)
            self._lost = lost

    def event(self, message: str, level: str = "info", values: Mapping[str, object] | None = None) -> None:
        """Print a line of our own."""
        self._tell(self.aside(message, level, values), level, "server", message)

    def aside(self, message: str, level: str = "info", values: Mapping[str, object] | None = None) -> str:
        """Print a line about the telling of lines, which is told nobody, or that would never end; return its time."""
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        self._print(message, time=time, level=level, part="server", **(values or {}))
        return time

    def _print(self, message: str, **values: object) -> None:
        try:
            self._log.msg(message, **values)
        except (OSError, ValueError):
            self._refused += 1

    @property
    def unwritten(self) -> int:
        """Lines that standard error did not take."""
        return self._refused + self._writer.lost

    def finish(self) -> None:
        """Print what waits, as far as somebody reads it."""
        self.drain()
        self._writer.finish(END_SECONDS)

    def _tell(self, time: str, level: str, part: str, message: str) -> None:
        """Tell the listener; what it prints because of that is not told again."""
        listener = self.listener
        if listener and level in {"warning", "error"}:
            self.listener = None
            try:
                listener(time, level, part, message)
            finally:
                self.listener = listener
