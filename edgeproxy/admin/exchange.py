"""What the handlers of the management API share: the proxy that they are about, bodies in, JSON out."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from edgeproxy.server import Control

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=msgspec.Struct)
CONTROL = web.AppKey("control", Control)


def as_json(value: Any, status: int = 200) -> web.Response:
    """Return an answer with `value` as its body."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json", status=status)


async def body_of(request: web.Request, kind: type[Body]) -> Body:
    """Return the body of a request; raise `msgspec.MsgspecError` where it is none of this kind."""
    data = await request.read()
    return msgspec.json.decode(data or b"{}", type=kind)


def query_of(request: web.Request, kind: type[Body]) -> Body:
    """Return the query of a request; raise `msgspec.MsgspecError` where it is none of this kind."""
    return msgspec.convert(dict(request.query), kind, strict=False)
