"""Asks a running proxy over its control socket."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from edgeproxy.admin.place import reachable
from edgeproxy.errors import EdgeProxyError

SECONDS = 60


async def _ask(socket: Path, method: str, path: str, body: dict[str, Any] | None, query: dict[str, str] | None) -> tuple[int, bytes]:
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    data = None if body is None else msgspec.json.encode(body)
    with reachable(socket) as place:
        connector = aiohttp.UnixConnector(place)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://edgeproxy{path}", data=data, params=query) as response,
        ):
            return response.status, await response.read()


def ask(socket: Path, method: str, path: str, body: dict[str, Any] | None = None, query: dict[str, str] | None = None) -> bytes:
    """Return the answer; raise `EdgeProxyError` with the reason where there is none, or a refusal."""
    try:
        status, answer = asyncio.run(_ask(socket, method, path, body, query))
    except (aiohttp.ClientError, OSError) as error:
        raise EdgeProxyError(
            f"{socket}: no proxy answers: {error}\nhint: --control names the control socket, in the state directory of the proxy"
        ) from error
    except TimeoutError:
        raise EdgeProxyError(f"{socket}: no answer within {SECONDS} s") from None
    if status != 200:
        raise EdgeProxyError(str(msgspec.json.decode(answer).get("error", answer)))
    return answer
