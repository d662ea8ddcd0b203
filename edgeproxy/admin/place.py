"""Paths of UNIX sockets, which the kernel limits to 108 bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 100


@contextmanager
def reachable(socket: Path) -> Iterator[str]:
    """Give a path for `socket` that is short enough, by way of its open folder where it must be."""
    path = str(socket)
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    folder = os.open(socket.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)
