"""`[[policy]]`: the modules that decide, in the order in which they are asked."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

_MODULE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")


class OnError(msgspec.Struct, frozen=True):
    """`on_error` of a module."""

    status: Annotated[int, Meta(ge=400, le=699)] = 500
    """What the sender gets where the module fails, or returns nonsense; with a Retry-After. Where several modules share a deadline that passes, or one decides what cannot be done, that of the first that was asked counts."""


class PolicyModule(msgspec.Struct, frozen=True):
    """One `[[policy]]`."""

    module: str
    """The module's name; it is looked for beside this file first."""
    deadline_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """Longest wait for each of its decisions."""
    on_error: OnError = field(default_factory=OnError)
    """What the sender gets where it fails."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its own options, checked by the Struct that it declares."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not _MODULE.match(self.module):
            faults.add((*path, "module"), f"expected the name of a Python module, got: {self.module}")
