"""RTP: the highest rate without loss, what a packet costs, how long it takes, what idle streams take, and what aborted calls leave."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from target import LOAD_CORE, ROOT, Target

STREAMS = 500
FIRST_PORT = 20_000
LINGER = 45
"""Seconds until transactions of aborted calls are over and memory is read."""
_LOAD = str(ROOT / "target/release/edge-load")
_FLOORS = str(ROOT / "target/release/floors")
_MEDIA = ["127.0.0.1:6080", "127.0.0.1:6070"]
_EDGEPROXY = [str(Path(sys.executable).with_name("edgeproxy")), "run"]
_NG_PORT = 22_222

COMMANDS = {
    "relay-epoll": ([_FLOORS, "relay", "epoll", str(FIRST_PORT), str(STREAMS), *_MEDIA], f"ports:{FIRST_PORT}"),
    "relay-uring": ([_FLOORS, "relay", "uring", str(FIRST_PORT), str(STREAMS), *_MEDIA], f"ports:{FIRST_PORT}"),
    "edgeproxy": ([*_EDGEPROXY, str(ROOT / "bench/load/media.toml")], "sip"),
    "rtpengine": (
        [
            "rtpengine",
            "--config-file=none",
            "--foreground",
            "--table=-1",
            "--interface=127.0.0.1",
            f"--listen-ng=127.0.0.1:{_NG_PORT}",
            "--port-min=30000",
            "--port-max=39999",
            "--log-level=3",
            "--log-stderr",
            "--num-threads=1",
        ],
        f"ng:127.0.0.1:{_NG_PORT}",
    ),
}


def _exchange(target: Target, setup: str, rate: float, seconds: float, *words: str) -> dict[str, Any]:
    """Send for so long; count the processor time from the first packet to the last only."""
    line = ["taskset", "-c", LOAD_CORE, _LOAD, "media", "--setup", setup, "--rate", str(rate), "--duration", str(seconds)]
    with subprocess.Popen([*line, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:
        marks = []
        for text in load.stderr or ():
            if text.strip() not in {"begun", "ended"}:
                raise RuntimeError(text)
            marks.append((target.processor_seconds(), target.memory_bytes(), time.monotonic()))
        report: dict[str, Any] = json.loads(load.stdout.read() if load.stdout else "")
    (before, _, start), (after, memory, end) = marks
    packets = max(report["attempted"], 1)
    return {
        "target": target.name,
        "rate": rate,
        "cost": (after - before) / packets * 1e6,
        "share": (after - before) / (end - start),
        "memory": memory,
        **report,
    }


def _run(name: str, rate: float, seconds: float) -> dict[str, Any]:
    command, setup = COMMANDS[name]
    with Target(name, command=command) as target:
        return _exchange(target, setup, rate, seconds, "--streams", str(STREAMS))


def _highest(name: str) -> int:
    """Return the highest rate, in steps of 20,000 packets a second, that was without loss twice."""
    best = 0
    for rate in range(80_000, 240_000, 20_000):
        runs = [_run(name, rate, 3) for _ in range(2)]
        lost, late = (min(run[key] for run in runs) for key in ("lost", "late"))
        print(f"{name} {rate}/s: {lost} lost, {late} sent late", flush=True)
        # A generator that cannot keep up offers less than it says.
        if lost or late > rate * 3 / 10:
            break
        best = rate
    return best


def relayed(seconds: int, rounds: int) -> dict[str, Any]:
    """At 70 and 35 per cent of what the better bare relay can do without loss: all of them, in turns."""
    highest = {name: _highest(name) for name in ("relay-epoll", "relay-uring")}
    top = max(highest.values())
    rows = []
    for share in (0.7, 0.35):
        for number in range(rounds):
            for name in COMMANDS:
                row = _run(name, top * share, seconds) | {"round": number, "of_highest": share}
                rows.append(row)
                print(
                    f"{name:12} {row['rate']:.0f}/s {row['cost']:.2f} us, {row['lost']} lost, p99 {row['delay_p99_microseconds']} us",
                    flush=True,
                )
    return {"highest": highest, "rows": rows}


@contextmanager
def _with_ports(first: int, last: int, *, engage: str = "always") -> Iterator[list[str]]:
    """How the proxy is started with so many ports and metrics at port 9199."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "media.toml"
        text = (ROOT / "bench/load/media.toml").read_text()
        text = text.replace("[install]", f"[install]\nmedia_ports = [{first}, {last}]", 1)
        text = text.replace('engage = "always"', f'engage = "{engage}"')
        file.write_text(text + 'timeout_seconds = 0\n[api]\nmetrics_listen = "127.0.0.1:9199"\n')
        yield [*_EDGEPROXY, str(file)]


def _metric(name: str) -> int:
    with urlopen("http://127.0.0.1:9199/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return int(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"edgeproxy_{name}{{")))


def idle(streams: int, seconds: int) -> dict[str, Any]:
    """Streams without a packet: what they take of a processor and of memory, beside as many calls whose media is not relayed."""
    # A stream is four sockets, and not every machine lets a process have forty thousand.
    streams = min(streams, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 4 - 1_000)
    found: dict[str, Any] = {"streams": streams, "seconds": seconds}
    for engage in ("always", "never"):
        ports = (16_384, min(16_384 + 4 * streams + 3_000, 65_535))
        with _with_ports(*ports, engage=engage) as command, Target("edgeproxy", command=command) as target:
            empty = target.memory_bytes()
            run = _exchange(target, "sip", 100, 0.1, "--streams", str(streams), "--hold-ms", str(seconds * 1_000))
        found[engage] = {"share": run["share"], "bytes_each": (run["memory"] - empty) / streams}
        print(engage, found[engage], flush=True)
    return found


def aborted(calls: int) -> dict[str, Any]:
    """Calls given up at every step of offer and answer: ports, descriptors and memory before and after."""
    with _with_ports(30_000, 39_999) as command, Target("edgeproxy", command=command) as target:

        def look() -> dict[str, int]:
            fds = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in target.pids())
            return {
                "descriptors": fds,
                "memory": target.memory_bytes(),
                **{key: _metric(key) for key in ("media_port_pairs_free", "media_sessions")},
            }

        line = ["taskset", "-c", LOAD_CORE, _LOAD, "media", "--setup", "aborted", "--streams"]
        # What a first load leaves, pools of memory among it, is no leak.
        subprocess.run([*line, str(calls // 4)], check=True, capture_output=True)
        time.sleep(LINGER)
        before = look()
        subprocess.run([*line, str(calls)], check=True, capture_output=True)
        time.sleep(LINGER)
        return {"calls": calls, "before": before, "after": look()}
