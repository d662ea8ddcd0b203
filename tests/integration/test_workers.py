"""Several workers: who receives, and who runs them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent import Agent, call
from tests.integration.proxy import Proxy, free_port

Local = Callable[..., tuple[Proxy, int, int]]


def test_a_listener_of_some_workers_serves_calls_of_all(start_proxy: Callable[..., Proxy]) -> None:
    with Agent() as caller, Agent() as core:
        outside, inside = free_port(), free_port()
        proxy = start_proxy(f"""
[install]
workers = 3
state_directory = "STATE"
[install.listener.outside]
address = "udp:127.0.0.1:{outside}"
workers = [1]
[install.listener.inside]
address = "udp:127.0.0.1:{inside}"
workers = [0, 2]
[peer.core]
kind = "core"
match = ["127.0.0.1:{core.port}"]
to = ["sip:127.0.0.1:{core.port}"]
listener = "inside"
[peer.local]
kind = "trusted"
match = ["127.0.0.0/8"]
[tuning]
gather_percent = 0
""")
        assert proxy.process
        inodes = {
            line.split()[9] for line in Path(f"/proc/{proxy.process.pid}/net/udp").read_text().splitlines() if f":{outside:04X}" in line
        }
        assert len(inodes) == 1, "one socket where one worker receives"
        for number in range(12):
            call(caller, core, outside, f"some{number}")
        assert proxy.counters()["calls_answered"] == 12


@pytest.mark.parametrize("gather_percent", [0, 60])
def test_workers_on_one_thread_and_on_several_serve_alike(local: Local, gather_percent: int) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, workers=3, extra=f"[tuning]\ngather_percent = {gather_percent}")
        assert proxy.process
        threads = Path(f"/proc/{proxy.process.pid}/task")

        def busy() -> int:
            names = [(task / "comm").read_text().strip() for task in threads.iterdir()]
            times = [int((task / "schedstat").read_text().split()[0]) for task in threads.iterdir()]
            return sum(name.startswith("worker-") and time > 2_000_000 for name, time in zip(names, times, strict=True))

        for number in range(200):
            call(caller, core, port, f"shared{number}")
        counters = proxy.counters()
        assert counters["calls_answered"] == 200
        assert counters["handed_over"] > 100
        assert busy() == (3 if gather_percent == 0 else 1)
