"""The part of the API that is about fraud: figures of users, and who may not call."""

import asyncio
import time
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from edgeproxy.admin.exchange import CONTROL, as_json, body_of, with_query
from edgeproxy.errors import StorageError
from edgeproxy.events import make


class FraudQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose figures to list: those of a user, or of so many with the most calls."""

    user: str = ""
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100


class StatsView(msgspec.Struct):
    """Figures of one user and prefix."""

    user: str
    profile: int
    prefix: str
    rule: int
    calls_per_minute: int
    total_calls: int
    concurrent_calls: int
    sequential_calls: int


class Unbar(msgspec.Struct, forbid_unknown_fields=True):
    """Who may call again."""

    user: Annotated[str, Meta(min_length=1)]


async def _stats(request: web.Request, query: FraudQuery) -> web.Response:
    control = request.app[CONTROL]
    rows = await asyncio.to_thread(control.engine.fraud_stats, query.user or None, query.limit)
    barred = [{"user": user, "left_seconds": left, "node": node} for user, left, node in control.barred()]
    return as_json({"figures": [StatsView(*row) for row in rows], "barred": barred})


async def _unbar(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, Unbar), request.app[CONTROL]
    if not control.unbar(wanted.user):
        raise StorageError(f"not barred: {wanted.user}")
    control.printer.event("unbarred by an operator", values={"user": wanted.user})
    control.announcer.bus.publish(make("E_FRD_UNBARRED", time.time_ns() // 1_000, {"user": wanted.user, "reason": "by an operator"}))
    return as_json({"user": wanted.user})


ROUTES = [
    web.get("/fraud", with_query(FraudQuery, _stats)),
    web.post("/fraud/unbar", _unbar),
]
