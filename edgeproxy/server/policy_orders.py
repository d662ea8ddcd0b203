"""What the server and a policy process tell each other, each in one line of JSON: orders and hello at its start, then events."""

from pathlib import Path
from typing import Any

import msgspec

from edgeproxy.config.lookup import Lookup
from edgeproxy.policy.load import ModuleSpec


class Orders(msgspec.Struct):
    """What a policy process is told at its start."""

    modules: list[ModuleSpec]
    deadlines: list[float]
    statuses: list[int]
    kinds: dict[str, str]
    """The kind of each peer."""
    directory: str
    cache: str
    """Where compiled modules lie."""
    descriptors: list[int]
    """Of the link; none where the modules are only to be checked."""
    heartbeat_seconds: float
    nice: int
    database: str
    """URL of the database."""
    values: int = -1
    """The descriptor by which values are reached."""
    lookups: dict[str, Lookup] = {}
    peer_lookups: dict[str, list[str]] = {}
    """The lookups of each peer that has some."""
    trusted: list[str] = []
    """Peers whose word on identities is believed."""
    mask_identities: bool = False
    """Whether the log names no calls."""
    places: list[str] = []
    """File and line that name each module: for faults only, they make no other process of it."""


DRAIN = "drain"
"""Told in the place of an event: end once no handler runs. Names of events begin otherwise."""


class Told(msgspec.Struct):
    """An event for the handlers of a policy process."""

    name: str
    at: int
    values: dict[str, int | str]


class Counts(msgspec.Struct):
    """What it tells from time to time: how often each lookup came to what."""

    lookups: dict[str, dict[str, int]] = {}


class Hello(msgspec.Struct):
    """What it answers."""

    hooks: list[dict[str, Any]] = []
    events: list[str] = []
    """The events that handlers want to be told of."""
    files: dict[str, int] = {}
    """The modules' own files, and when each was changed last, in nanoseconds; 0 for one that is not there."""
    faults: str = ""


def changed_at(path: Path) -> int:
    """Return when a file was changed last, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
