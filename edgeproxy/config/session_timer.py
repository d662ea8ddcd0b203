"""`[session_timer]`: calls whose ends are gone without a word are ended."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

Seconds = Annotated[int, Meta(ge=90, le=86_400)]


class SessionTimer(msgspec.Struct, frozen=True):
    """`[session_timer]`: session timers as a proxy (RFC 4028). Where one side knows them, its calls are refreshed, and one that is not is ended with a BYE both ways."""

    expires_seconds: Seconds = 1_800
    """Session-Expires that is asked for where nobody asks for less."""
    min_expires_seconds: Seconds = 90
    """Less than that is refused with 422, or raised for whoever does not know of that (Min-SE)."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if self.expires_seconds < self.min_expires_seconds:
            faults.add(
                (*path, "expires_seconds"),
                f"expected min_expires_seconds ({self.min_expires_seconds}) or more, got: {self.expires_seconds}",
            )

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {"expires_seconds": self.expires_seconds, "min_expires_seconds": self.min_expires_seconds}
