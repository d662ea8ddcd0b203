"""Time recurrences of rules (the subset of RFC 5545 that OpenSIPS's `timerec` has) as plain spans of time.

`[zone|]dtstart|dtend|duration|freq|until|interval|byday|bymonthday|byyearday|byweekno|bymonth`, with empty fields at the
end left out; several are joined by `&` (and), `/` (or), `!` (not) and parentheses. Times are those of the zone's clocks: what
is to end at 06:00 ends at 06:00 also in the night in which clocks change.
"""

import bisect
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import DAILY, FR, MO, MONTHLY, SA, SU, TH, TU, WE, WEEKLY, YEARLY, rrule, weekday
from dateutil.tz import tzlocal

Span = tuple[int, int]
"""Seconds since 1970; the end is left out."""
DAYS = 400
"""How far ahead spans are made; they are to be made anew much sooner."""
_FREQUENCIES: dict[str, Literal[0, 1, 2, 3]] = {"daily": DAILY, "weekly": WEEKLY, "monthly": MONTHLY, "yearly": YEARLY}
_WEEKDAYS = {"MO": MO, "TU": TU, "WE": WE, "TH": TH, "FR": FR, "SA": SA, "SU": SU}
_FIELDS = ("dtstart", "dtend", "duration", "freq", "until", "interval", "byday", "bymonthday", "byyearday", "byweekno", "bymonth")
_DURATION = re.compile(r"P(?:(\d+)W|(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?)", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1)
_LAST = 1 << 40
"""Seconds: a time that never comes."""


def local_zone() -> tzinfo:
    """Return the zone of this machine, with its changes of clocks."""
    return tzlocal()


def expand(text: str, now: datetime, default_zone: tzinfo | None = None) -> list[Span]:
    """Return when `text` holds, from the day before `now` to `DAYS` days later; raise `ValueError` for what means nothing.

    `default_zone` is for recurrences without one; by default the zone of this machine.
    """
    first, last = now - timedelta(days=1), now + timedelta(days=DAYS)
    parser = _Parser(text, lambda atom: _expand_one(atom, first, last, default_zone or local_zone()), _seconds(first), _seconds(last))
    return parser.parse()


class _Parser:
    """Recursive descent over `!`, `&`, `/` and parentheses; and binds stronger than or."""

    def __init__(self, text: str, atom: Callable[[str], list[Span]], first: int, last: int) -> None:
        self._text = text
        self._at = 0
        self._atom = atom
        self._bounds = (first, last)

    def parse(self) -> list[Span]:
        found = self._any()
        if self._peek():
            raise ValueError(f"expected the end, got: {self._text[self._at :]}")
        return found

    def _peek(self) -> str:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self, wanted: str) -> bool:
        if self._peek() != wanted:
            return False
        self._at += 1
        return True

    def _any(self) -> list[Span]:
        found = self._all()
        while self._take("/"):
            found = _union([*found, *self._all()])
        return found

    def _all(self) -> list[Span]:
        found = self._one()
        while self._take("&"):
            found = _intersection(found, self._one())
        return found

    def _one(self) -> list[Span]:
        if self._take("!"):
            return _complement(self._one(), *self._bounds)
        if self._take("("):
            found = self._any()
            if not self._take(")"):
                raise ValueError("expected `)`")
            return found
        start = self._at
        while (character := self._peek()) and character not in "&!()" and not (character == "/" and not self._in_zone(start)):
            self._at += 1
        atom = self._text[start : self._at].strip()
        if not atom:
            raise ValueError("expected a recurrence")
        return self._atom(atom)

    def _in_zone(self, start: int) -> bool:
        """Whether a slash belongs to the name of a zone, which stands first and has capitals."""
        before = self._text[start : self._at].strip()
        return before[:1].isupper() and "|" not in before


