"""The part of the API that is about users: where they are, and which sources are not listened to."""

import asyncio
import ipaddress
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from edgeproxy.admin.exchange import CONTROL, as_json, body_of, with_query
from edgeproxy.errors import StorageError

BAN_SECONDS = 3_600


class LocationQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose bindings to list: `user@domain`, or those of so many users."""

    aor: str = ""
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100


class Remove(msgspec.Struct, forbid_unknown_fields=True):
    """Which bindings to remove: all of a user, or only that of a Contact."""

    aor: str
    """`user@domain`."""
    contact: str | None = None


class BindingView(msgspec.Struct):
    """One binding; times in seconds since 1970."""

    aor: str
    contact: str
    received: str
    path: str
    expires: int
    q: float
    call_id: str
    cseq: int
    modified: int
    natted: bool
    user_agent: str
    socket: str
    instance: str
    reg_id: int


class Ban(msgspec.Struct, forbid_unknown_fields=True):
    """A source to listen to no more."""

    source: str
    seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = BAN_SECONDS
    reason: Annotated[str, Meta(min_length=1, max_length=200)] = "by an operator"
    exempt: bool = False
    """Ban it although it is exempt."""


class Unban(msgspec.Struct, forbid_unknown_fields=True):
    """A source to listen to again."""

    source: str


class BanView(msgspec.Struct):
    """A source that is not listened to."""

    source: str
    since_seconds: int
    left_seconds: int
    reason: str
    proto: str = ""


class SourceQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which source to explain."""

    source: str


class SourceView(msgspec.Struct):
    """What is known of a source."""

    source: str
    banned_for: str
    left_seconds: int
    exempt: bool
    known: bool
    users: int
    packets: int
    packet_limit: int
    points: int
    point_limit: int
    failures: int


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
        if address.version == 6 and address.scope_id:
            raise ValueError
        return (address.version == 6 and address.ipv4_mapped) or address
    except ValueError:
        raise StorageError(f"source: expected an IP address without a zone, got: {text}") from None


async def _location(request: web.Request, query: LocationQuery) -> web.Response:
    rows = await asyncio.to_thread(request.app[CONTROL].engine.location, query.aor or None, query.limit)
    bindings = [
        BindingView(
            f"{row.user}@{row.domain}",
            row.contact,
            row.received,
            row.path,
            row.expires,
            row.q / 1_000,
            row.call_id,
            row.cseq,
            row.modified,
            row.natted,
            row.user_agent,
            row.socket,
            row.instance,
            row.reg_id,
        )
        for row in rows
    ]
    return as_json({"bindings": bindings})


async def _remove(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, Remove), request.app[CONTROL]
    if not all(wanted.aor.rpartition("@")[::2]):
        raise StorageError(f"aor: expected user@domain, got: {wanted.aor}")
    removed = await asyncio.to_thread(control.engine.remove_bindings, wanted.aor, wanted.contact)
    if not removed:
        raise StorageError(f"no such binding: {wanted.aor} {wanted.contact or ''}".rstrip())
    control.printer.event("bindings removed by an operator", values={"aor": wanted.aor, "contact": wanted.contact, "removed": removed})
    return as_json({"removed": removed})


_NOT_BANNED = {
    "full": "there are as many bans as authentication.attacks.max_bans allows, and none of them gives way",
    "unanswered": "no worker answered within a second",
}


async def _bans(request: web.Request) -> web.Response:
    return as_json({"bans": [BanView(*ban) for ban in request.app[CONTROL].engine.bans()]})


async def _ban(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, Ban), request.app[CONTROL]
    source = _address(wanted.source)
    view = await asyncio.to_thread(control.engine.source, source)
    if not wanted.exempt and view is not None and msgspec.json.decode(view, type=SourceView).exempt:
        # Calls of a whole carrier may come from there.
        raise StorageError(
            f"{source} is exempt (a peer of ours, a gateway, or an exempt network): --exempt, or `exempt` in the API, bans it all the same"
        )
    change = await asyncio.to_thread(control.engine.ban, source, wanted.seconds, wanted.reason)
    if change in {"full", "unanswered"}:
        raise StorageError(f"{source} is not banned: {_NOT_BANNED[change]}")
    live = {banned for banned, *_ in control.engine.bans()}
    control.banned_by_operators = (control.banned_by_operators & live) | {str(source)}
    return as_json({"source": str(source), "new": change == "new"})


async def _unban(request: web.Request) -> web.Response:
    wanted, control = await body_of(request, Unban), request.app[CONTROL]
    source = _address(wanted.source)
    if not await asyncio.to_thread(control.engine.unban, source, "by an operator"):
        raise StorageError(f"not banned: {source}")
    return as_json({"source": str(source)})


async def _source(request: web.Request, query: SourceQuery) -> web.Response:
    found = await asyncio.to_thread(request.app[CONTROL].engine.source, _address(query.source))
    if found is None:
        raise StorageError("no worker answers")
    return as_json(msgspec.Raw(found.encode()))


ROUTES = [
    web.get("/location", with_query(LocationQuery, _location)),
    web.post("/location/remove", _remove),
    web.get("/bans", _bans),
    web.get("/bans/explain", with_query(SourceQuery, _source)),
    web.post("/bans", _ban),
    web.post("/bans/remove", _unban),
]
