"""What every event has."""

from datetime import UTC, datetime
from typing import ClassVar

import msgspec

IDENTIFYING = frozenset(
    [
        "aor",
        "called_number",
        "callid",
        "contact",
        "domain",
        "dst_ip",
        "extra",
        "from_tag",
        "from_uri",
        "ip",
        "key",
        "message",
        "path",
        "received",
        "src_ip",
        "to_tag",
        "to_uri",
        "uri",
        "user",
    ]
)
"""Parameters that say who called whom from where; those of events of somebody's own may all do so."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A fact; `name` is what it is known by."""

    name: ClassVar[str] = ""
    at: int = 0
    """Wall clock, microseconds since 1970."""

    def parameters(self) -> dict[str, int | str]:
        """Return the parameters by name."""
        return {key: value for key, value in msgspec.structs.asdict(self).items() if key != "at"}

    @property
    def time_text(self) -> str:
        """The time as RFC 3339 in UTC."""
        return datetime.fromtimestamp(self.at / 1e6, UTC).isoformat(timespec="microseconds")