def _union(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _intersection(left: list[Span], right: list[Span]) -> list[Span]:
    common = [(max(a, c), min(b, d)) for a, b in _union(left) for c, d in _union(right)]
    return _union([(start, end) for start, end in common if start < end])


def _complement(spans: list[Span], first: int, last: int) -> list[Span]:
    free, at = [], first
    for start, end in _union(spans):
        if start > at:
            free.append((at, start))
        at = max(at, end)
    return [*free, (at, last)] if at < last else free


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _expand_one(atom: str, first: datetime, last: datetime, zone: tzinfo) -> list[Span]:
    fields = [field.strip() for field in atom.split("|")]
    if fields[0][:1].isupper() and not fields[0][:1].isdigit():
        zone = _zone(fields.pop(0))
    if len(fields) > len(_FIELDS):
        raise ValueError(f"expected {len(_FIELDS)} fields at most, got {len(fields)}")
    given = dict(zip(_FIELDS, fields, strict=False))
    start = _time("dtstart", given.get("dtstart", "")) or _EPOCH
    end = _time("dtend", given.get("dtend", ""))
    length = _duration(given.get("duration", "")) or (end - start if end else None)
    if length is not None and length <= timedelta(0):
        raise ValueError(f"dtend: expected a time behind dtstart, got: {given['dtend']}")
    freq = given.get("freq", "").lower()

    def clock(moment: datetime) -> int:
        return _clock(moment, zone)

    if not freq:
        if bad := [name for name in _FIELDS[4:] if given.get(name)]:
            raise ValueError(f"{bad[0]} without freq")
        return [(clock(start), clock(start + length) if length else _LAST)]
    if freq not in _FREQUENCIES:
        raise ValueError(f"freq: expected {', '.join(_FREQUENCIES)}, got: {freq}")
    longest = length or {"daily": timedelta(1), "weekly": timedelta(7), "monthly": timedelta(31), "yearly": timedelta(366)}[freq]
    there = (first.astimezone(zone).replace(tzinfo=None) - longest, last.astimezone(zone).replace(tzinfo=None))
    until = _time("until", given.get("until", ""))
    starts = _starts(freq, start, given, there)
    ends = ((moment, moment + length if length else _end_of(freq, moment)) for moment in starts)
    limit = clock(until) + 1 if until else _LAST
    return [(clock(begin), min(clock(stop), limit)) for begin, stop in ends if clock(begin) < limit]


def _clock(moment: datetime, zone: tzinfo) -> int:
    """Return when the clocks of `zone` show `moment`; where they leave it out, when they go over it."""
    at = _seconds(moment.replace(tzinfo=zone))

    def shown(seconds: int) -> datetime:
        return datetime.fromtimestamp(seconds, zone).replace(tzinfo=None)

    if shown(at) == moment:
        return at
    before = at - 86_400
    return before + bisect.bisect_left(range(2 * 86_400), moment, key=lambda after: shown(before + after))


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no such zone: {name}") from None


def _time(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.strptime(text, "%Y%m%dT%H%M%S")
    except ValueError:
        found = None
    if found is None or len(text) != 15 or found < _EPOCH:
        raise ValueError(f"{name}: expected YYYYMMDDTHHMMSS from 1970 on, got: {text}")
    return found


def _duration(text: str) -> timedelta | None:
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0,) * 5
    found = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not found:
        raise ValueError(f"duration: expected for example P2W, P3D or PT8H30M, got: {text}")
    return found


def _end_of(freq: str, moment: datetime) -> datetime:
    """Return the end of the day, week, month or year in which an occurrence begins."""
    day = moment.replace(hour=0, minute=0, second=0)
    match freq:
        case "daily":
            return day + timedelta(1)
        case "weekly":
            return day + timedelta(7 - day.weekday())
        case "monthly":
            return (day.replace(day=1) + timedelta(32)).replace(day=1)
        case _:
            return day.replace(year=day.year + 1, month=1, day=1)


def _starts(freq: str, start: datetime, given: dict[str, str], there: tuple[datetime, datetime]) -> Sequence[datetime]:
    interval = _numbers(given, "interval", 1, 1_000)
    byday = [_weekday(text, freq) for text in _list(given.get("byday", ""))]
    bymonthday, bymonth = _numbers(given, "bymonthday", -31, 31), _numbers(given, "bymonth", 1, 12)
    byyearday, byweekno = _numbers(given, "byyearday", -366, 366), _numbers(given, "byweekno", -53, 53)
    if byweekno and freq != "yearly":
        raise ValueError("byweekno: only for yearly")
    if len(interval) > 1:
        raise ValueError(f"interval: expected one number, got: {given['interval']}")
    step = interval[0] if interval else 1
    begin = start
    if step == 1:
        # What the first occurrence says of later ones is said outright, so that decades before today need not be counted.
        if not (byday or bymonthday or byyearday or byweekno):
            if freq == "weekly":
                byday = [weekday(start.weekday())]
            elif freq in {"monthly", "yearly"}:
                bymonthday = [start.day]
                bymonth = bymonth or ([start.month] if freq == "yearly" else [])
        begin = max(start, datetime.combine(there[0].date() - timedelta(1), start.time()))
    rule = rrule(
        _FREQUENCIES[freq],
        dtstart=begin,
        interval=step,
        byweekday=byday or None,
        bymonthday=bymonthday or None,
        byyearday=byyearday or None,
        byweekno=byweekno or None,
        bymonth=bymonth or None,
    )
    return rule.between(there[0], there[1], inc=True)


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _numbers(given: dict[str, str], name: str, least: int, most: int) -> list[int]:
    found = []
    for text in _list(given.get(name, "")):
        if not re.fullmatch(r"[+-]?\d{1,4}", text) or not least <= int(text) <= most or int(text) == 0:
            raise ValueError(f"{name}: expected numbers from {least} to {most}, got: {text}")
        found.append(int(text))
    return found


def _weekday(text: str, freq: str) -> weekday:
    match = re.fullmatch(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", text, re.IGNORECASE)
    number = int(match[1] or 0) if match else 0
    if not match or abs(number) > 53 or (match[1] and (number == 0 or freq not in {"monthly", "yearly"})):
        raise ValueError(f"byday: expected MO to SU, with a number for monthly and yearly only, got: {text}")
    found = _WEEKDAYS[match[2].upper()]
    return found(number) if number else found
