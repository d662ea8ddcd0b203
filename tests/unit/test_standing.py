"""Work that never ends goes on after a fault, and faults that nobody takes are told."""

import asyncio

import pytest

from edgeproxy.server import standing
from edgeproxy.server.standing import Standing


def test_work_goes_on_after_a_fault_and_each_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "PAUSE_SECONDS", 0.0)
    told: list[tuple[str, dict[str, str]]] = []
    rounds: list[int] = []

    async def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) < 3:
            raise ValueError(f"round {len(rounds)}")
        await asyncio.sleep(3_600)

    async def serve() -> int:
        server = Standing(lambda text, *, level, values: told.append((f"{level} {text}", values)))
        server.watch(asyncio.get_running_loop())
        server.run(work)
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        for _ in range(20):
            await asyncio.sleep(0)
        server.stop()
        return server.faults

    assert asyncio.run(serve()) == 3
    assert len(rounds) == 3
    assert sorted(values["error"] for _, values in told)[0].startswith("ValueError: round 1")
    assert {text for text, _ in told} == {"error fault in the server"}
    assert any("ZeroDivisionError" in values["error"] for _, values in told)
