"""What operators set of limits at run time: a layer over the file that holds until it is taken back."""

from pathlib import Path

from edgeproxy import _native
from edgeproxy.errors import StorageError
from edgeproxy.server.kept import Kept

_Set = dict[str, dict[str, int]]
"""By limit and key; the empty key stands for all keys that have no number of their own."""


class Limits:
    """Those of one state directory."""

    def __init__(self, directory: Path) -> None:
        self._kept: Kept[_Set] = Kept(directory / "limits.json", _Set, {})
        self.problem = self._kept.problem

    @property
    def set_by_operators(self) -> _Set:
        """What is set, by limit and key."""
        return self._kept.value

    def apply(self, engine: _native.Engine) -> None:
        """Let an engine know of all; what it has no limit for waits."""
        for name, keys in self._kept.value.items():
            for key, most in keys.items():
                engine.set_limit(name, key, most)

    def set(self, engine: _native.Engine, name: str, key: str, most: int | None) -> None:
        """Set how many a key may have, or take that back; raise `StorageError` where there is no such limit, or it cannot be kept."""
        own = engine.set_limit(name, key, most)
        if own is None:
            raise StorageError(f"no such limit: {name}")
        found = {limit: dict(keys) for limit, keys in self._kept.value.items()}
        if most is None:
            found.get(name, {}).pop(own, None)
        else:
            # As requests have it: `+49 30 1234` and `+49301234` are one.
            found.setdefault(name, {})[own] = most
        self._kept.write({limit: keys for limit, keys in found.items() if keys}, "set")
