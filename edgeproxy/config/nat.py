"""`[nat]`: phones behind a NAT."""

from typing import Any, Literal

import msgspec
from msgspec import field

Test = Literal[
    "private-contact",
    "diff-ip-src-via",
    "private-via",
    "private-sdp",
    "diff-port-src-via",
    "diff-ip-src-contact",
    "diff-port-src-contact",
    "carrier-grade-nat",
]


class Nat(msgspec.Struct, frozen=True):
    """`[nat]`: by what phones behind a NAT are known, and what is done for them."""

    tests: list[Test] = field(default_factory=lambda: ["diff-ip-src-via", "diff-port-src-via", "diff-ip-src-contact"])
    """A subscriber for whom any of these holds is behind a NAT. `private-contact`, `private-via`, `private-sdp`: an address of RFC 1918, RFC 6598 or loopback there; `diff-ip-src-via`, `diff-port-src-via`, `diff-ip-src-contact`, `diff-port-src-contact`: another one than the message came from; `carrier-grade-nat`: RFC 6333's are private too."""
    repair_contact: bool = True
    """Whether Contacts of theirs are marked with where they really are, so that requests within a dialog find back to them, also after a restart. The mark is sealed for its call, and taken off on the way back."""
    repair_description: bool = False
    """Whether session descriptions of theirs that name an address of their inner network are given the one that they are seen at (`c=` and `a=rtcp`), where their media is not relayed. That is enough behind NATs that keep ports; with `[media]` nobody needs it."""

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {"tests": self.tests, "repair_contact": self.repair_contact, "repair_description": self.repair_description}
