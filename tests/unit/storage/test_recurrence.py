"""Time recurrences against an evaluator that looks at every minute, in zones whose clocks change."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.storage.recurrence import DAYS, expand

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
"""Clocks change on 29 March in Europe, and have changed on 8 March in New York."""
ROME, NEW_YORK = ZoneInfo("Europe/Rome"), ZoneInfo("America/New_York")
MO, TU, WE, TH, FR, SA, SU = range(7)


def holds(spans: list[tuple[int, int]], moment: datetime) -> bool:
    at = int(moment.timestamp())
    return any(start <= at < end for start, end in spans)


def office(local: datetime) -> bool:
    return local.weekday() < SA and 8 <= local.hour < 17


def night(local: datetime) -> bool:
    return local.hour >= 22 or local.hour < 6


def week_of_year(local: datetime) -> int:
    return local.isocalendar().week


CASES: list[tuple[str, ZoneInfo, Callable[[datetime], bool]]] = [
    ("Europe/Rome|20200106T080000|20200106T170000||weekly|||MO,TU,WE,TH,FR", ROME, office),
    ("Europe/Rome|20200101T220000|20200102T060000||daily", ROME, night),
    ("America/New_York|20200101T000000||PT8H30M|daily", NEW_YORK, lambda t: t.hour * 60 + t.minute < 510),
    (
        "Europe/Rome|20260301T000000|||daily||3",
        ROME,
        lambda t: t.date() >= datetime(2026, 3, 1).date() and (t.date() - datetime(2026, 3, 1).date()).days % 3 == 0,
    ),
    ("Europe/Rome|20200101T000000|||monthly||||1,-1", ROME, lambda t: t.day == 1 or (t + timedelta(1)).day == 1 or t.day > 1),
    (
        "Europe/Rome|20200101T100000||PT2H|monthly|||2MO,-1FR",
        ROME,
        lambda t: (
            10 <= t.hour < 12 and ((t.weekday() == MO and 8 <= t.day <= 14) or (t.weekday() == FR and (t + timedelta(7)).month != t.month))
        ),
    ),
    (
        "Europe/Rome|20200101T100000||PT2H|yearly|||||1,100,-1",
        ROME,
        lambda t: 10 <= t.hour < 12 and (t.timetuple().tm_yday in (1, 100) or (t.month, t.day) == (12, 31)),
    ),
    ("Europe/Rome|20200101T100000||PT2H|yearly||||||20", ROME, lambda t: 10 <= t.hour < 12 and week_of_year(t) == 20),
    ("Europe/Rome|20200615T100000||PT2H|yearly", ROME, lambda t: 10 <= t.hour < 12 and (t.month, t.day) == (6, 15)),
    ("Europe/Rome|20200615T100000||PT2H|weekly", ROME, lambda t: 10 <= t.hour < 12 and t.weekday() == MO),
    ("Europe/Rome|20200331T100000||PT2H|monthly", ROME, lambda t: 10 <= t.hour < 12 and t.day == 31),
    ("Europe/Rome|20200101T100000||PT2H|daily|||||||4,5", ROME, lambda t: 10 <= t.hour < 12 and t.month in (4, 5)),
    (
        "Europe/Rome|20200101T080000||PT1H|daily|20260401T083000",
        ROME,
        lambda t: t.hour == 8 and (t.date() < datetime(2026, 4, 1).date() or (t.date() == datetime(2026, 4, 1).date() and t.minute <= 30)),
    ),
    ("Europe/Rome|20260401T000000|20260501T000000", ROME, lambda t: t.year == 2026 and t.month == 4),
    ("Europe/Rome|20260401T000000||P2W", ROME, lambda t: t.year == 2026 and t.month == 4 and t.day <= 14),
    ("Europe/Rome|20260401T000000", ROME, lambda t: t >= datetime(2026, 4, 1)),
    ("Europe/Rome||||daily", ROME, lambda _: True),
    (
        "Europe/Rome|20200106T080000|20200106T170000||weekly|||MO,TU,WE,TH,FR & !Europe/Rome|20260401T000000||P3D",
        ROME,
        lambda t: office(t) and not (t.year == 2026 and t.month == 4 and t.day <= 3),
    ),
    ("(Europe/Rome|20200104T000000|||daily|||SA / Europe/Rome|20200105T000000|||daily|||SU)", ROME, lambda t: t.weekday() >= SA),
    ("!(Europe/Rome|20200101T220000|20200102T060000||daily)", ROME, lambda t: not night(t)),
]


@pytest.mark.parametrize(("text", "zone", "wanted"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_minute_is_as_the_clocks_of_the_zone_say(text: str, zone: ZoneInfo, wanted: Callable[[datetime], bool]) -> None:
    spans = expand(text, NOW)
    # Three weeks around the change of clocks, minute by minute; then every hour as far as spans reach.
    minutes = (NOW + timedelta(minutes=minute) for minute in range(21 * 1_440))
    hours = (NOW + timedelta(hours=hour) for hour in range((DAYS - 1) * 24))
    for moment in (*minutes, *hours):
        local = moment.astimezone(zone).replace(tzinfo=None)
        assert holds(spans, moment) == wanted(local), (moment, local)


@pytest.mark.parametrize(("begin", "end"), [("0230", "0315"), ("0100", "0230"), ("0210", "0250"), ("0130", "0300")])
def test_what_begins_or_ends_in_an_hour_that_clocks_leave_out_does_so_when_they_go_over_it(begin: str, end: str) -> None:
    spans = expand(f"Europe/Rome|20200101T{begin}00|20200101T{end}00||daily", NOW)
    midnight = datetime(2026, 3, 29, tzinfo=ROME).astimezone(UTC)
    for minute in range(12 * 60):
        moment = midnight + timedelta(minutes=minute)
        assert holds(spans, moment) == (begin <= f"{moment.astimezone(ROME):%H%M}" < end), moment


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a recurrence"),
        ("20260101", "dtstart: expected YYYYMMDDTHHMMSS from 1970 on, got: 20260101"),
        ("19691231T000000", "dtstart: expected"),
        ("20260101T000000|20250101T000000", "dtend: expected a time behind dtstart"),
        ("20260101T000000||PX", "duration: expected for example P2W"),
        ("20260101T000000||P", "duration: expected"),
        ("20260101T000000|||hourly", "freq: expected daily, weekly, monthly, yearly, got: hourly"),
        ("20260101T000000|||||2", "interval without freq"),
        ("20260101T000000||||20270101T000000", "until without freq"),
        ("20260101T000000|||daily||0", "interval: expected numbers from 1 to 1000"),
        ("20260101T000000|||weekly|||2MO", "byday: expected MO to SU, with a number for monthly and yearly only, got: 2MO"),
        ("20260101T000000|||weekly|||XX", "byday: expected"),
        ("20260101T000000|||monthly||||32", "bymonthday: expected numbers from -31 to 31, got: 32"),
        ("20260101T000000|||weekly||||||5", "byweekno: only for yearly"),
        ("Mars/Phobos|20260101T000000", "no such zone: Mars/Phobos"),
        ("20260101T000000|||daily|||||||1|2", "expected 11 fields at most, got 12"),
        ("(20260101T000000", "expected `)`"),
        ("20260101T000000)", "expected the end"),
        ("20260101T000000 & ", "expected a recurrence"),
        ("!", "expected a recurrence"),
    ],
)
def test_what_means_nothing_is_told(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem.replace("(", r"\(").replace(")", r"\)").replace("|", r"\|")):
        expand(text, NOW, UTC)


@pytest.mark.parametrize(
    "text", ["20260101T000000||P9999999999W", "Europe/Rome|20260101T000000||P110000W|daily", "(" * 2_000 + "20260101T000000"]
)
def test_what_no_clock_can_hold_is_a_fault_of_its_row(text: str) -> None:
    with pytest.raises((ValueError, ArithmeticError, RecursionError)):
        expand(text, NOW)


def test_the_zone_of_the_machine_changes_its_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Rome")
    time.tzset()
    try:
        spans = expand("20200106T080000|20200106T170000||daily", NOW)
    finally:
        monkeypatch.undo()
        time.tzset()
    for day in (datetime(2026, 3, 21, tzinfo=ROME), datetime(2026, 4, 21, tzinfo=ROME)):
        assert [holds(spans, day.replace(hour=hour)) for hour in (7, 8, 16, 17)] == [False, True, True, False]
