"""Runs a coroutine's first step without a task: most handlers never wait, and a task costs more than they do."""

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from edgeproxy.errors import PolicyError

WhyCancelled = Callable[[], BaseException | None]


class _Starting:
    """Stands in for the task while there is none; whoever keeps it reaches the task once there is one."""

    # Of the class, since most of these live for one step and never get a task.
    task: asyncio.Task[Any] | None = None

    def cancel(self, msg: object = None) -> bool:
        return self.task.cancel(msg) if self.task else False

    def cancelling(self) -> int:
        return self.task.cancelling() if self.task else 0

    def uncancel(self) -> int:
        return self.task.uncancel() if self.task else 0

    def get_name(self) -> str:
        return "policy"

    def get_coro(self) -> None:
        return None

    def done(self) -> bool:
        return self.task.done() if self.task else False


@types.coroutine
def _resumed(coroutine: Coroutine[Any, Any, Any], first: Any, why_cancelled: WhyCancelled) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that waits for `first`."""
    yielded = first
    while True:
        thrown: BaseException | None = None
        value = None
        try:
            value = yield yielded
        except asyncio.CancelledError as error:
            thrown = why_cancelled() or error
        except BaseException as error:
            # Whatever is thrown at the task is meant for the coroutine.
            thrown = error
        try:
            yielded = coroutine.throw(thrown) if thrown else coroutine.send(value)
        except StopIteration as stop:
            return stop.value
        except (SystemExit, KeyboardInterrupt) as error:
            # Out of a task either would end the loop, and with it everybody else's handlers.
            raise PolicyError(f"the handler raised {type(error).__name__}: {error}") from error


async def _as_coroutine(coroutine: Coroutine[Any, Any, Any], first: Any, why_cancelled: WhyCancelled) -> Any:
    return await _resumed(coroutine, first, why_cancelled)


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
    starting.task = loop.create_task(_as_coroutine(coroutine, first, why_cancelled), context=context)
    return None, starting.task
