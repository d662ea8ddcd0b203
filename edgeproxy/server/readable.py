"""Waits for a native queue to have something, so that a quiet proxy does not wake to look."""

import asyncio


async def readable(descriptor: int) -> None:
    """Return once `descriptor` is readable; it is watched no longer, and whatever made it so is for the caller to take."""
    loop = asyncio.get_running_loop()
    rung = asyncio.Event()
    loop.add_reader(descriptor, rung.set)
    try:
        await rung.wait()
    finally:
        loop.remove_reader(descriptor)
