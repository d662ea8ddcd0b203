"""Rules of fraud profiles: the table `fraud_detection`."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.config.fraud import FraudRule
from edgeproxy.storage.database import told
from edgeproxy.storage.peers import RowFault

_COLUMNS = tuple(own.name for own in msgspec.structs.fields(FraudRule))
_SOURCE = table("fraud_detection", *(column(name) for name in _COLUMNS))
_TEXTS = frozenset({"prefix", "start_hour", "end_hour", "daysoftheweek"})


async def read_fraud(engine: AsyncEngine, faults: list[RowFault]) -> list[FraudRule]:
    """Return the rules; what cannot be used is told. Raise `StorageError`."""
    try:
        async with engine.connect() as connection:
            rows = [dict(row) for row in (await connection.execute(select(_SOURCE).order_by(_SOURCE.c.ruleid))).mappings()]
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    found: dict[tuple[object, ...], FraudRule] = {}
    for row in rows:
        if rule := _rule(row, faults):
            # As it counts: one window may be written in several ways.
            said = rule.document()
            terms = (rule.profileid, rule.prefix.removeprefix("+"), said["minutes"], said["days"])
            if terms in found:
                problem = f"a second row of profile {rule.profileid}, this prefix and this window: it never counts"
                faults.append(RowFault("fraud_detection", str(row["ruleid"]), "prefix", problem))
            found.setdefault(terms, rule)
    return list(found.values())


def _rule(row: Mapping[str, Any], faults: list[RowFault]) -> FraudRule | None:
    values: dict[str, Any] = {}
    for name in _COLUMNS:
        value = row[name]
        if value is None:
            continue
        if name in _TEXTS:
            values[name] = str(value).strip()
        else:
            try:
                values[name] = int(value)
                if not isinstance(value, str) and value != values[name]:
                    raise ValueError
            except (TypeError, ValueError, OverflowError):
                faults.append(RowFault("fraud_detection", str(row["ruleid"]), name, f"expected a number, got: {value}"))
                return None
            if values[name] < 0:
                faults.append(RowFault("fraud_detection", str(row["ruleid"]), name, f"expected 0 or more, got: {value}"))
                return None
    try:
        rule = msgspec.convert(values, FraudRule)
    except msgspec.ValidationError as error:
        place = str(error).rpartition("$.")[2].rstrip("`") or "ruleid"
        faults.append(RowFault("fraud_detection", str(row["ruleid"]), place, str(error)))
        return None
    if problem := rule.problem():
        faults.append(RowFault("fraud_detection", str(row["ruleid"]), *problem))
        return None
    return rule
