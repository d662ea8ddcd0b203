"""`[lookup.NAME]`: what a service is asked about a number before a call goes on."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath
from edgeproxy.config.routing import Answer

_SIP = re.compile(r"^sips?:[^\s<>]+$")
_HEADER = re.compile(r"^[A-Za-z0-9-]+$")


class Lookup(msgspec.Struct, frozen=True):
    """One `[lookup.NAME]`: exactly one of `url`, `statement` and `to` says who is asked. INVITEs of peers whose `lookups` name it wait for the answer, no others."""

    url: str = ""
    """An HTTP or HTTPS service; `{number}` stands for the number. Certificates are verified."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Header fields of the HTTP request, such as a token; never logged."""
    answer: Literal["json", "text"] = "json"
    """What the HTTP service answers with, whatever its Content-Type: a JSON object, or the value itself. 204, 404, an answer without body, an empty value, `null` and an absent `field` all mean that there is none."""
    field: str = "lrn"
    """Where the value is in the JSON object, with dots for objects within."""
    statement: str = ""
    """An SQL statement on `install.database`; `:number` stands for the number. The first column of the first row is the value."""
    to: str = ""
    """SIP URI of a redirect server: the INVITE goes there, and the value is `rn` of the Contact of its 302. Its other answers but 404 are failures, and none but a 2xx reaches the caller."""
    number: Literal["called", "caller"] | None = None
    """Whose number is asked about; by default the caller's for `caller_name`, else the called one."""
    plus: bool = False
    """Whether the number that is asked about keeps its leading `+`."""
    result: Literal["rn", "routing_number", "caller_name", "note"] = "rn"
    """What becomes of the value. `rn`: `;npdi;rn=` in the Request-URI (RFC 4694), also where there is no value (`;npdi` alone), so that nobody asks again; routes look at it. `routing_number`: routes look at it, and nobody else learns of it. `caller_name`: a display name. `note`: only a note. All are notes of the call's record under `lookup.NAME`."""
    into: list[Literal["from", "p_asserted_identity"]] = msgspec.field(default_factory=lambda: ["from"])
    """What gets the display name; a caller's own is replaced, and one who asks for privacy (RFC 3323) gets none."""
    longest_name: Annotated[int, Meta(ge=1, le=255)] = 15
    """Characters of a display name; the rest is cut off."""
    deadline_seconds: Annotated[float, Meta(gt=0, le=30)] = 1.0
    """Longest wait for the answer; of a redirect server that sends a provisional response, once more from then on."""
    refuse: Answer | None = None
    """What the caller gets where the service is slow, down or wrong, such as `{ status_code = 503 }`; absent: the call goes on without the value."""
    cache_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 3_600
    """How long an answer is good; 0: every call asks. Answers of `to` are not kept."""
    absent_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 600
    """The same for the answer that there is none."""
    stale_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 300
    """How long after that it still serves while it is asked for anew, so that nobody waits; and while the service is out."""
    cache_entries: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Answers that are kept, in each policy process; the oldest go first."""
    concurrent: Annotated[int, Meta(ge=1, le=100_000)] = 500
    """Questions under way, in each policy process; more fail at once."""
    breaker_failures: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    """So many failures in a row, and the service is out: nobody is asked until..."""
    breaker_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 10.0
    """...so long after the last one question tries it again."""

    @property
    def longest_seconds(self) -> float:
        """How long a call may wait: a redirect server has its time once more after a provisional response."""
        return self.deadline_seconds * (2 if self.to else 1)

    @property
    def asks_caller(self) -> bool:
        """Whether the caller's number is asked about."""
        return (self.number or ("caller" if self.result == "caller_name" else "called")) == "caller"

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if sum(map(bool, (self.url, self.statement, self.to))) != 1:
            faults.add(path, "expected exactly one of `url`, `statement` and `to`")
        if self.url and (not self.url.startswith(("http://", "https://")) or not self.url.isprintable() or " " in self.url):
            faults.add((*path, "url"), f"expected an http or https URL, got: {self.url}")
        if self.url and "{number}" not in self.url:
            faults.add((*path, "url"), f"expected {{number}} in it, got: {self.url}")
        if self.statement and ":number" not in self.statement:
            faults.add((*path, "statement"), f"expected :number in it, got: {self.statement}")
        if self.to and not _SIP.match(self.to):
            faults.add((*path, "to"), f"expected a SIP URI, got: {self.to}")
        if self.to and (self.result == "caller_name" or self.number == "caller"):
            faults.add((*path, "to"), "a redirect server is asked about the called number, and tells no name")
        for name, value in self.headers.items():
            if not _HEADER.match(name) or not value.isprintable():
                faults.add((*path, "headers", name), "expected a header field's name and printable text")
        if self.refuse and not self.refuse.reason_phrase.isprintable():
            faults.add((*path, "refuse", "reason_phrase"), "expected printable text")
