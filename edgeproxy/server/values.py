"""Values for policies: counters and sets of this node in memory, or of all nodes by the store of `[shared]`; and the events that they raise."""

import asyncio
import socket
import time
from collections.abc import Callable

import msgspec

from edgeproxy.events import Event, make
from edgeproxy.server.shares import Shares
from edgeproxy.shared import StoreFailed
from edgeproxy.shared.exchange import LINE, Question, Reply, carried_out
from edgeproxy.shared.memory import MemoryValues

MOST = 1_000
"""Questions of one policy process under way at once; further ones wait in its socket."""


class ValueService:
    """Answers policy processes, one pair of sockets each."""

    def __init__(self, shares: Callable[[], Shares | None], publish: Callable[[Event], int]) -> None:
        self._shares = shares
        self._publish = publish
        self._memory = MemoryValues()
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked = self.failed = 0

    def connect(self) -> socket.socket:
        """Return the end for a policy process; what it asks is answered until it closes that."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        task = asyncio.create_task(self._serve(ours))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return theirs

    async def stop(self) -> None:
        """Answer nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, ours: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE)
        turns = asyncio.Semaphore(MOST)
        asking: set[asyncio.Task[None]] = set()

        async def answer(line: bytes) -> None:
            try:
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
            finally:
                turns.release()

        try:
            while line := await reader.readline():
                await turns.acquire()
                await writer.drain()
                task = asyncio.create_task(answer(line))
                asking.add(task)
                task.add_done_callback(asking.discard)
        except (OSError, ValueError):
            # It ended in the middle of a line, or wrote one without an end: there is nobody to tell.
            pass
        finally:
            for task in asking:
                task.cancel()
            writer.close()

    async def _answer(self, line: bytes) -> Reply:
        self.asked += 1
        number = 0
        try:
            question = msgspec.json.decode(line, type=Question)
            number = question.number
            if question.verb == "raise":
                return Reply(number, self._publish(make(question.key, time.time_ns() // 1_000, question.parameters)))
            shares = self._shares()
            if shares is None:
                return await carried_out(self._memory, question)
            return await shares.use(lambda store: carried_out(store, question))
        except msgspec.MsgspecError as error:
            self.failed += 1
            # The asker checks what it asks: only one that does not can come here, and it has no number.
            return Reply(number, error=f"not a question: {error}")
        except (StoreFailed, TimeoutError) as error:
            self.failed += 1
            return Reply(number, error=str(error) or "the store did not answer in time")
