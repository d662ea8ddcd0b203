"""Per-call variables, which cross as JSON: the call keeps them for handlers that come later, in whatever process those run."""

import json
from typing import Any

import msgspec

from edgeproxy.errors import PolicyError

MOST_NAMES = 256
MOST_BYTES = 16_384
"""Of one call, all names and values as one JSON object; the engine refuses more."""


class Variables:
    """What one handler has of the variables of its call."""

    __slots__ = ("_kept", "own")

    def __init__(self) -> None:
        self.own: dict[str, Any] = {}
        self._kept: dict[str, str] = {}

    def learn(self, text: str) -> None:
        """Take over what other handlers keep, a JSON object or nothing; what this one changed meanwhile stays."""
        kept = {name: bytes(value).decode() for name, value in msgspec.json.decode(text or "{}", type=dict[str, msgspec.Raw]).items()}
        for name in self._kept.keys() | kept.keys():
            if (value := kept.get(name)) == self._kept.get(name):
                continue
            if value is None:
                self.own.pop(name, None)
            else:
                self.own[name] = msgspec.json.decode(value)
        self._kept = kept

    def changed(self) -> list[tuple[str, str | None]]:
        """Return names and values, as JSON, of what the call does not have yet, and None for what is gone; from then on it has them.

        Raise `PolicyError` for a value that JSON cannot hold.
        """
        if len(self.own) > MOST_NAMES:
            raise PolicyError(f"call.variables: {len(self.own)} names, {MOST_NAMES} at most")
        own = {name: _json(name, value) for name, value in self.own.items()}
        # Each with a colon, and a comma or brace before it.
        if (size := 1 + sum(len(_json("", name).encode()) + len(text.encode()) + 2 for name, text in own.items())) > MOST_BYTES:
            raise PolicyError(f"call.variables: {size} bytes as JSON, {MOST_BYTES} at most for a call")
        before, self._kept = self._kept, own
        changed: list[tuple[str, str | None]] = [(name, text) for name, text in own.items() if before.get(name) != text]
        return changed + [(name, None) for name in before if name not in own]


def _check(value: object) -> None:
    if isinstance(value, tuple):
        raise TypeError("a tuple would come back as a list")
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                raise TypeError(f"the name {name!r} would come back as a text")
            _check(part)
    elif isinstance(value, list):
        for part in value:
            _check(part)


def _json(name: str, value: object) -> str:
    try:
        # Not what would come back as something else: bytes, sets, tuples, names that are no text, dates, numbers that are none.
        _check(value)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise PolicyError(f"call.variables[{name!r}]: expected what JSON can hold, got {type(value).__name__}: {error}") from None
