"""What `fraud replay` makes of odd records."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from edgeproxy.config import load_text
from edgeproxy.server.fraud_replay import alarms, configured

TOML = """
[install.listener.a]
address = "udp:127.0.0.1:5060"
[emergency]
numbers = ["1-1-2"]
[fraud]
rows = false
profile = 1
[[fraud.rule]]
ruleid = 1
profileid = 1
prefix = "1"
total_calls_warning = 1
"""


class Call(msgspec.Struct):
    """One record."""

    request_uri: str
    started_at: datetime = datetime(2026, 11, 2, 12, tzinfo=UTC)
    answered_at: datetime | None = None
    ended_at: datetime = datetime(2026, 11, 2, 12, 5, tzinfo=UTC)
    notes: dict[str, str] = {}
    from_uri: str = "sip:a@edge.example"
    from_peer: str = "phones"


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    place = tmp_path / "state" / "edge.db"
    file.write_text(
        TOML.replace("rows = false", "rows = true").replace("[install", f'[install]\ndatabase = "sqlite:///{place}"\n[install', 1)
    )
    config, faults = asyncio.run(configured(file))
    assert config.fraud is not None
    assert [rule.ruleid for rule in config.fraud.rule] == [1]
    assert len(faults) == 1
    assert "none is read" in faults[0]
    assert not place.parent.exists()


def test_records_of_years_ago_are_taken_by_the_hour_that_it_was_then() -> None:
    text = TOML.replace("profile = 1\n", 'profile = 1\nzone = "Europe/Berlin"\n', 1).replace(
        "total_calls_warning = 1", "total_calls_warning = 2"
    )
    config = load_text(text, "edge.toml").config
    # Half past eleven at night, and twice after midnight, of a summer.
    times = [datetime(2024, 7, 3, 21, 30, tzinfo=UTC), datetime(2024, 7, 3, 22, 30, tzinfo=UTC), datetime(2024, 7, 3, 23, 30, tzinfo=UTC)]
    found = alarms(config, [Call("sip:100@x", at, None, at) for at in times], None)
    assert [alarm.time for alarm in found] == ["2024-07-03T23:30:00+00:00"]


def test_calls_for_help_and_of_no_time_are_left_out_and_profiles_that_are_none_are_none() -> None:
    config = load_text(TOML, "edge.toml").config
    early = datetime(1969, 1, 1, tzinfo=UTC)
    late = datetime.max.replace(tzinfo=UTC) - timedelta(seconds=1)
    calls = [Call("sip:112@edge.example"), Call("sip:100@x", early, None, early), Call("sip:100@x", late, None, late)]
    assert alarms(config, calls, None) == []
    (told,) = alarms(config, [*calls, Call("sip:100@x", notes={"account.fraud_profile": "99999999999"})], None)
    assert (told.param, told.called_number, told.profile_id) == ("total-calls", "100", 1)
