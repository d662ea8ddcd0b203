"""A proxy under load: started on one processor, its processor time and memory read from the kernel."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROXY_CORE, LOAD_CORE = "0", "1"


def kamailio(configuration: Path) -> list[str]:
    """Return how Kamailio is started; its default allocator is a debugging one, three times as slow."""
    return ["kamailio", "-f", str(configuration), "-DD", "-E", "-m", "2048", "-M", "64", "-x", "tlsf", "-X", "tlsf"]


COMMANDS = {
    "floor": [str(ROOT / "target/release/floors"), "udp", "127.0.0.1:5060", "127.0.0.1:5080", "127.0.0.1:5070"],
    "floor-tcp": [str(ROOT / "target/release/floors"), "tcp", "127.0.0.1:5060", "127.0.0.1:5070"],
    "edgeproxy": [str(Path(sys.executable).with_name("edgeproxy")), "run", str(ROOT / "bench/load/relay.toml")],
    "edgeproxy-python": [str(Path(sys.executable).with_name("edgeproxy")), "run", str(ROOT / "bench/load/relay_python.toml")],
    "kamailio": kamailio(ROOT / "bench/load/kamailio.cfg"),
    "kamailio-python": kamailio(ROOT / "bench/load/kamailio_python.cfg"),
}


class ProcessorShare:
    """A group of processes that gets a part of one processor, by the kernel's cgroups of either version; needs root."""

    PERIOD = 10_000

    def __init__(self, share: float) -> None:
        root = Path("/sys/fs/cgroup")
        old = (root / "cpu").is_dir()
        self._folder = root / ("cpu" if old else "") / f"edgeproxy-bench-{os.getpid()}"
        self._folder.mkdir()
        quota = int(share * self.PERIOD)
        if old:
            (self._folder / "cpu.cfs_period_us").write_text(str(self.PERIOD))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self._folder / "cpu.max").write_text(f"{quota} {self.PERIOD}")

    def add(self, pid: int) -> None:
        """Put a process with all its threads into the group."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the group, which must be empty."""
        self._folder.rmdir()


class Target:
    """One running proxy with all its processes."""

    def __init__(self, name: str, *, cores: str = PROXY_CORE, command: list[str] | None = None, share: float = 1.0) -> None:
        self.name = name
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        self._limit = ProcessorShare(share) if share < 1 else None
        line = ["taskset", "-c", cores, *(command or COMMANDS[name])]
        if name == "kamailio-python":
            # Its configuration can name the script by an absolute path only.
            self._configuration = tempfile.NamedTemporaryFile("w", suffix=".cfg")  # noqa: SIM115
            text = (ROOT / "bench/load/kamailio_python.cfg").read_text()
            self._configuration.write(text.replace("KEMI_SCRIPT", str(ROOT / "bench/load/kamailio_python.py")))
            self._configuration.flush()
            line[line.index("-f") + 1] = self._configuration.name
        self.process = subprocess.Popen(line, stdout=self._out, stderr=self._out, start_new_session=True)
        time.sleep(2.5 if "kamailio" in name or "python" in name else 1.5)
        if self.process.poll() is not None:
            self._out.seek(0)
            raise RuntimeError(f"{name} does not start: {self._out.read().decode(errors='replace')}")
        if self._limit:
            for pid in self.pids():
                self._limit.add(pid)

    def pids(self) -> list[int]:
        """Return every process of this target: those of its session."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                found.append(int(path.parent.name))
        return found

    def processor_seconds(self) -> float:
        """Return processor time so far, of all threads of all processes, in nanosecond resolution."""
        return sum(self.processor_seconds_by_process().values())

    def processor_seconds_by_process(self) -> dict[int, float]:
        """Return the same for each process."""
        found: dict[int, float] = {}
        for pid in self.pids():
            total = 0
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    total += int(path.read_text().split()[0])
                except OSError:
                    continue
            found[pid] = total / 1e9
        return found

    def memory_bytes(self) -> int:
        """Return the proportional set size of all processes."""
        return self._memory("Pss:")

    def anonymous_bytes(self) -> int:
        """Return what no file and no shared queue stands behind, of all processes: what may leak."""
        return self._memory("Anonymous:")

    def _memory(self, field: str) -> int:
        total = 0
        for pid in self.pids():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(field)), 0)
        return total

    def stop(self) -> None:
        """End it, and what it started."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(4)
                break
            except subprocess.TimeoutExpired:
                continue
        self._out.close()
        time.sleep(0.5)
        if self._limit:
            self._limit.remove()

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
