"""Per-call variables, which cross as JSON: the call keeps them for handlers that come later, in whatever process those run."""

from typing import Any

import msgspec

from edgeproxy.errors import PolicyError


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
        own = {name: _json(name, value) for name, value in self.own.items()}
        before, self._kept = self._kept, own
        changed: list[tuple[str, str | None]] = [(name, text) for name, text in own.items() if before.get(name) != text]
        return changed + [(name, None) for name in before if name not in own]


def _json(name: str, value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise PolicyError(f"call.variables[{name!r}]: expected what JSON can hold, got {type(value).__name__}: {error}") from None
