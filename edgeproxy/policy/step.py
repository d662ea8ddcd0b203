"""Runs a coroutine's first step without a task: most handlers never wait, and a task costs more than they do."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from edgeproxy.errors import PolicyError

WhyCancelled = Callable[[], BaseException | None]
_Done = Callable[[Any], object]


class HandlerTask:
    """The current task as a handler sees it, one and the same from its first step on; asyncio has a task only once it waits.

    Libraries keep the current task and look later whether it is that still, as the cancel scopes of AnyIO do.
    """

    # Of the class, since most of these live for one step and never get a task.
    task: asyncio.Task[Any] | None = None
    call: object = None
    """Whom it runs for, once somebody has said so."""
    after_step: Callable[[], None] | None = None
    """What is done each time that the handler waits again."""
    cancels = 0
    """How often it was cancelled before there was a task, which is so as soon as it waits."""
    _is_over = False
    _name = "policy"
    _callbacks: tuple[tuple[_Done, contextvars.Context | None], ...] = ()

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        """Whatever else tasks have it has once there is one."""
        if self.task is None:
            raise AttributeError(f"a handler's task has no {name!r} before the handler waits")
        return getattr(self.task, name)

    @property
    def _must_cancel(self) -> bool:
        return self.task._must_cancel if self.task else self.cancels > 0  # type: ignore[attr-defined]

    @property
    def _fut_waiter(self) -> Any:
        return self.task._fut_waiter if self.task else None  # type: ignore[attr-defined]

    def cancel(self, msg: object = None) -> bool:
        """As of a task; before there is one it holds once there is."""
        if self.task:
            return self.task.cancel(msg)
        self.cancels += 1
        return not self._is_over

    def cancelling(self) -> int:
        """As of a task."""
        return self.task.cancelling() if self.task else self.cancels

    def uncancel(self) -> int:
        """As of a task."""
        if self.task:
            return self.task.uncancel()
        self.cancels = max(0, self.cancels - 1)
        return self.cancels

    def get_name(self) -> str:
        """As of a task."""
        return self.task.get_name() if self.task else self._name

    def set_name(self, value: object) -> None:
        """As of a task."""
        self._name = str(value)
        if self.task:
            self.task.set_name(value)

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        """As of a task: that of the handler itself."""
        return self._coroutine

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As of a task."""
        return self._loop

    def done(self) -> bool:
        """As of a task."""
        return self.task.done() if self.task else self._is_over

    def cancelled(self) -> bool:
        """As of a task."""
        return self.task.cancelled() if self.task else False

    def add_done_callback(self, fn: _Done, *, context: contextvars.Context | None = None) -> None:
        """As of a task; what is called gets that, where there is one by then."""
        if self.task:
            self.task.add_done_callback(fn, context=context)
        elif self._is_over:
            self._loop.call_soon(fn, self, context=context)
        else:
            self._callbacks = (*self._callbacks, (fn, context))

    def remove_done_callback(self, fn: _Done) -> int:
        """As of a task."""
        if self.task:
            return self.task.remove_done_callback(fn)
        before, self._callbacks = self._callbacks, tuple(one for one in self._callbacks if one[0] != fn)
        return len(before) - len(self._callbacks)

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Go on as a task."""
        self.task = task
        for fn, context in self._callbacks:
            task.add_done_callback(fn, context=context)
        for _ in range(self.cancels):
            task.cancel()

    def end(self) -> None:
        """The handler is done without a task."""
        self._is_over = True
        for fn, context in self._callbacks:
            self._loop.call_soon(fn, self, context=context)


class Resumed(Generator[Any, Any, Any], Coroutine[Any, Any, Any]):
    """What a task runs of a coroutine whose first step is done, and which waits for `first`.

    No generator of the language: a task that is cancelled before its own first step would throw into one that has not begun, which ends it
    without a word to the coroutine. A timeout that is due by then does that.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any, why_cancelled: WhyCancelled, seen: HandlerTask) -> None:
        self._coroutine = coroutine
        self._first = first
        self._begun = False
        self._why_cancelled = why_cancelled
        self.seen = seen
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

    def _step(self, go_on: Callable[[Any], Any], value: Any) -> Any:
        loop, task = self.seen.get_loop(), self.seen.task
        _change_task(loop, task, self.seen)
        try:
            waits_for = go_on(value)
            if self.seen.after_step:
                self.seen.after_step()
            return waits_for
        except (SystemExit, KeyboardInterrupt) as error:
            # Out of a task either would end the loop, and with it everybody else's handlers.
            raise PolicyError(f"the handler raised {type(error).__name__}: {error}").with_traceback(error.__traceback__) from error
        finally:
            _change_task(loop, self.seen, task)


def _change_task(loop: asyncio.AbstractEventLoop, before: Any, after: Any) -> None:
    if before:
        asyncio.tasks._leave_task(loop, before)
    if after:
        asyncio.tasks._enter_task(loop, after)


def start(
    coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, why_cancelled: WhyCancelled = lambda: None
) -> tuple[Any, asyncio.Task[Any] | None]:
    """Run the first step: return its result, or a task that goes on with it. Raise what the coroutine raises.

    `why_cancelled` gives the exception that the coroutine sees instead of `CancelledError`, if there is a reason.
    """
    seen = HandlerTask(coroutine, loop)
    outer = asyncio.current_task(loop)
    _change_task(loop, outer, seen)
    try:
        context = contextvars.copy_context()
        first = context.run(coroutine.send, None)
    except BaseException as error:
        seen.end()
        if isinstance(error, StopIteration):
            return error.value, None
        raise
    finally:
        _change_task(loop, seen, outer)
    resumed = Resumed(coroutine, first, why_cancelled, seen)
    seen.begin(loop.create_task(resumed, name=seen.get_name(), context=context))
    return None, seen.task
