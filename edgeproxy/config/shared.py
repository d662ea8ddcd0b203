"""`[shared]`: the store by which several nodes keep limits and values together."""

import os
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

SCHEMES = ("redis", "rediss", "unix", "mongodb", "mongodb+srv")


class Shared(msgspec.Struct, frozen=True):
    """`[shared]`: the store by which several nodes keep limits and values together. A call that finds a place in hand waits for nobody."""

    url: str = ""
    """Redis or Valkey: `redis://[user:password@]host:port/0`, `rediss://` over TLS, `unix:///path`. MongoDB: `mongodb://[user:password@]host:port/database`. `EDGEPROXY_SHARED` stands for it where it is set, so that a password need not be in the file."""
    prefix: str = "edgeproxy"
    """What the names of its keys or collections begin with; nodes with the same one share."""
    lease_seconds: Annotated[float, Meta(ge=1, le=3_600)] = 5.0
    """How long what a node was granted holds without a word from it: after that, places of a dead node are others'. A store that comes back empty grants nothing new for that long."""
    deadline_milliseconds: Annotated[int, Meta(ge=10, le=10_000)] = 500
    """How long an answer of the store may take."""
    wait_milliseconds: Annotated[int, Meta(ge=0, le=5_000)] = 500
    """How long a request waits for a place that others may have, where this node has none in hand; 0 lets none wait: it goes by `on_store_failure`."""
    max_waiting: Annotated[int, Meta(ge=0, le=1_000_000)] = 10_000
    """Requests that wait at once, per worker; one more goes by `on_store_failure`."""
    attacks: bool = False
    """Whether failed authentications of all nodes count together (`[authentication.attacks]`), and what one node bans others do not listen to either, unless somebody known comes from there."""
    fraud: bool = False
    """Whether the figures of `[fraud]` are those of all nodes together, and an account that one node barred may not call by others either. Nodes know each other by `install.node`."""
    retry_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 1.0
    """How long a store that did not answer is not asked, and nobody waits for it."""

    @property
    def place(self) -> str:
        """The URL in force."""
        return os.environ.get("EDGEPROXY_SHARED") or self.url

    @property
    def shown(self) -> str:
        """Where it is, without secrets."""
        parts = urlsplit(self.place)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        try:
            parts = urlsplit(self.place)
            host = parts.hostname
            if not parts.scheme.startswith("mongodb"):
                # MongoDB takes several hosts with a port each.
                _ = parts.port
        except ValueError as error:
            # The text of the error may have the password in it.
            faults.add((*path, "url"), f"not a URL: {type(error).__name__}")
            return
        if parts.scheme not in SCHEMES:
            faults.add((*path, "url"), f"expected one of {', '.join(SCHEMES)}, got: {parts.scheme or 'none'}")
        elif not (parts.path.startswith("/") if parts.scheme == "unix" else host):
            faults.add((*path, "url"), "expected a path" if parts.scheme == "unix" else "expected a host")
        if not self.prefix or not all(character.isalnum() or character in "-_." for character in self.prefix):
            faults.add((*path, "prefix"), f"expected letters, digits and -_., got: {self.prefix!r}")

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {"wait_milliseconds": self.wait_milliseconds, "waiting": self.max_waiting, "attacks": self.attacks}
