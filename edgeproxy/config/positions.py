"""Which line of a TOML file holds which key."""

import re

KeyPath = tuple[str, ...]

_TABLE = re.compile(r"^\s*\[\[?\s*(?P<path>[^\]]+?)\s*\]?\]\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*(?P<path>(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def _parts(text: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in _PART.findall(text))


class Positions:
    """Lines of keys and tables; a key that is not written itself has the line of its table."""

    def __init__(self, text: str) -> None:
        self._lines: dict[KeyPath, int] = {}
        table: KeyPath = ()
        counts: dict[KeyPath, int] = {}
        until = ""
        for number, line in enumerate(text.splitlines(), start=1):
            if until:
                until = "" if until in line else until
                continue
            if match := _TABLE.match(line):
                table = _parts(match["path"])
                if line.lstrip().startswith("[["):
                    # The tables of an array are told apart by their numbers.
                    counts[table] = counts.get(table, -1) + 1
                    self._lines.setdefault(table, number)
                    table = (*table, str(counts[table]))
                self._lines.setdefault(table, number)
            elif match := _KEY.match(line):
                path = table + _parts(match["path"])
                for length in range(len(table) + 1, len(path) + 1):
                    self._lines.setdefault(path[:length], number)
                rest = line[match.end() :]
                for quotes in ('"""', "'''"):
                    if rest.count(quotes) == 1:
                        until = quotes

    def has(self, path: KeyPath) -> bool:
        """Whether `path` or something in it is written."""
        return any(known[: len(path)] == path for known in self._lines)

    def line(self, path: KeyPath) -> int:
        """Return the line of `path`, or of what it lies in; 1 where nothing of it is written."""
        while path:
            if found := self._lines.get(path):
                return found
            path = path[:-1]
        return 1
