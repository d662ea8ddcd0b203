"""Time that passes only when a test says so."""

import asyncio
import heapq
import itertools
import math
from collections.abc import Callable


class SimulatedClock:
    """Seconds since the start, and who waits for some to pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []

    async def sleep(self, seconds: float) -> None:
        """Wait until so many seconds have passed."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(seconds, _wake, future)
        await future

    def call_later(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        """Call a function once so many seconds have passed."""
        heapq.heappush(self._waiting, (self.now + seconds, next(self._numbers), lambda: function(*arguments)))

    @property
    def next_due(self) -> float:
        """When somebody waits no more; infinity where nobody waits."""
        return self._waiting[0][0] if self._waiting else math.inf

    def pass_to(self, moment: float) -> None:
        """Let time pass; whoever waited for that goes on with the next turn of the loop."""
        self.now = moment
        while self._waiting and self._waiting[0][0] <= moment:
            _, _, work = heapq.heappop(self._waiting)
            work()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
