"""What operators switched on or off: kept in the state directory, so that it holds over restarts and for SELECT-only databases."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgeproxy.errors import StorageError

Key = tuple[str, str, str]
"""Partition, or the peer of a pool; kind; name."""


class Switches:
    """The switches of one state directory."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "switches.json"
        self._states: dict[Key, bool] = {}
        self.problem = ""
        """Why those of earlier could not be read; empty where they could."""
        try:
            rows = msgspec.json.decode(self._file.read_bytes(), type=list[tuple[str, str, str, bool]])
        except FileNotFoundError:
            rows = []
        except (OSError, msgspec.MsgspecError) as error:
            self.problem = f"{self._file}: {error}"
            rows = []
            with contextlib.suppress(OSError):
                # The next switch would write over it.
                self._file.replace(self._file.with_suffix(".unreadable"))
        self._states = {(partition, kind, name): on for partition, kind, name, on in rows}

    def __iter__(self) -> Iterator[tuple[Key, bool]]:
        return iter(self._states.items())

    def set(self, key: Key, on: bool) -> None:
        """Keep a switch; raise `StorageError` where it cannot be written."""
        self._states[key] = on
        staged = self._file.with_suffix(".new")
        try:
            staged.write_bytes(msgspec.json.encode([(*one, value) for one, value in sorted(self._states.items())]))
            staged.replace(self._file)
        except OSError as error:
            raise StorageError(f"switched, but a restart will not know of it: {error}") from error
