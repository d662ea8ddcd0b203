"""The part of the API that is about limits by key: who has how much, and what operators set at run time."""

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from edgeproxy.admin.exchange import CONTROL, as_json, body_of, with_query
from edgeproxy.errors import StorageError


class LimitQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose keys to list: those of a limit, or of all."""

    name: str = ""
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 1_000


class KeyView(msgspec.Struct):
    """One key of a limit."""

    limit: str
    counts: str
    key: str
    used: int
    most: int
    share: int | None
    at_limit: bool


class SetLimit(msgspec.Struct, forbid_unknown_fields=True):
    """How many a key may have, or all keys where it is empty; null goes back to what file and database say."""

    name: str
    most: Annotated[int, Meta(ge=0, lt=1 << 32)] | None
    key: Annotated[str, Meta(max_length=255)] = ""


class EndLimited(msgspec.Struct, forbid_unknown_fields=True):
    """Whose calls to end: those of a key of a limit, or of all its keys."""

    name: str
    key: str = ""


async def _limits(request: web.Request, query: LimitQuery) -> web.Response:
    control = request.app[CONTROL]
    if query.name and query.name not in control.loaded.config.limit:
        raise StorageError(f"no such limit: {query.name}")
    found = await asyncio.to_thread(control.engine.limits, query.name or None, query.limit)
    return as_json(
        {
            "keys": [msgspec.Raw(key.encode()) for key in found],
            "set": {own: value for own, value in control.limits_set().items() if query.name in {"", own}},
        }
    )


async def _set(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, SetLimit), request.app[CONTROL]
    own = control.loaded.config.limit.get(wanted.name)
    if wanted.key and wanted.most is not None and own and not own.key and not own.by_policy:
        raise StorageError(f"limit {wanted.name} has one key, the empty one: set it without a KEY")
    if wanted.key and wanted.most is not None and own and own.kind == "feedback":
        raise StorageError(f"limit {wanted.name} goes by feedback, which has one number for all keys: set it without a KEY")
    control.set_limit(wanted.name, wanted.key, wanted.most)
    return as_json(wanted)


async def _end(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, EndLimited), request.app[CONTROL]
    if wanted.name not in control.loaded.config.limit:
        raise StorageError(f"no such limit: {wanted.name}")
    found, untold = await asyncio.to_thread(control.engine.end_limited, wanted.name, wanted.key)
    control.printer.event("calls ended by an operator", values={"limit": wanted.name, "key": wanted.key, "ended": found - untold})
    return as_json({"ended": found - untold, "untold": untold})


ROUTES = [
    web.get("/limits", with_query(LimitQuery, _limits)),
    web.put("/limits", _set),
    web.post("/limits/end", _end),
]
