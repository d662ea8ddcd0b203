"""Deliveries to one sink: a queue, retries with pauses, a limit of pace, and counts of what came of it."""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from edgeproxy.events.event import Event
from edgeproxy.events.sink import Sink, Told
from edgeproxy.events.transport import Transport, open_transport

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
Log = Callable[..., object]


class Delivery:
    """What is told one sink; `take` is its place on the bus."""

    def __init__(self, name: str, sink: Sink, node: str, log: Log) -> None:
        self.name, self.sink = name, sink
        self.told = 0
        self.failed = 0
        """Events that were given up."""
        self.dropped = 0
        """Events that found no room, or came too fast."""
        self.problem = ""
        """Why the last delivery failed; empty while all is well."""
        self._node = node
        self._log = log
        self._queue: asyncio.Queue[Event] = asyncio.Queue(sink.queue)
        self._transport: Transport | None = None
        self._second = 0
        self._in_second = 0
        # A program each may run beside others; what has an order keeps it.
        workers = sink.concurrent if sink.command else 1
        self._tasks = [asyncio.create_task(self._work()) for _ in range(workers)]

    def take(self, event: Event) -> bool:
        """Queue an event that passes the filter; false where it is dropped."""
        if not self.sink.wants(event):
            return True
        if self._queue.full() or not self._in_pace():
            self.dropped += 1
            return False
        self._queue.put_nowait(event)
        return True

    def _in_pace(self) -> bool:
        most = self.sink.most_per_second
        if not most:
            return True
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second <= most

    @property
    def waiting(self) -> int:
        """Events that wait."""
        return self._queue.qsize()

    async def _work(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._deliver(event)
            except asyncio.CancelledError:
                # The end came before it was told.
                self.failed += 1
                raise
            except Exception as error:
                # An event that cannot be written is one lost, and no reason to lose those behind it.
                self.failed += 1
                self._log("an event cannot be told", level="error", values={"sink": self.name, "error": str(error)})
            finally:
                self._queue.task_done()

    async def _deliver(self, event: Event) -> None:
        told = Told.of(event, self._node)
        name, values, body = told.event, told.parameters, msgspec.json.encode(told)
        tries = 1 if self.sink.command else self.sink.tries
        pause = FIRST_PAUSE_SECONDS
        for number in range(tries):
            try:
                async with asyncio.timeout(self.sink.timeout_seconds + 1):
                    if self._transport is None:
                        self._transport = await open_transport(self.sink)
                    await self._transport.send(body, name, values)
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                    raise
                # A library may cancel what it was asked for when its connection goes.
                await self._failed(error)
                if number + 1 < tries:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                self.told += 1
                if self.problem:
                    self.problem = ""
                    self._log("events are told again", values={"sink": self.name})
                return
        self.failed += 1

    async def _failed(self, error: BaseException) -> None:
        """Note a failure, which is told once, and give the connection up."""
        first, self.problem = not self.problem, self._without_password(f"{type(error).__name__}: {error}")[:300]
        if first:
            self._log("events cannot be told", level="warning", values={"sink": self.name, "to": self.sink.shown, "error": self.problem})
        if not self.sink.command:
            await self._give_up()

    def _without_password(self, text: str) -> str:
        """Libraries may say whom they could not reach, and how."""
        password = self.sink.place.password if self.sink.to else None
        for secret in (password, unquote(password)) if password else ():
            text = text.replace(secret, "***")
        return text

    async def _give_up(self) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        try:
            async with asyncio.timeout(1):
                await transport.close()
        except Exception as error:
            # What is broken may break once more when it is closed.
            self._log("a sink was not closed well", level="debug", values={"sink": self.name, "error": str(error)})

    async def stop(self, seconds: float) -> None:
        """Tell what waits, as long as that may take, and end."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            self.dropped += self._queue.qsize()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._give_up()
