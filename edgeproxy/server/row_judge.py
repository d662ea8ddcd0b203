"""What a load would say of a row, asked before the row is written."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from edgeproxy import _native
from edgeproxy.storage import block
from edgeproxy.storage.peers import judge_row
from edgeproxy.storage.recurrence import expand
from edgeproxy.storage.transfer import KINDS

_KINDS = frozenset({"gateways", "carriers", "profiles", "groups", "dialplan", "rules"})
_OTHERS = ("no such gateway", "no such carrier", "none of its gateways", "no such handler", "no such row of qr_profiles")
"""Faults of rows that are not there, or not yet: in what order tables are filled is the operator's affair."""


def judge(kind: str, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return column and problem of each fault that a row has by itself, whatever else the database and the configuration have."""
    if kind not in _KINDS:
        return [(fault.column, fault.problem) for fault in judge_row(kind, row)]
    prefix = str(row.get("prefix") or "")
    # Which further characters prefixes may have is for the configuration to say; five at most.
    further = "".join(sorted({character for character in prefix if not character.isdecimal()}))
    try:
        load = _native.RouteLoad([""], further)
    except ValueError as error:
        return [("prefix", str(error))]
    # Whom the row names stands there for as long, so that the rest of it is looked at.
    named = {item.partition("=")[0].strip() for item in re.split(r"[,;]", str(row.get("gwlist") or ""))}
    load.add("", "gateways", block("gateways", [{"gwid": name, "address": "192.0.2.1"} for name in named if name and name[0] != "#"]))
    if kind == "rules":
        load.add("", "carriers", block("carriers", [{"carrierid": name[1:]} for name in named if name.startswith("#")]))
    load.add("", kind, block(kind, [{name: value for name, value in row.items() if value is not None}]))
    for text in load.recurrences(""):
        load.mean("", [], _problem(text))
    _, faults, _ = load.finish()
    return [(column, problem) for table, _, column, problem in faults if table == KINDS[kind].name and not problem.startswith(_OTHERS)]


@lru_cache(1_024)
def _problem(recurrence: str) -> str | None:
    try:
        expand(recurrence, datetime.now(UTC))
    except (ValueError, ArithmeticError, RecursionError) as error:
        return str(error) or type(error).__name__
    return None
