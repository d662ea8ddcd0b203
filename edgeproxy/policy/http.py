"""HTTP for policies: one session a process, every answer bounded in time and size."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from edgeproxy.errors import LookupFailed

_MOST_BYTES = 1 << 20
_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}


def _session() -> aiohttp.ClientSession:
    loop = asyncio.get_running_loop()
    found = _sessions.get(loop)
    if found is None or found.closed:
        found = _sessions[loop] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    return found


async def close() -> None:
    """Close the session of this loop."""
    session = _sessions.pop(asyncio.get_running_loop(), None)
    if session:
        await session.close()


async def fetch_json(  # noqa: PLR0913
    url: str, *, method: str, params: Mapping[str, str] | None, json: Any, deadline_seconds: float, trace_id: str
) -> dict[str, Any]:
    """Return the JSON object that `url` answers with; raise `LookupFailed` for anything else."""
    status, body = await _fetch(url, {}, deadline_seconds, trace_id, method=method, params=params, json=json)
    if status != 200:
        raise LookupFailed(f"{_place(url)}: status {status}")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError) as error:
        raise LookupFailed(f"{_place(url)}: {error}") from error


async def fetch_bytes(url: str, headers: Mapping[str, str], deadline_seconds: float, trace_id: str) -> bytes | None:
    """Return what `url` answers with, None where that is 204 or 404; raise `LookupFailed` for anything else."""
    try:
        # Where it leads elsewhere, our header fields are not for that.
        status, body = await _fetch(url, headers, deadline_seconds, trace_id, follow=False)
    except LookupFailed as error:
        # A URL may have secrets in it, and whoever asks knows its name.
        raise LookupFailed(str(error).removeprefix(f"{_place(url)}: ")) from error
    if status in {204, 404}:
        return None
    if status != 200:
        raise LookupFailed(f"status {status}")
    return body


def _place(url: str) -> str:
    """Return what may be told of a URL: not its user, its path or its query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"


async def _fetch(  # noqa: PLR0913 - the parts of one request
    url: str,
    headers: Mapping[str, str],
    deadline_seconds: float,
    trace_id: str,
    *,
    method: str = "GET",
    params: Mapping[str, str] | None = None,
    json: Any = None,
    follow: bool = True,
) -> tuple[int, bytes]:
    trace = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    place = _place(url)
    try:
        async with asyncio.timeout(deadline_seconds):
            async with _session().request(
                method, url, params=params, json=json, headers={**headers, **trace}, allow_redirects=follow
            ) as response:
                body = await response.content.read(_MOST_BYTES + 1)
                while len(body) <= _MOST_BYTES and not response.content.at_eof():
                    body += await response.content.read(_MOST_BYTES + 1 - len(body))
        if len(body) > _MOST_BYTES:
            raise LookupFailed(f"{place}: more than {_MOST_BYTES} bytes")
        return response.status, body
    except TimeoutError:
        raise LookupFailed(f"{place}: no answer within {deadline_seconds} s") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise LookupFailed(
            f"{place}: {type(error).__name__ if isinstance(error, aiohttp.TooManyRedirects) else error or type(error).__name__}"
        ) from error
