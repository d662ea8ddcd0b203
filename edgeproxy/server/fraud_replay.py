"""What the fraud profiles of a file would have said of calls that were."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from edgeproxy import _native
from edgeproxy.config import Config, load
from edgeproxy.config.database import database_url
from edgeproxy.config.fraud import offsets
from edgeproxy.errors import ConfigError

_SEPARATORS = str.maketrans("", "", "-.()")
"""What only parts digits (RFC 3966 section 5.1.1)."""


class Record(Protocol):
    """What of a call record is looked at."""

    from_uri: str
    request_uri: str
    from_peer: str
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime
    notes: dict[str, str]


class PastAlarm(msgspec.Struct):
    """An alarm that would have been told."""

    time: str
    event: str
    param: str
    value: int
    threshold: int
    user: str
    called_number: str
    rule_id: int
    profile_id: int


async def configured(file: Path) -> tuple[Config, list[str]]:
    """Return the configuration of a file with the rules of its database, and what is wrong with rows; raise `ConfigError` where it has no `[fraud]`."""
    loaded = load(file)
    if loaded.config.fraud is None:
        raise ConfigError(f"{file}: there is no [fraud]")
    if not loaded.config.fraud.rows:
        return loaded.config, []
    from edgeproxy.server.peer_rows import with_rows  # noqa: PLC0415 - a file without rows needs no database
    from edgeproxy.storage.database import made_at_start  # noqa: PLC0415 - the same

    if await made_at_start(database_url(loaded.config)):
        # A start would make or migrate it; a replay changes nothing.
        return loaded.config, [
            f"fraud_detection: none is read, as a first start has yet to make or migrate {loaded.config.install.database}"
        ]
    config, faults = await with_rows(loaded)
    return config, [f"a row cannot be used: {' '.join(fault)}" for fault in faults]


def alarms(config: Config, calls: Sequence[Record], profile: int | None) -> list[PastAlarm]:
    """Return what would have been told of `calls`; `profile` is that of all where one is given: raise `ConfigError` where no rule has it."""
    fraud = config.fraud
    if fraud is None:
        return []
    profiles = sorted({rule.profileid for rule in fraud.rule})
    if profile is not None and profile not in profiles:
        raise ConfigError(f"--profile: no rule has profile {profile}; there are {', '.join(map(str, profiles)) or 'none'}")
    for_help = {number.translate(_SEPARATORS) for number in config.emergency.numbers}
    rows = [
        (
            _microseconds(call.started_at),
            _microseconds(call.answered_at),
            _microseconds(call.ended_at),
            *parties,
            profile or _profile(config, call),
        )
        for call in calls
        # What the engine cannot read it does not watch, nor calls for help.
        if _is_of_our_time(call)
        and (parties := _native.watched_parties(call.notes.get("account", ""), call.from_uri, call.request_uri))
        and parties[1] not in for_help
    ]
    first = min((datetime.fromtimestamp(row[0] / 1e6, UTC).year for row in rows), default=None)
    # Clocks went otherwise in those years, and a day may begin in the year before by its zone.
    since = {"offsets": offsets(fraud.zone, datetime.now(UTC), first - 1 if first else None)}
    found = _native.replay_fraud(msgspec.msgpack.encode(fraud.document() | since), rows)
    return [
        PastAlarm(
            datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds"),
            "E_FRD_CRITICAL" if critical else "E_FRD_WARNING",
            param,
            value,
            threshold,
            rows[place][3],
            rows[place][4],
            rule,
            rows[place][5],
        )
        for at, place, rule, param, critical, value, threshold in found
    ]


def _is_of_our_time(call: Record) -> bool:
    """Whether its moments are some that a clock may have said."""
    return all(1970 < at.year < 9999 for at in (call.started_at, call.answered_at, call.ended_at) if at)


def _microseconds(at: datetime | None) -> int:
    return round(at.timestamp() * 1e6) if at else 0


def _profile(config: Config, call: Record) -> int:
    fraud = config.fraud
    if fraud is None:
        return 0
    named = call.notes.get(f"account.{fraud.attribute}", "")
    if named.strip().isdecimal() and int(named) < 1 << 32:
        return int(named)
    peer = config.peer.get(call.from_peer)
    return (peer.fraud_profile if peer else 0) or fraud.profile
