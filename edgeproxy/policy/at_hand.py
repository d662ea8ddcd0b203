"""The call whose handler runs, for lines of the log about what it prints."""

import asyncio

from edgeproxy.policy.call import Call
from edgeproxy.policy.step import HandlerTask

call: Call | None = None
"""That of a handler's first step; its task knows its own later."""


def named() -> dict[str, object]:
    """Return what a line says of the call that the code at hand runs for: nothing in threads, tasks of its own, and where there is none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        # Another thread, whatever runs in this one.
        return {}
    found = call or (task.call if isinstance(task, HandlerTask) else None)
    return {"call_id": found.call_id, "trace_id": found.trace_id} if isinstance(found, Call) else {}
