"""Asks a running proxy over its control socket."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from edgeproxy.admin.place import reachable
from edgeproxy.admin.trace import Ladder, Repeats, Step
from edgeproxy.errors import EdgeProxyError

SECONDS = 60
FOLLOW_SECONDS = 0.3
"""How often a trace that is followed is looked at."""


class _Refusal(msgspec.Struct):
    error: str


class _Trace(msgspec.Struct):
    steps: list[Step]
    cursor: str
    lost_bytes: int


async def _lines(socket: Path, path: str, query: dict[str, str]) -> None:
    with reachable(socket) as place:
        connector = aiohttp.UnixConnector(place)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.get(f"http://edgeproxy{path}", params=query) as response,
        ):
            if response.status != 200:
                raise EdgeProxyError(_problem(response.status, await response.read()))
            async for line in response.content:
                if line.strip():
                    print(line.decode().rstrip(), flush=True)


def follow_events(socket: Path, names: str) -> None:
    """Print events as they come, until the proxy ends or the user interrupts; raise `EdgeProxyError` as `ask` does."""
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(_lines(socket, "/events/follow", {"names": names} if names else {}))
        except (aiohttp.ClientError, OSError) as error:
            raise EdgeProxyError(f"{socket}: no proxy answers: {error}") from error


def show_trace(socket: Path, query: dict[str, str], *, follow: bool) -> None:
    """Print a ladder, and with `follow` whatever comes until the user interrupts; raise `EdgeProxyError` where there is none."""
    chosen = "call_id" in query or "user" in query
    # Without a choice the past is everything: whoever follows wants what comes.
    cursor = "now" if follow and not chosen else ""
    ladder, repeats = Ladder(), Repeats()
    shown = 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            given = {**query, "cursor": cursor} if cursor else query
            answer = msgspec.json.decode(ask(socket, "GET", "/trace", query=given), type=_Trace)
            if answer.lost_bytes:
                print(f"({answer.lost_bytes} bytes were overwritten before they could be shown)")
            for step in answer.steps:
                shown += 1
                print("\n".join(ladder.lines(repeats.marked(step))), flush=True)
            cursor = answer.cursor
            if not follow:
                break
            time.sleep(FOLLOW_SECONDS)
    if not follow and not shown:
        raise EdgeProxyError("no such call in memory\nhint: [trace] memory_bytes says how much is kept; --follow shows what comes")


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
        raise EdgeProxyError(_problem(status, answer))
    return answer


def _problem(status: int, answer: bytes) -> str:
    """Return what a refusal says; the server under the API has refusals of its own, which are no JSON."""
    try:
        return msgspec.json.decode(answer, type=_Refusal).error
    except msgspec.MsgspecError:
        return f"status {status}: {answer[:500].decode(errors='replace').strip()}"
