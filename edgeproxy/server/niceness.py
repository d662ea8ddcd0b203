"""How much processor time the server's Python side leaves to the workers: their calls must not wait for a load of rules."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor


def step_back(nice: int) -> None:
    """Let the calling thread, and threads that it starts, wait for the workers' where both want a processor."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(nice, os.nice(0)))


def serve_behind_workers(nice: int) -> None:
    """Let the running loop's work in threads do the same, whenever its threads were started."""
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(thread_name_prefix="server", initializer=step_back, initargs=(nice,))
    )
