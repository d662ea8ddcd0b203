"""What differs between two configurations, and what of that needs a restart."""

from collections.abc import Iterator
from typing import Any

import msgspec

from edgeproxy.config.root import Config

_FIXED = ("install.", "dns.", "records.", "tuning.", "api.")
"""Lives as long as the process..."""
_FREE = ("install.listener.", "install.drain_seconds", "tuning.limits.", "tuning.timers.", "tuning.policy.")
"""...but for these."""
_FIXED_TIMER = "tuning.timers.resolve_milliseconds"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def changes(before: Config, after: Config) -> list[str]:
    """Return the keys whose value differs, in the order of their names."""
    old, new = (dict(_flat(msgspec.to_builtins(config))) for config in (before, after))
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def needs_restart(before: Config, after: Config) -> list[str]:
    """Return those of the changed keys that live as long as the process."""

    old, new = before.install.listener, after.install.listener

    def bound(key: str) -> bool:
        """Whether the key says which workers have a socket of a listener that stays where it is."""
        name, _, field = key.removeprefix("install.listener.").rpartition(".")
        return field == "workers" and name in old and name in new and old[name].address == new[name].address

    def fixed(key: str) -> bool:
        if key.startswith("install.listener."):
            return bound(key)
        return (key.startswith(_FIXED) and not key.startswith(_FREE)) or key == _FIXED_TIMER

    return [key for key in changes(before, after) if fixed(key)]
