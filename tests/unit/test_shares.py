"""Shared limits whose store's driver makes a failure of every cancellation."""

import asyncio
import os
from typing import Any

from edgeproxy.config import load_text
from edgeproxy.server.shares import Shares
from edgeproxy.shared.store import StoreFailed


class Stubborn:
    """A store that never answers and takes no cancellation for one."""

    def __getattr__(self, name: str) -> Any:
        async def ask(*_: object, **__: object) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise StoreFailed(f"{name}: interrupted") from None

        return ask


class Idle:
    """An engine that asks nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def share_descriptor(self) -> int:
        return self._descriptor

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: []


def test_their_end_comes_whatever_the_driver_makes_of_it() -> None:
    text = '[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[shared]\nurl = "redis://127.0.0.1:1/0"\ndeadline_milliseconds = 200\n'
    terms = load_text(text, "edge.toml").config.shared
    assert terms
    reader, writer = os.pipe()

    async def work() -> None:
        shares = Shares(Idle(reader), terms, Stubborn(), "node", lambda *_, **__: None, lambda *_: None)  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await shares.stop()

    asyncio.run(work())
    os.close(reader)
    os.close(writer)
