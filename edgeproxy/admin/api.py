"""The management API: JSON over HTTP. Unknown fields, methods and oversized bodies are refused with the reason."""

import asyncio
import hmac
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from edgeproxy.admin import fraud, limits, metrics, routes, sinks, trace, users
from edgeproxy.admin.exchange import CONTROL, Handler, as_json, body_of, takes_query, with_query
from edgeproxy.admin.gate import Gate
from edgeproxy.admin.http_log import http_logger
from edgeproxy.admin.place import reachable
from edgeproxy.config.address import split_host_port
from edgeproxy.errors import ConfigError, EdgeProxyError
from edgeproxy.events import CATALOGUE, Event, is_known, make, parameter_names
from edgeproxy.events.sink import Told
from edgeproxy.policy.dispatch import described
from edgeproxy.server.api_token import read_token
from edgeproxy.server.control import Control

MOST_BYTES = 4 << 20
KEEP_ALIVE_SECONDS = 15.0
"""How long a connection may wait for its next request."""
END_SECONDS = 1.0
"""How long requests under way may take when the proxy ends."""
MOST_EVENTS = 1_024
"""Events that wait for one follower; more are dropped and counted."""
GATES = web.AppKey("gates", list[Gate])
Place = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Apply(msgspec.Struct, forbid_unknown_fields=True):
    """What to apply: a file on this machine, a text, or by default the file of the start."""

    path: str | None = None
    text: str | None = None


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """Which applied file to go back to; by default the one that served before."""

    revision: Annotated[int, Meta(ge=0)] = 0


class LogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """The log level to set; null goes back to that of the file."""

    level: Literal["error", "warning", "info", "debug"] | None


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A body without content."""


class CallQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which live calls to list."""

    call_id: str | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class End(msgspec.Struct, forbid_unknown_fields=True):
    """Which calls to end."""

    call_id: str


class TraceQuery(msgspec.Struct, forbid_unknown_fields=True):
    """What of the trace to show: one call, the calls of a user, or all; from a cursor on, or from the oldest."""

    call_id: str = ""
    user: str = ""
    cursor: str = ""
    """What the last answer gave, or `now`."""
    messages: bool = False
    mask: bool = False
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Raise(msgspec.Struct, forbid_unknown_fields=True):
    """An event to tell, as if it had happened: the way to try a handler."""

    event: str
    parameters: dict[str, int | str] = {}


class FollowQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Events to follow, by name with commas between; by default all of the proxy."""

    names: str = ""


def _error(status: int, problem: str) -> web.Response:
    return as_json({"error": problem}, status)


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what goes wrong into a status and a reason."""
    try:
        return await handler(request)
    except (web.HTTPException, msgspec.MsgspecError, UnicodeDecodeError, EdgeProxyError) as error:
        return _error(*_reason(request, error))
    except Exception as error:
        # A fault of ours: whoever asked learns that there was one, the log says which.
        values = {"path": request.path, **described(error)}
        request.app[CONTROL].printer.event("management request failed", level="error", values=values)
        return _error(500, "internal error: the log has it")


