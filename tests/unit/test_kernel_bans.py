"""The way to `nft`, and what its faults do to whoever keeps the kernel in step."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from edgeproxy.config.flood import Kernel
from edgeproxy.events import make
from edgeproxy.server import kernel_bans
from edgeproxy.server.kernel_bans import KernelBans


@contextlib.asynccontextmanager
async def at_work(bans: KernelBans) -> AsyncIterator[None]:
    """Let `bans` keep the kernel in step; what is waited for meanwhile comes within ten seconds."""
    task = asyncio.create_task(bans.run())
    try:
        async with asyncio.timeout(10):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def printed(script: str, *options: str) -> str:
    """Return what `nft` prints where all is well."""
    if script.startswith("list table"):
        return "".join(f"ip saddr @{own} th dport 5060 drop\n" for own in ("all4", "udp4", "all6", "udp6"))
    return '{"nftables": []}' if "list" in options else ""


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
        return printed(script, *options)

    def log(event: str, **more: Any) -> None:
        said.append(f"{event}: {more['values']}")

    async def work() -> None:
        bans = KernelBans(Kernel(enabled=True), [5060], list, log)
        async with at_work(bans):
            while len(said) < 2:
                await asyncio.sleep(0.01)
        assert bans.failures == 1

    monkeypatch.setattr(kernel_bans, "_nft", nft)
    monkeypatch.setattr(kernel_bans, "ROUND_SECONDS", 0.01)
    asyncio.run(work())
    assert "RuntimeError: out of order" in said[0]
    assert said[1].startswith("banned sources are dropped in the kernel")


def test_a_longer_ban_of_another_kind_and_a_source_that_was_lost_reach_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    said: list[str] = []
    lost = flushed = False
    standing = [("192.0.2.7", 0, 600, "flood", "udp")]

    async def nft(script: str, *options: str) -> str:
        asked.append(script)
        if script.startswith("get element") and lost:
            raise kernel_bans.NftError("Could not process rule: No such file or directory")
        return "" if flushed and script.startswith("list table") else printed(script, *options)

    async def work() -> None:
        nonlocal lost, flushed
        settings = Kernel(enabled=True, check_seconds=1)
        bans = KernelBans(settings, [5060], lambda: standing, lambda event, **_: said.append(event))
        async with at_work(bans):
            while not bans.sources:
                await asyncio.sleep(0.01)
            assert "add element inet edgeproxy udp4 { 192.0.2.7 timeout 600s }" in asked[-1]
            bans.take(make("E_BAN_ADDED", 0, {"ip": "192.0.2.7", "seconds": 7_200, "reason": "by an operator", "proto": ""}))
            while not any("7200s" in script for script in asked):
                await asyncio.sleep(0.01)
            changed = next(script for script in asked if "7200s" in script).splitlines()
            assert changed[1:] == [
                "delete element inet edgeproxy udp4 { 192.0.2.7 }",
                "add element inet edgeproxy all4 { 192.0.2.7 timeout 7200s }",
            ]
            while not any(script == "get element inet edgeproxy all4 { 192.0.2.7 }\n" for script in asked):
                await asyncio.sleep(0.01)
            assert len(said) == 1, "what is there is left alone"
            lost = True
            while len(said) < 3:
                await asyncio.sleep(0.01)
            # Or somebody took its rules away, and left its sets.
            lost, flushed = False, True
            while len(said) < 5:
                await asyncio.sleep(0.01)
        anew = ["the table of banned sources is not as it was made, it is made anew", "banned sources are dropped in the kernel"]
        assert said[1:5] == anew * 2

    monkeypatch.setattr(kernel_bans, "_nft", nft)
    monkeypatch.setattr(kernel_bans, "ROUND_SECONDS", 0.05)
    asyncio.run(work())
