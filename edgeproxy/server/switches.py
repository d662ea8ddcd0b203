"""What operators switched on or off: kept in the state directory, so that it holds over restarts and for SELECT-only databases."""

from collections.abc import Iterator
from pathlib import Path

from edgeproxy.server.kept import Kept

Key = tuple[str, str, str]
"""Partition, or the peer of a pool; kind; name."""
_Rows = list[tuple[str, str, str, bool]]


class Switches:
    """The switches of one state directory."""

    def __init__(self, directory: Path) -> None:
        self._kept: Kept[_Rows] = Kept(directory / "switches.json", _Rows, [])
        self.problem = self._kept.problem
        self._states: dict[Key, bool] = {(partition, kind, name): on for partition, kind, name, on in self._kept.value}

    def __iter__(self) -> Iterator[tuple[Key, bool]]:
        return iter(self._states.items())

    def in_words(self) -> dict[str, str]:
        """Return what is switched, `on` or `off`, by kind, partition or peer, and name."""
        return {
            " ".join(filter(None, (kind, where, name))): "on" if on else "off" for (where, kind, name), on in sorted(self._states.items())
        }

    def set(self, key: Key, on: bool) -> None:
        """Keep a switch; raise `StorageError` where it cannot be written."""
        self._states[key] = on
        self._kept.write([(*one, value) for one, value in sorted(self._states.items())], "switched")
