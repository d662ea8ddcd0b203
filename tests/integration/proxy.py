"""A real edgeproxy process on free ports in a temporary folder."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

EDGEPROXY = str(Path(sys.executable).with_name("edgeproxy"))


def _ports() -> Iterator[int]:
    """Give out ports that the kernel gives to nobody who asks for any (ip_local_port_range), each process of tests its own, in turn.

    Between its choice and its use nothing else may take one.
    """
    of_process = 2_000
    first = 10_000 + of_process * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4)
    turn = random.randrange(of_process)  # noqa: S311 - so that two runs beside each other do not go in step
    while True:
        # Some take the port behind theirs, too (baresip for TLS, RTP for RTCP).
        turn = (turn + 3) % of_process
        yield first + turn


_NEXT = _ports()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free for UDP and TCP at `host`, as is the one behind it: a server that lives long may have that from before."""
    return next(port for port in itertools.islice(_NEXT, 500) if _is_free(host, port) and _is_free(host, port + 1))


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp, socket.socket(family, socket.SOCK_STREAM) as tcp:
        try:
            udp.bind((host, port))
            tcp.bind((host, port))
        except OSError:
            return False
    return True


def is_bound(port: int) -> bool:
    """Whether somebody receives datagrams at this port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def wait_for(holds: Callable[[], object], seconds: float = 10) -> None:
    """Ask again until it holds; fail where it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.05)


class Proxy:
    """One process; `log` has its log lines, `records` its call records."""

    def __init__(
        self, folder: Path, toml: str, *, name: str = "edge", environment: dict[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self.file = folder / f"{name}.toml"
        self.state = folder / f"{name}-state"
        self.file.write_text(toml.replace('"STATE"', f'"{self.state}"'))
        self._log_path = folder / f"{name}.log"
        self._environment = environment
        self._prefix = prefix
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> "Proxy":
        if self.process and self.process.stdout:
            self.process.stdout.close()
        with self._log_path.open("a") as log:
            self.process = subprocess.Popen(
                [*self._prefix, EDGEPROXY, "run", str(self.file)], stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            self.process.wait(5)
            raise RuntimeError(f"not ready: {self._log_path.read_text()}")
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self, seconds: float = 20) -> int:
        """Send SIGTERM, then again; return the exit code."""
        if not self.process:
            return 0
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(1.5)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        if self.process.stdout:
            self.process.stdout.close()
        return code

    @property
    def log(self) -> list[dict[str, Any]]:
        # The last line may be under way.
        whole = self._log_path.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def told(self, event: str, count: int = 1, seconds: float = 3) -> list[dict[str, Any]]:
        """Return the parameters of an event that the log has, waiting until there are `count`."""
        end = time.monotonic() + seconds
        while True:
            found = [line["parameters"] for line in self.log if line["event"] == event]
            if len(found) >= count or time.monotonic() > end:
                return found
            time.sleep(0.05)

    def counters(self) -> dict[str, int]:
        """Return the counters as of now."""
        seen = sum(line["event"] == "counters" for line in self.log)
        self.signal(signal.SIGUSR1)
        for _ in range(100):
            lines = [line for line in self.log if line["event"] == "counters"]
            if len(lines) > seen:
                return {key: value for key, value in lines[-1].items() if isinstance(value, int)}
            time.sleep(0.05)
        raise RuntimeError("no counters")

    def memory_bytes(self) -> int:
        """Return the proportional set size."""
        assert self.process
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))

    def records(self, count: int = 1, seconds: float = 3) -> list[dict[str, Any]]:
        """Return the call records, waiting until there are `count`."""
        path = self.state / "records" / "calls.jsonl"
        end = time.monotonic() + seconds
        while True:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count or time.monotonic() > end:
                return [json.loads(line) for line in lines]
            time.sleep(0.05)


def manage(proxy: Proxy, *words: str) -> tuple[int, str]:
    """Run a management command; return its exit code and what it said."""
    environment = {**os.environ, "EDGEPROXY_CONTROL": str(proxy.state / "control.sock")}
    done = subprocess.run([EDGEPROXY, *words], capture_output=True, text=True, env=environment, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr
