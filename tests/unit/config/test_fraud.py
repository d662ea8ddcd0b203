"""Days, zones and rows of fraud rules."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.config.fraud import days, offsets


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("Mon-Sun", 0b1111111),
        ("Mon", 0b0000001),
        ("Fri-Mon, Wed", 0b1110101),
        ("sat-sun", 0b1100000),
        ("Sun-Sat", 0b1111111),
        ("", None),
        ("Monday", None),
        ("Mon-", None),
        ("Mon-Tue-Wed", None),
    ],
)
def test_days_are_lists_and_ranges_over_the_weekend(text: str, bits: int | None) -> None:
    assert days(text) == bits


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"])
def test_offsets_are_those_of_the_zone_at_any_moment(name: str) -> None:
    table = offsets(name, datetime(2026, 11, 26, tzinfo=UTC))
    there = ZoneInfo(name)
    for second in range(1_740_000_000, 2_080_000_000, 9_973 * 60):
        expected = datetime.fromtimestamp(second, UTC).astimezone(there).utcoffset()
        assert expected is not None
        assert [offset for start, offset in table if start <= second][-1] == expected.total_seconds()


def test_clocks_change_to_the_second() -> None:
    table = dict(offsets("Europe/Berlin", datetime(2026, 11, 26, tzinfo=UTC)))
    assert table[int(datetime(2027, 3, 28, 1, tzinfo=UTC).timestamp())] == 7_200
    assert table[int(datetime(2027, 10, 31, 1, tzinfo=UTC).timestamp())] == 3_600
