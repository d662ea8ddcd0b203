"""`[media]`: RTP that is relayed."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Engage = Literal["auto", "always", "never"]


class Media(msgspec.Struct, frozen=True):
    """`[media]`: which calls have their media relayed, and how. Where the table is left out, none has."""

    engage: Engage = "auto"
    """Which calls, where neither of their peers has a `media` of its own and no policy says. `auto`: where a side is behind a NAT, or the listeners of both sides face different networks or are of different address families. Of two peers that differ, `always` counts before `never`, and that before `auto`."""
    learning: Literal["never", "known", "any"] = "known"
    """Whose packets are believed before a side was heard: `never`: only those from the address and port of its SDP; `known`: from any port of that address, or of the one that its signalling comes from; `any`: anybody's, which lets strangers in who are quick, and is for phones whose media leaves their NAT by another address than their signalling. Once heard, a source is the only one."""
    relearn_after_milliseconds: Annotated[int, Meta(ge=100, le=600_000)] = 2_000
    """A source that was silent for so long may come from elsewhere, by the same rule; a new SDP may move it at once."""
    timeout_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    """A call of which neither side has sent anything for so long is told as an event; 0: never. It is looked for every two seconds."""
    hold_timeout_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3_600
    """The same while it is on hold."""
    end_calls: bool = True
    """Whether such a call is ended, with BYE to both sides."""
    streams: Annotated[int, Meta(ge=1, le=32)] = 8
    """Streams of one call; a request with more is refused with 500."""

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "engage": self.engage,
            "learning": self.learning,
            "relearn_after_milliseconds": self.relearn_after_milliseconds,
            "timeout_seconds": self.timeout_seconds,
            "hold_timeout_seconds": self.hold_timeout_seconds,
            "end_calls": self.end_calls,
            "streams": self.streams,
        }
