"""The way to `nft`, and what its faults do to whoever keeps the kernel in step."""

import asyncio
import contextlib
from typing import Any

import pytest
import uvloop

from edgeproxy.config.flood import Kernel
from edgeproxy.server import kernel_bans
from edgeproxy.server.kernel_bans import KernelBans


def test_a_program_that_ends_before_it_reads_is_no_fault() -> None:
    async def work() -> None:
        for number in range(100):
            script = "" if number % 2 else "\n" * 100_000
            assert (await kernel_bans._nft(script, "--version")).startswith("nftables")

    uvloop.run(work())


def test_an_error_that_nobody_expects_ends_one_round_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    asked: list[str] = []

    async def nft(script: str, *options: str) -> str:
        asked.append(script)
        if len(asked) == 1:
            raise RuntimeError("out of order")
        return '{"nftables": []}' if "list" in options else ""

    def log(event: str, **more: Any) -> None:
        said.append(f"{event}: {more['values']}")

    async def work() -> None:
        bans = KernelBans(Kernel(enabled=True), [5060], list, log)
        task = asyncio.create_task(bans.run())
        async with asyncio.timeout(5):
            while len(said) < 2:
                await asyncio.sleep(0.01)
        assert bans.failures == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    monkeypatch.setattr(kernel_bans, "_nft", nft)
    monkeypatch.setattr(kernel_bans, "ROUND_SECONDS", 0.01)
    asyncio.run(work())
    assert "RuntimeError: out of order" in said[0]
    assert said[1].startswith("banned sources are dropped in the kernel")
