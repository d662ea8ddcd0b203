"""The part of the API that is about sinks of events."""

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from edgeproxy.admin.exchange import CONTROL, as_json, body_of
from edgeproxy.events.sink import Sink

EXPIRES_SECONDS = 3_600


class Add(msgspec.Struct, forbid_unknown_fields=True):
    """A sink to tell for a while."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    sink: Sink
    expires_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = EXPIRES_SECONDS


class Remove(msgspec.Struct, forbid_unknown_fields=True):
    """A sink to tell no more."""

    name: str


async def _list(request: web.Request) -> web.Response:
    return as_json({"sinks": request.app[CONTROL].sinks.status()})


async def _add(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, Add), request.app[CONTROL]
    control.sinks.add(wanted.name, wanted.sink, wanted.expires_seconds)
    values = {"sink": wanted.name, "to": wanted.sink.shown, "seconds": wanted.expires_seconds}
    control.printer.event("a sink added by an operator", values=values)
    return as_json({"name": wanted.name, "expires_in": wanted.expires_seconds})


async def _remove(request: web.Request) -> web.Response:
    wanted = await body_of(request, Remove)
    request.app[CONTROL].sinks.remove(wanted.name)
    return as_json({"name": wanted.name})


ROUTES = [
    web.get("/events/sinks", _list),
    web.post("/events/sinks", _add),
    web.post("/events/sinks/remove", _remove),
]
