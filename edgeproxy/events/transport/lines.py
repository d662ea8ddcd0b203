"""A file with a line for each event; whoever rotates it renames it, and a new one is begun."""

import asyncio
import contextlib
import errno
import os
import stat
import threading
from collections import Counter
from pathlib import Path

from edgeproxy.events.sink import Sink

_MOST_WRITES = 4
_writes: Counter[Path] = Counter()
"""Writes of each file that are under way: a file system that hangs must not take thread after thread."""


class Lines:
    """One file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Write an event; raise `OSError` where that fails."""
        if _writes[self._path] >= _MOST_WRITES:
            raise OSError(errno.EBUSY, "writes of before have not come to their end", str(self._path))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        # A thread of its own, which ends with the process: one that hangs holds up neither other sinks nor the end.
        threading.Thread(target=self._work, args=(body, loop, done), name="event-file", daemon=True).start()
        await done

    def _work(self, body: bytes, loop: asyncio.AbstractEventLoop, done: "asyncio.Future[None]") -> None:
        _writes[self._path] += 1
        failure: OSError | None = None
        try:
            _append(self._path, body + b"\n")
        except OSError as error:
            failure = error
        finally:
            _writes[self._path] -= 1

        def tell() -> None:
            if done.done():
                return
            if failure:
                done.set_exception(failure)
            else:
                done.set_result(None)

        # The process may have ended its loop meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell)

    async def close(self) -> None:
        """Nothing is held."""


def _append(path: Path, line: bytes) -> None:
    """Add a line, all of it or nothing; opened anew each time, so that a renamed file gets no more."""
    # Without waiting for somebody to read a pipe.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        before = os.fstat(file)
        try:
            written = os.write(file, line)
            while written < len(line):
                written += os.write(file, line[written:])
        except OSError:
            if stat.S_ISREG(before.st_mode):
                # Half a line would spoil the next one too.
                os.ftruncate(file, before.st_size)
            raise
    finally:
        os.close(file)


async def connect(sink: Sink) -> Lines:
    """Return the way to a sink."""
    return Lines(Path(sink.place.path))
