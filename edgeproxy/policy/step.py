"""Runs a coroutine's first step without a task: most handlers never wait, and a task costs more than they do."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from edgeproxy.errors import PolicyError

WhyCancelled = Callable[[], BaseException | None]


class _Starting:
    """Stands in for the task while there is none; whoever keeps it reaches the task once there is one."""

    # Of the class, since most of these live for one step and never get a task.
    task: asyncio.Task[Any] | None = None
    cancels = 0
    """How often it was cancelled before there was a task, which is so as soon as it waits."""

    def cancel(self, msg: object = None) -> bool:
        if self.task:
            return self.task.cancel(msg)
        self.cancels += 1
        return True

    def cancelling(self) -> int:
        return self.task.cancelling() if self.task else self.cancels

    def uncancel(self) -> int:
        if self.task:
            return self.task.uncancel()
        self.cancels = max(0, self.cancels - 1)
        return self.cancels

    def get_name(self) -> str:
        return "policy"

    def get_coro(self) -> None:
        return None

    def done(self) -> bool:
        return self.task.done() if self.task else False


class Resumed(Generator[Any, Any, Any], Coroutine[Any, Any, Any]):
    """What a task runs of a coroutine whose first step is done, and which waits for `first`.

    No generator of the language: a task that is cancelled before its own first step would throw into one that has not begun, which ends it
    without a word to the coroutine. A timeout that is due by then does that.
    """

    call: object = None
    """Whom it runs for, once somebody has said so."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any, why_cancelled: WhyCancelled) -> None:
        self._coroutine = coroutine
        self._first = first
        self._begun = False
        self._why_cancelled = why_cancelled
        self.__qualname__ = getattr(coroutine, "__qualname__", "handler")

    def send(self, value: Any) -> Any:
        """Go on with a value, at first with none."""
        if not self._begun:
            self._begun = True
            return self._first
        return self._step(self._coroutine.send, value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        """Go on with an exception, or with the reason of a cancellation."""
        self._begun = True
        error = kind if isinstance(kind, BaseException) else value or kind()
        if isinstance(error, asyncio.CancelledError):
            error = self._why_cancelled() or error
        return self._step(self._coroutine.throw, error)

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    @staticmethod
    def _step(go_on: Callable[[Any], Any], value: Any) -> Any:
        try:
            return go_on(value)
        except (SystemExit, KeyboardInterrupt) as error:
            # Out of a task either would end the loop, and with it everybody else's handlers.
            raise PolicyError(f"the handler raised {type(error).__name__}: {error}").with_traceback(error.__traceback__) from error


def start(
    coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, why_cancelled: WhyCancelled = lambda: None
) -> tuple[Any, asyncio.Task[Any] | None]:
    """Run the first step: return its result, or a task that goes on with it. Raise what the coroutine raises.

    `why_cancelled` gives the exception that the coroutine sees instead of `CancelledError`, if there is a reason.
    """
    starting = _Starting()
    # asyncio.timeout() and its like ask for the current task in their first step.
    outer = asyncio.current_task(loop)
    if outer:
        asyncio.tasks._leave_task(loop, outer)
    asyncio.tasks._enter_task(loop, starting)  # type: ignore[arg-type]
    try:
        context = contextvars.copy_context()
        first = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value, None
    finally:
        asyncio.tasks._leave_task(loop, starting)  # type: ignore[arg-type]
        if outer:
            asyncio.tasks._enter_task(loop, outer)
    starting.task = loop.create_task(Resumed(coroutine, first, why_cancelled), context=context)
    for _ in range(starting.cancels):
        starting.task.cancel()
    return None, starting.task
