"""What the handlers of the management API share: the proxy that they are about, bodies in, JSON out."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from edgeproxy.server.control import Control

BODY_SECONDS = 30.0
"""Longest wait for the whole body of a request."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=msgspec.Struct)
CONTROL = web.AppKey("control", Control)
_WITH_QUERY: set[Handler] = set()


def as_json(value: Any, status: int = 200) -> web.Response:
    """Return an answer with `value` as its body."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """Return the body of a request; raise `msgspec.MsgspecError` where it is none of this kind, `HTTPException` where it does not come."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason=f"the body did not come within {BODY_SECONDS:.0f} s") from None
    except ConnectionError:
        # Whoever asked is gone, which is no fault of ours.
        raise web.HTTPBadRequest(reason="the body did not come to its end") from None
    return msgspec.json.decode(data or b"{}", type=kind)


def with_query(kind: type[Body], work: Callable[[web.Request, Body], Awaitable[web.StreamResponse]]) -> Handler:
    """Return the handler that gives `work` the query of a request, which must be one of this kind."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await work(request, msgspec.convert(dict(request.query), kind, strict=False))

    _WITH_QUERY.add(handler)
    return handler


def takes_query(request: web.Request) -> bool:
    """Whether there may be a query: where no handler would read it, it is refused, not ignored."""
    return request.match_info.handler in _WITH_QUERY
