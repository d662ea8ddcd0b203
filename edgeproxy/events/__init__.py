"""Events: typed facts, and the bus that carries them to whoever listens."""

from edgeproxy.events.bus import Bus, Listener
from edgeproxy.events.catalogue import (
    CATALOGUE,
    CoreLog,
    CoreStatusChanged,
    Custom,
    from_engine,
    is_known,
    make,
    name_of,
    parameter_names,
    typed,
)
from edgeproxy.events.event import IDENTIFYING, Event

__all__ = [
    "CATALOGUE",
    "IDENTIFYING",
    "Bus",
    "CoreLog",
    "CoreStatusChanged",
    "Custom",
    "Event",
    "Listener",
    "from_engine",
    "is_known",
    "make",
    "name_of",
    "parameter_names",
    "typed",
]
