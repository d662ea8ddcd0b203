"""What is wrong with a file, gathered so that all of it is told at once."""

import difflib
from collections.abc import Iterable

from edgeproxy.config.positions import KeyPath, Positions
from edgeproxy.errors import ConfigError


class Faults:
    """Faults of one file, each with the line of its key."""

    def __init__(self, name: str, positions: Positions) -> None:
        self._name = name
        self._positions = positions
        self._found: list[tuple[int, str]] = []

    def add(self, path: KeyPath, problem: str, hint: str = "") -> None:
        """Note a fault at `path`; `hint` says what to do about it."""
        line = self._positions.line(path)
        text = f"{self._name}:{line}: {'.'.join(path) or 'file'}: {problem}"
        self._found.append((line, f"{text}\nhint: {hint}" if hint else text))

    def unknown(self, path: KeyPath, valid: Iterable[str]) -> None:
        """Note a key that no table has."""
        names = sorted(valid)
        near = difflib.get_close_matches(path[-1], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"valid here: {', '.join(names)}"
        self.add(path, "unknown key", hint)

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(self) -> ConfigError:
        """Return all faults as one error, in the order of the file."""
        return ConfigError("\n".join(text for _, text in sorted(self._found, key=lambda fault: fault[0])))
