"""Long work: memory and calls after hours of good and bad input. `make soak` sets SOAK_SECONDS."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.agent import Agent, answer, invite
from tests.integration.mutation import mutated
from tests.integration.proxy import Proxy

ROOT = Path(__file__).parent.parent.parent
SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
Local = Callable[..., tuple[Proxy, int, int]]


def _settled(proxy: Proxy) -> int:
    """Return the memory once nothing is under way."""
    end = time.monotonic() + 120
    while proxy.counters()["transactions"] and time.monotonic() < end:
        time.sleep(2)
    # Free memory is given back every ten seconds.
    time.sleep(12)
    return proxy.memory_bytes()


def _send_stream(messages: list[bytes], port: int) -> None:
    """Send each message on a connection of its own and never read."""
    for message in messages:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(message)


def _mutate(proxy: Proxy, port: int, core: Agent, seed: int, count: int) -> None:
    with Agent() as caller:
        extra = "Route: <sip:127.0.0.1;lr>\r\nContact: <sip:x@y>\r\n"
        base = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", extra=extra).encode()
        for number, message in enumerate(mutated(base, count, seed)):
            caller.send(message, port)
            if number % 500 == 0:
                time.sleep(0.02)
                print(f"\rmutated messages: {number}", end="", flush=True)
        _send_stream(list(mutated(base, count // 100, seed + 1)), port)
    assert proxy.counters()["panics"] == 0


def test_100_000_mutated_messages_leave_no_trace(local: Local) -> None:
    with Agent() as core:
        proxy, port, _ = local(core=core.port)
        _mutate(proxy, port, core, 1, 100_000)
        before = _settled(proxy)
        _mutate(proxy, port, core, 2, 100_000)
        after = _settled(proxy)
        with Agent() as caller:
            caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="last", branch="last"), port)
            request = core.receive_until("INVITE", 10, having="Call-ID: last\r\n")
            core.send(answer(request, "200 OK"), port)
            assert caller.receive_until("SIP/2.0 200")
        assert after <= before * 1.05, (before, after)


def test_steady_load_keeps_memory_flat_and_fails_no_call(local: Local) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        core, caller = probe.getsockname()[1], probe.getsockname()[1] + 1
    proxy, port, _ = local(core=core)
    tool = str(ROOT / "target/release/edge-load")
    sizes = []
    for _ in range(3):
        words = ["--target", f"127.0.0.1:{port}", "--caller", f"127.0.0.1:{caller}", "--callee", f"127.0.0.1:{core}"]
        line = [tool, "call", *words, "--rate", "500", "--duration", str(SECONDS / 3)]
        report = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        assert report["failed"] == report["refused"] == 0, report
        sizes.append(_settled(proxy))
        print(f"steady load: {report['completed']} calls, {sizes[-1] >> 10} KiB afterwards", flush=True)
    assert sizes[2] <= sizes[0] * 1.05, sizes
    assert proxy.counters()["calls"] == 0
