"""Several workers: who receives, and who runs them."""

import ctypes
import platform
import struct
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
            return sum(name.startswith("worker-") and time > 500_000 for name, time in zip(names, times, strict=True))

        for number in range(200):
            call(caller, core, port, f"shared{number}")
        counters = proxy.counters()
        assert counters["calls_answered"] == 200
        assert counters["handed_over"] > 100
        assert busy() == (3 if gather_percent == 0 else 1)


def turn_nanoseconds(thread: int) -> int:
    """Return for how long a thread asks the processor at once, as sched_getattr(2) has it since Linux 6.12."""
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None, use_errno=True).syscall(number, thread, attributes, 48, 0) == 0
    return int(struct.unpack_from("=IIQiIQQQ", attributes)[5])


def test_those_that_answer_calls_need_not_wait_for_the_turn_of_others(local: Local, tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text(
        "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_final()\ndef end(record):\n    pass\n"
    )
    proxy, _, _ = local(workers=2, extra='[media]\nengage = "always"\n[[policy]]\nmodule = "idle"\n')
    assert proxy.process
    own = proxy.process.pid
    named = {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{own}/task").iterdir()}
    workers = [thread for thread, name in named.items() if name.startswith(("worker-", "media-"))]
    assert len(workers) >= 3
    policies = [int(child) for child in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
    assert len(policies) == 1
    turns = {turn_nanoseconds(thread) for thread in (*workers, *policies)}
    assert len(turns) == 1, "none of them cuts another short"
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    # Loads of rules are the Python side's. Kernels before 6.12 know no such thing.
    assert (turns.pop() < turn_nanoseconds(own)) == ((major, minor) >= (6, 12))
