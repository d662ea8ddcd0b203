"""Work of the server that never ends: what goes wrong in it is contained, counted and told, and it goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from edgeproxy.policy.dispatch import described

PAUSE_SECONDS = 1.0
"""How long work rests after a fault."""
Log = Callable[..., None]


class Standing:
    """Runs such work on the loop, and takes whatever faults nobody else takes."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults = 0

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take faults of callbacks and tasks that nobody waits for."""
        loop.set_exception_handler(self._unhandled)

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._fault(error if isinstance(error, BaseException) else RuntimeError(str(context.get("message"))))

    def _fault(self, error: BaseException) -> None:
        self.faults += 1
        self._log("fault in the server", level="error", values=described(error))

    def run(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run `work` for as long as the process serves, again and again where it raises; return it, to be cancelled before that."""

        async def forever() -> None:
            while True:
                try:
                    await work()
                except Exception as error:
                    self._fault(error)
                    await asyncio.sleep(PAUSE_SECONDS)

        task = asyncio.create_task(forever())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
