"""`[fraud]`: what accounts do is watched against profiles."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

Threshold = Annotated[int, Meta(ge=0, lt=1 << 32)]
Number = Annotated[int, Meta(ge=1, lt=1 << 31)]
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FIGURES = ("cpm", "total_calls", "concurrent_calls", "sequential_calls", "call_duration")
"""In the order of the native side."""
_HOUR = re.compile(r"^([01]?\d|2[0-3]):([0-5]\d)$")
_PREFIX = re.compile(r"^\+?[0-9A-Za-z*#]*$")
_YEARS = 12


class FraudRule(msgspec.Struct, frozen=True, kw_only=True):
    """One `[[fraud.rule]]`, or one row of the table `fraud_detection`: thresholds for calls to a prefix in a window of time; 0 switches a threshold off."""

    ruleid: Number
    """Its number, which no other rule has."""
    profileid: Number
    """The profile that it belongs to: that is all rules with this number."""
    prefix: str = ""
    """What called numbers begin with; of those that fit and whose window is open the longest counts. A leading `+` makes no difference."""
    start_hour: str = "00:00"
    """When the window begins."""
    end_hour: str = "23:59"
    """Its last minute; before `start_hour` it is one of the next day."""
    daysoftheweek: str = "Mon-Sun"
    """On which days it begins: `Mon`, `Fri-Mon, Wed`."""
    cpm_warning: Threshold = 0
    """Calls within the last sixty seconds."""
    cpm_critical: Threshold = 0
    """The same."""
    total_calls_warning: Threshold = 0
    """Calls since the window began, or the calendar day in the zone, whichever was later."""
    total_calls_critical: Threshold = 0
    """The same."""
    concurrent_calls_warning: Threshold = 0
    """Calls at once."""
    concurrent_calls_critical: Threshold = 0
    """The same."""
    sequential_calls_warning: Threshold = 0
    """Calls of one number in a row."""
    sequential_calls_critical: Threshold = 0
    """The same."""
    call_duration_warning: Threshold = 0
    """Seconds that a call lasts; it is told while it does."""
    call_duration_critical: Threshold = 0
    """The same."""

    def problem(self) -> tuple[str, str] | None:
        """Return the key that is wrong, and what is expected of it."""
        if not _PREFIX.match(self.prefix) or len(self.prefix) > 64:
            return "prefix", f"expected digits, letters, * and #, 64 at most, got: {self.prefix}"
        for key in ("start_hour", "end_hour"):
            if not _HOUR.match(getattr(self, key)):
                return key, f"expected HH:MM, got: {getattr(self, key)}"
        if days(self.daysoftheweek) is None:
            return "daysoftheweek", f"expected days like Mon or Fri-Mon with commas between, got: {self.daysoftheweek}"
        for name in FIGURES:
            warning, critical = getattr(self, f"{name}_warning"), getattr(self, f"{name}_critical")
            if critical and critical < warning:
                return f"{name}_critical", f"expected at least the warning, {warning}, or 0 for none, got: {critical}"
        return None

    def document(self) -> dict[str, Any]:
        """Return what the native side reads; `problem` must be None."""
        return {
            "id": self.ruleid,
            "profile": self.profileid,
            "prefix": self.prefix,
            "minutes": (_minute(self.start_hour), _minute(self.end_hour)),
            "days": days(self.daysoftheweek) or 0,
            "thresholds": [[getattr(self, f"{name}_warning"), getattr(self, f"{name}_critical")] for name in FIGURES],
        }


class Actions(msgspec.Struct, frozen=True):
    """`[fraud.warning]` and `[fraud.critical]`: what is done besides telling it."""

    refuse: bool = False
    """Whether calls are refused as long as a figure is beyond the threshold."""
    end: bool = False
    """Whether a call that lasts too long is ended."""
    bar: bool = False
    """Whether the account may not call anybody for `bar_seconds`."""


class Fraud(msgspec.Struct, frozen=True):
    """`[fraud]`: calls are counted for each account, or From where nobody had to prove it, and each prefix of its profile. Emergency calls are not."""

    rule: list[FraudRule] = field(default_factory=list)
    """Rules of the file."""
    rows: bool = True
    """Whether those of the table `fraud_detection` hold too; `edgeproxy routes reload` reads them anew."""
    attribute: str = "fraud_profile"
    """The attribute of an account that says its profile, 0 for none; see `authentication.attributes`. It goes before `fraud_profile` of its peer..."""
    profile: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    """...and that before this one, which is for whoever has none; 0 for none."""
    zone: str = "UTC"
    """The zone whose days and hours count, such as `Europe/Berlin`."""
    each_call: bool = False
    """Whether each call beyond a threshold is told, and not only the one that crosses it."""
    counts_refused: bool = False
    """Whether calls that were refused count all the same."""
    calls_per_second_warning: Threshold = 0
    """Calls of a user to a prefix within one second, for every rule."""
    calls_per_second_critical: Threshold = 0
    """The same."""
    warning: Actions = field(default_factory=Actions)
    """At a first threshold."""
    critical: Actions = field(default_factory=Actions)
    """At a second one."""
    bar_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 3_600
    """How long a bar holds; `edgeproxy fraud unbar` ends it."""
    status_code: Annotated[int, Meta(ge=400, le=699)] = 403
    """The answer to calls that are refused."""
    reason_phrase: str = ""
    """Its text, by default the customary one."""
    shadow: bool = False
    """Whether it is only told, whatever the actions: to try a profile out."""
    max_keys: Annotated[int, Meta(ge=16, le=100_000_000)] = 100_000
    """Users and prefixes at once; calls of more are not watched and counted as `fraud_untracked`. Those of other days make room."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for number, rule in enumerate(self.rule):
            if problem := rule.problem():
                faults.add((*path, "rule", str(number), problem[0]), problem[1])
            if any(rule.ruleid == other.ruleid for other in self.rule[:number]):
                faults.add((*path, "rule", str(number), "ruleid"), f"a second rule {rule.ruleid}")
        if self.calls_per_second_critical and self.calls_per_second_critical < self.calls_per_second_warning:
            wanted = f"expected at least the warning, {self.calls_per_second_warning}, or 0 for none"
            faults.add((*path, "calls_per_second_critical"), wanted)
        if zone(self.zone) is None:
            faults.add((*path, "zone"), f"no such zone: {self.zone}", "zones have names like Europe/Berlin, or UTC")
        self.check_profile((*path, "profile"), self.profile, faults)
        if self.status_code == 503:
            faults.add((*path, "status_code"), "503 tells the sender to stop sending at all: expected another one")
        if not self.reason_phrase.isprintable():
            faults.add((*path, "reason_phrase"), "expected printable text")

    def check_profile(self, path: KeyPath, profile: int, faults: Faults) -> None:
        """Note that no rule is of a profile that something goes by. What rows have is known with the database only."""
        profiles = {rule.profileid for rule in self.rule}
        if profile and not self.rows and profile not in profiles:
            known = ", ".join(map(str, sorted(profiles)))
            faults.add(path, f"no rule is of profile {profile}", f"profiles: {known}" if known else "")

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "rules": [rule.document() for rule in self.rule],
            "offsets": offsets(self.zone, datetime.now(UTC)),
            "attribute": self.attribute,
            "profile": self.profile,
            "keys": self.max_keys,
            "each_call": self.each_call,
            "counts_refused": self.counts_refused,
            "calls_per_second": [self.calls_per_second_warning, self.calls_per_second_critical],
            "warning": msgspec.to_builtins(self.warning),
            "critical": msgspec.to_builtins(self.critical),
            "bar_seconds": self.bar_seconds,
            "status_code": self.status_code,
            "reason_phrase": self.reason_phrase,
            "shadow": self.shadow,
        }


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def days(text: str) -> int | None:
    """Return the days of a list with ranges, which may go over the weekend, as bits from Monday on; None for anything else."""
    found = 0
    for part in text.split(","):
        first, _, last = (word.strip().capitalize() for word in part.partition("-"))
        if first not in DAYS or ("-" in part and last not in DAYS):
            return None
        start, end = DAYS.index(first), DAYS.index(last or first)
        for step in range((end - start) % 7 + 1):
            found |= 1 << (start + step) % 7
    return found


def zone(name: str) -> ZoneInfo | None:
    """Return the zone of this name, if there is one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def offsets(name: str, now: datetime, since: int | None = None) -> Sequence[tuple[int, int]]:
    """Return from which second since 1970 on a zone differs from UTC by how many seconds, from the year `since`, else the last one, on for twelve years."""
    there = zone(name)
    if there is None:
        return []

    def offset(at: datetime) -> int:
        difference = at.astimezone(there).utcoffset()
        return int(difference.total_seconds()) if difference else 0

    at = datetime(now.year - 1 if since is None else min(since, now.year - 1), 1, 1, tzinfo=UTC)
    found = [(int(at.timestamp()), offset(at))]
    end = datetime(now.year + _YEARS, 1, 1, tzinfo=UTC)
    while at < end:
        following = at + timedelta(days=1)
        if offset(following) != found[-1][1]:
            # The clocks change within this day: to the second.
            low, high = int(at.timestamp()), int(following.timestamp())
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if offset(datetime.fromtimestamp(middle, UTC)) != found[-1][1] else (middle, high)
            found.append((high, offset(following)))
        at = following
    return found
