"""A file with a line for each event; whoever rotates it renames it, and a new one is begun."""

import asyncio
from pathlib import Path

from edgeproxy.events.sink import Sink


class Lines:
    """One file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Write an event; raise `OSError` where that fails."""
        await asyncio.to_thread(self._write, body)

    def _write(self, body: bytes) -> None:
        # Opened anew each time, so that a renamed file gets no more.
        with self._path.open("ab") as file:
            file.write(body + b"\n")

    async def close(self) -> None:
        """Nothing is held."""


async def connect(sink: Sink) -> Lines:
    """Return the way to a sink."""
    return Lines(Path(sink.place.path))
