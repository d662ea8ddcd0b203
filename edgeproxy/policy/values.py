"""What policies have of the server: counters and sets with expiry, of this node or of all that share a store, and a voice on the bus of events."""

import asyncio
import socket
from collections.abc import Callable

import msgspec

from edgeproxy.errors import LookupFailed
from edgeproxy.shared.exchange import LINE, Question, Reply, carried_out
from edgeproxy.shared.store import StoreFailed, Values

Publish = Callable[[str, dict[str, int | str]], int]
"""Tells an event, and returns how many took it."""
_KEY = "a key is 1 to 255 characters without control characters"


class PolicyValues:
    """Where policies count and remember. Every verb raises `LookupFailed` where the store does not answer in time, `ValueError` for what no store takes.

    Keys are those of policies alone: nothing else that the proxy keeps is reached by them.
    """

    def __init__(
        self, descriptor: int = -1, values: Values | None = None, deadline_seconds: float = 2.0, publish: Publish | None = None
    ) -> None:
        self._descriptor = descriptor
        self._values = values
        self._publish = publish
        self._deadline = deadline_seconds
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening: asyncio.Lock | None = None
        self._number = 0

    async def add(self, key: str, by: int = 1, *, seconds: float) -> int:
        """Add to a counter and return what it is; it begins at 0, and again `seconds` after its first addition."""
        return (await self._ask(Question(0, "add", key, by, seconds))).count

    async def fetch(self, key: str) -> int:
        """Return what a counter is, 0 where there is none."""
        return (await self._ask(Question(0, "fetch", key))).count

    async def put(self, group: str, *members: str, seconds: float) -> None:
        """Put members into a set, each for so many seconds from now."""
        await self._ask(Question(0, "put", group, seconds=seconds, members=list(members)))

    async def discard(self, group: str, *members: str) -> None:
        """Take members out of a set."""
        await self._ask(Question(0, "discard", group, members=list(members)))

    async def members(self, group: str) -> dict[str, float]:
        """Return the members of a set with the seconds that each has left."""
        return (await self._ask(Question(0, "members", group))).members

    async def raise_event(self, name: str, parameters: dict[str, int | str]) -> int:
        """Tell an event of the policies' own, and return how many took it."""
        if not name.startswith("X_"):
            raise ValueError(f"raise_event: an event of your own begins with X_, got: {name}")
        return (await self._ask(Question(0, "raise", name, parameters=parameters))).count

    async def _ask(self, question: Question) -> Reply:
        self._number += 1
        question.number = number = self._number
        line = msgspec.json.encode(question)
        try:
            msgspec.json.decode(line, type=Question)
        except msgspec.ValidationError as error:
            verb = "raise_event" if question.verb == "raise" else f"values.{question.verb}"
            raise ValueError(f"{verb}: {error}; {_KEY}") from None
        if self._publish is not None and question.verb == "raise":
            return Reply(number, self._publish(question.key, question.parameters))
        if self._values is not None:
            try:
                return await carried_out(self._values, question)
            except StoreFailed as error:
                raise LookupFailed(f"values: {error}") from error
        if self._descriptor < 0:
            raise LookupFailed("values: there are none here")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(self._deadline):
                writer = await self._open()
                writer.write(line + b"\n")
                await writer.drain()
                reply = await future
        except TimeoutError:
            raise LookupFailed(f"values: no answer within {self._deadline} s") from None
        except OSError as error:
            raise LookupFailed(f"values: {error}") from error
        finally:
            self._waiting.pop(number, None)
        if reply.error:
            raise LookupFailed(f"values: {reply.error}")
        return reply

    async def close(self) -> None:
        """Close the way to them."""
        if self._writer and self._reading:
            self._writer.close()
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _open(self) -> asyncio.StreamWriter:
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection(sock=socket.socket(fileno=self._descriptor), limit=LINE)
                self._reading = asyncio.create_task(self._read(reader))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            reply = msgspec.json.decode(line, type=Reply)
            waiting = self._waiting.get(reply.number)
            if waiting and not waiting.done():
                waiting.set_result(reply)
