"""What policies print and log by `logging`, as lines of the log like all others."""

import io
import logging
import sys
from collections.abc import Callable

from edgeproxy.policy.at_hand import named
from edgeproxy.policy.dispatch import described

MOST_CHARACTERS = 2_000
"""Of a line."""
Say = Callable[[str, str, dict[str, object]], None]
"""Takes what a line is called, its level and its values; from any thread."""


def take_over(say: Say) -> None:
    """Have `say` told of each line that is printed, and of each record of `logging` from the levels on that its loggers have."""
    sys.stdout = Printed("stdout", say)
    sys.stderr = Printed("stderr", say)
    logging.getLogger().addHandler(Handler(say))


class Printed(io.TextIOBase):
    """A text file whose lines are lines of the log; what is no whole line waits for its end."""

    def __init__(self, stream: str, say: Say) -> None:
        self._stream = stream
        self._say = say
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What is printed may be any text."""
        return "utf-8"

    def writable(self) -> bool:
        """It can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text, and tell of the lines that it ends."""
        *lines, rest = (self._rest + text).split("\n")
        # Nobody may fill the memory by never ending a line.
        if len(rest) > MOST_CHARACTERS:
            lines, rest = [*lines, rest], ""
        self._rest = rest
        for line in lines:
            if line:
                self._say("printed by a policy", "info", {"text": shortened(line), "stream": self._stream, **named()})
        return len(text)


class Handler(logging.Handler):
    """Tells of records of `logging`."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of one."""
        try:
            text = record.getMessage()
        except Exception as error:
            # The arguments do not fit the format, which is no reason to end what wanted to log.
            text = f"{record.msg} ({described(error)['error']})"
        values: dict[str, object] = {"text": shortened(text), "logger": record.name, "at": f"{record.pathname}:{record.lineno}", **named()}
        if record.exc_info and record.exc_info[1]:
            values |= {"error": described(record.exc_info[1])["error"]}
        self._say("logged by a policy", level_of(record.levelno), values)


def level_of(number: int) -> str:
    """Return the name that the log has for a level of `logging`."""
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


def shortened(text: str) -> str:
    """Return no more of a text than a line of the log should have."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}... ({len(text)} characters)"
