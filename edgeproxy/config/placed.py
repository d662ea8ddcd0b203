"""Where in the file the engine's faults are: it knows keys, and no lines."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgeproxy.config.loader import Loaded
from edgeproxy.config.positions import Positions
from edgeproxy.errors import BindError, ConfigError

_KEYED = re.compile(r"([a-z_]+(?:\.[^\s:]+)+): ")


@contextmanager
def placed(loaded: Loaded) -> Iterator[None]:
    """Give faults of the engine that name a key the file and line of it, and the key as the file has it."""
    try:
        yield
    except (BindError, ConfigError) as error:
        raise type(error)("\n".join(_line(loaded, line) for line in str(error).split("\n"))) from None


def _line(loaded: Loaded, line: str) -> str:
    keyed = _KEYED.match(line)
    if keyed is None or line.startswith(f"{loaded.name}:"):
        return line
    positions = Positions(loaded.text)
    # The engine's document has no `install` around listeners.
    for key in (keyed[1], f"install.{keyed[1]}"):
        parts = tuple(key.split("."))
        if positions.has(parts[:2]):
            return f"{loaded.name}:{positions.line(parts)}: {key}: {line[keyed.end() :]}"
    return line
