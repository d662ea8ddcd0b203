"""Writes lines to standard error without ever waiting for whoever reads it."""

import os
import select
import stat
import threading
import time
from collections import deque

MOST_WAITING = 1_000
"""Lines that wait for a reader that is slow."""
_AT_ONCE = 4_096
"""Bytes that a pipe takes whole where it takes any (PIPE_BUF, pipe(7))."""


def hold_standard_descriptors() -> None:
    """See to it that descriptors 0 to 2 are taken: where one is closed, a socket would get its number, and with it what is printed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


class LogWriter:
    """A text file to print lines to: what would have to wait is written by a thread."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._parts: list[str] = []
        self._waiting: deque[bytes] = deque()
        self._more = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self.lost = 0
        """Lines that could not be written after they had waited."""

    def write(self, text: str) -> None:
        """Add to the line at hand."""
        self._parts.append(text)

    def flush(self) -> None:
        """Write the line at hand, or let it wait; raise `OSError` where it cannot be written, or too many wait already."""
        line = "".join(self._parts).encode(errors="backslashreplace")
        self._parts.clear()
        with self._more:
            if not self._waiting and self._takes(len(line)):
                self._write(line)
                return
            if len(self._waiting) >= MOST_WAITING:
                raise BlockingIOError("too many lines wait for whoever reads standard error")
            self._waiting.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_later, name="log", daemon=True)
                self._thread.start()
            self._more.notify()

    def finish(self, seconds: float) -> None:
        """Give what waits so much time to be written."""
        end = time.monotonic() + seconds
        while self._waiting and time.monotonic() < end:
            time.sleep(0.01)

    def _takes(self, size: int) -> bool:
        """Whether so many bytes can be written at once: files always take them."""
        if self._is_file:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return size <= _AT_ONCE and bool(poll.poll(0))

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._descriptor, line) :]

    def _write_later(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._waiting)
                line = self._waiting[0]
            try:
                self._write(line)
            except OSError:
                self.lost += 1
            with self._more:
                # Only now: until then whatever comes has to wait behind it.
                self._waiting.popleft()