@web.middleware
async def _asked(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the gate while a request is under way: what waits only makes room for others."""
    for gate in request.app[GATES]:
        gate.busy(request.protocol, True)
    try:
        return await handler(request)
    finally:
        for gate in request.app[GATES]:
            gate.busy(request.protocol, False)


@web.middleware
async def _exact(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a query that no handler would read."""
    if request.query_string and request.match_info.http_exception is None and not takes_query(request):
        return _error(400, f"{request.path} takes no query, got: {request.query_string}")
    return await handler(request)


def _reason(request: web.Request, error: Exception) -> tuple[int, str]:
    match error:
        case web.HTTPRequestEntityTooLarge():
            return 413, f"the body may have {MOST_BYTES} bytes at most"
        case web.HTTPNotFound():
            return 404, f"no such resource: {request.path}"
        case web.HTTPMethodNotAllowed():
            return 405, f"{request.method} is not for {request.path}; allowed: {', '.join(sorted(error.allowed_methods))}"
        case web.HTTPException():
            return error.status, error.reason
        case EdgeProxyError():
            return 422, str(error)
        case _:
            return 400, str(error)


def _with_token(token: str) -> Any:
    expected = token.encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # The scheme's name is compared without case (RFC 9110 section 11.1).
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Compared in constant time: how long a refusal takes tells nothing of the token.
        if not hmac.compare_digest(given.strip().encode(errors="surrogateescape"), expected) or scheme.lower() != "bearer":
            refusal = _error(401, "a token is needed: Authorization: Bearer TOKEN")
            # Whoever has none must not keep a place that others want.
            refusal.force_close()
            return refusal
        return await handler(request)

    return check


async def _status(request: web.Request) -> web.Response:
    return as_json(request.app[CONTROL].status())


async def _counters(request: web.Request) -> web.Response:
    return as_json(dict(request.app[CONTROL].counters()))


async def _metrics(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    node = control.loaded.config.install.node
    lookups = [
        ("lookups", [("lookup", name), ("outcome", outcome)], count)
        for name, counts in control.lookups().items()
        for outcome, count in counts.items()
    ]
    labelled = [*control.engine.labelled(), *lookups]
    page = metrics.text(control.counters(), labelled, node, control.engine.counter_help()) + metrics.gateways_text(
        [*control.routes.gateways(), *control.machines()], node
    )
    return web.Response(text=page, content_type="text/plain")


async def _calls(request: web.Request, query: CallQuery) -> web.Response:
    found = request.app[CONTROL].engine.calls(query.call_id, query.limit)
    return as_json({"calls": [msgspec.Raw(call.encode()) for call in found]})


async def _end(request: web.Request) -> web.Response:
    wanted = await body_of(request, End)
    found, untold = await asyncio.to_thread(request.app[CONTROL].engine.end_calls, wanted.call_id)
    if not found:
        return _error(404, f"no live call {wanted.call_id}")
    if untold:
        return _error(409, f"{untold} of {found} calls cannot be ended: their Contact or route set is not known, or too long")
    return as_json({"ended": found})


async def _routes(request: web.Request) -> web.Response:
    return as_json(request.app[CONTROL].routes.status())


async def _gateways(request: web.Request, query: routes.GatewayQuery) -> web.Response:
    found = request.app[CONTROL].routes.gateways()
    return as_json({"gateways": [gateway for gateway in found if not (query.down and gateway["usable"])]})


async def _explain(request: web.Request, query: routes.ExplainQuery) -> web.Response:
    return as_json(routes.explain(request.app[CONTROL], query))


async def _reload_routes(request: web.Request) -> web.Response:
    await body_of(request, Nothing)
    control = request.app[CONTROL]
    report = await control.reload_routes()
    return as_json({**msgspec.structs.asdict(report), "peer_faults": control.peer_faults})


async def _quality(request: web.Request) -> web.Response:
    return as_json({"pairs": request.app[CONTROL].routes.quality()})


async def _set_quality(request: web.Request) -> web.Response:
    wanted = await body_of(request, routes.SetQuality)
    request.app[CONTROL].routes.set_quality(wanted.partition, wanted.rule, wanted.gateway, wanted.on)
    return as_json({"rule": wanted.rule, "gateway": wanted.gateway, "on": wanted.on})


async def _machines(request: web.Request) -> web.Response:
    return as_json({"machines": request.app[CONTROL].machines()})


async def _switch_machine(request: web.Request) -> web.Response:
    wanted = await body_of(request, routes.SwitchMachine)
    request.app[CONTROL].switch_machine(wanted.peer, wanted.uri, wanted.on)
    return as_json({"peer": wanted.peer, "uri": wanted.uri, "on": wanted.on})


async def _switch(request: web.Request) -> web.Response:
    wanted = await body_of(request, routes.Switch)
    request.app[CONTROL].routes.switch(wanted.partition, wanted.kind, wanted.id, wanted.on)
    return as_json({"id": wanted.id, "on": wanted.on})


async def _trace(request: web.Request, query: TraceQuery) -> web.Response:
    control = request.app[CONTROL]
    if query.cursor == "now":
        return as_json({"steps": [], "cursor": _cursor(control.engine.trace_places()), "lost_bytes": 0})
    try:
        places = msgspec.convert(query.cursor.split("-") if query.cursor else [], list[Place], strict=False)
    except msgspec.ValidationError:
        return _error(400, f"cursor: expected `now` or what an earlier answer gave, got: {query.cursor}")
    mask = query.mask or control.loaded.config.log.mask_identities

    def look() -> dict[str, Any]:
        ids = {query.call_id} if query.call_id else None
        if query.user:
            found = trace.call_ids(control.engine.trace(query.user.encode())[0], query.user)
            ids = found if ids is None else ids & found
        entries, after, lost = control.engine.trace(query.call_id.encode(), places, query.limit)
        return {"steps": trace.steps(entries, ids=ids, messages=query.messages, mask=mask), "cursor": _cursor(after), "lost_bytes": lost}

    # Some thousand messages are parsed: other requests go on meanwhile.
    return as_json(await asyncio.to_thread(look))


def _cursor(places: list[int]) -> str:
    return "-".join(map(str, places))


async def _events(request: web.Request) -> web.Response:
    bus = request.app[CONTROL].announcer.bus
    subscribers = bus.subscribers()
    known = {name: {"parameters": parameter_names(kind), "subscribers": subscribers.pop(name, [])} for name, kind in CATALOGUE.items()}
    return as_json({"events": known | {name: {"parameters": [], "subscribers": who} for name, who in subscribers.items()}})


async def _raise(request: web.Request) -> web.Response:
    wanted = await body_of(request, Raise)
    try:
        event = make(wanted.event, time.time_ns() // 1_000, wanted.parameters)
    except ValueError as error:
        return _error(400, str(error))
    return as_json({"taken_by": request.app[CONTROL].announcer.bus.publish(event)})


async def _follow(request: web.Request, query: FollowQuery) -> web.StreamResponse:
    names = [name for name in query.names.split(",") if name] or sorted(CATALOGUE)
    if unknown := [name for name in names if not is_known(name)]:
        return _error(400, f"no such event: {', '.join(unknown)}")
    bus = request.app[CONTROL].announcer.bus
    queue: asyncio.Queue[Event] = asyncio.Queue(MOST_EVENTS)

    def take(event: Event) -> bool:
        if queue.full():
            return False
        queue.put_nowait(event)
        return True

    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    # Who follows no more is found out by writing to them: that is the end of it and no fault.
    with suppress(ConnectionResetError), bus.subscribed(names, take, "follower"):
        await response.prepare(request)
        while not request.app[CONTROL].draining.is_set():
            try:
                async with asyncio.timeout(1):
                    event = await queue.get()
            except TimeoutError:
                # An empty line finds out whether the far end is still there.
                await response.write(b"\n")
                continue
            node = request.app[CONTROL].loaded.config.install.node
            await response.write(msgspec.json.encode(Told.of(event, node)) + b"\n")
    return response


async def _reload(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    apply = await body_of(request, Apply)
    return as_json(await control.reload(control.read(Path(apply.path) if apply.path else None, apply.text)))


async def _diff(request: web.Request) -> web.Response:
    control = request.app[CONTROL]
    apply = await body_of(request, Apply)
    return as_json(await control.diff(control.read(Path(apply.path) if apply.path else None, apply.text)))


async def _rollback(request: web.Request) -> web.Response:
    wanted = await body_of(request, Rollback)
    return as_json(await request.app[CONTROL].rollback(wanted.revision))


async def _revisions(request: web.Request) -> web.Response:
    kept = request.app[CONTROL].revisions.all()
    # Without their texts, which may hold secrets.
    shown = [{name: value for name, value in msgspec.to_builtins(revision).items() if name != "text"} for revision in kept]
    return as_json({"revisions": shown})


async def _log_level(request: web.Request) -> web.Response:
    wanted = await body_of(request, LogLevel)
    return as_json({"level": request.app[CONTROL].set_log_level(wanted.level)})


async def _drain(request: web.Request) -> web.Response:
    await body_of(request, Nothing)
    request.app[CONTROL].drain()
    return as_json({"state": "draining"})


def application(control: Control, token: str = "") -> web.Application:
    """Return the API; with a token whoever does not bring it gets 401."""
    middlewares = [_told, *([_with_token(token)] if token else []), _asked, _exact]
    app = web.Application(middlewares=middlewares, client_max_size=MOST_BYTES)
    app[CONTROL] = control
    app[GATES] = []
    app.add_routes(
        [
            web.get("/status", _status),
            web.get("/counters", _counters),
            web.get("/metrics", _metrics),
            web.get("/calls", with_query(CallQuery, _calls)),
            web.post("/calls/end", _end),
            web.get("/trace", with_query(TraceQuery, _trace)),
            web.get("/events", _events),
            web.post("/events", _raise),
            web.get("/events/follow", with_query(FollowQuery, _follow)),
            web.get("/routes", _routes),
            web.get("/routes/gateways", with_query(routes.GatewayQuery, _gateways)),
            web.get("/routes/explain", with_query(routes.ExplainQuery, _explain)),
            web.post("/routes/reload", _reload_routes),
            web.put("/routes/switch", _switch),
            web.get("/routes/quality", _quality),
            web.put("/routes/quality", _set_quality),
            web.get("/peers/machines", _machines),
            web.put("/peers/switch", _switch_machine),
            *users.ROUTES,
            *limits.ROUTES,
            *fraud.ROUTES,
            *sinks.ROUTES,
            web.post("/reload", _reload),
            web.post("/diff", _diff),
            web.post("/rollback", _rollback),
            web.get("/revisions", _revisions),
            web.put("/log-level", _log_level),
            web.post("/drain", _drain),
        ]
    )
    return app


def _metrics_only(control: Control) -> web.Application:
    app = web.Application(middlewares=[_told, _asked, _exact])
    app[CONTROL] = control
    app[GATES] = []
    app.add_routes([web.get("/metrics", _metrics)])
    return app


@asynccontextmanager
async def management(control: Control) -> AsyncIterator[None]:
    """Serve the API on the control socket, and over TCP as configured; raise `ConfigError` where an address cannot be had."""
    api = control.loaded.config.api
    socket = Path(control.loaded.config.install.state_directory) / "control.sock"
    loop = asyncio.get_running_loop()
    log = http_logger(
        lambda values: control.printer.event("management API: requests that are no HTTP, or failed", level="warning", values=values)
    )
    runners: list[web.AppRunner] = []
    servers: list[asyncio.Server] = []

    async def gate(app: web.Application) -> Gate:
        runner = web.AppRunner(app, logger=log, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=END_SECONDS)
        await runner.setup()
        runners.append(runner)
        if runner.server is None:
            raise OSError("no server was made")
        app[GATES].append(made := Gate(runner.server))
        return made

    async def begin() -> None:
        # One that ended by force left its socket behind.
        socket.unlink(missing_ok=True)
        protocols = await gate(application(control))
        # Nobody may reach it even for the moment before its mode is set.
        mask = os.umask(0o177)
        try:
            with reachable(socket) as path:
                servers.append(await loop.create_unix_server(protocols, path))
        finally:
            os.umask(mask)
        socket.chmod(0o600)
        for address, app in (
            (api.listen, application(control, read_token(api.token_file)) if api.listen else None),
            (api.metrics_listen, _metrics_only(control) if api.metrics_listen else None),
        ):
            if app:
                host, port = split_host_port(address)
                servers.append(await loop.create_server(await gate(app), host, port))

    def end() -> None:
        for server in servers:
            server.close()
        if servers:
            # Before there is a server of ours, the socket is that of another proxy.
            socket.unlink(missing_ok=True)

    try:
        try:
            await begin()
        except OSError as error:
            raise ConfigError(f"api: {error}") from error
        yield
    finally:
        end()
        for runner in runners:
            await runner.cleanup()
