"""Runs SIPp processes and says what became of their calls."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Sipp:
    """One SIPp process."""

    scenario: Path
    address: str
    port: int
    remote: str
    calls: int = 1
    rate: int = 10
    transport: str = "u1"
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> "Sipp":
        """Start it; messages and errors go to files beside the scenario."""
        command = [
            "sipp",
            self.remote,
            *("-sf", str(self.scenario)),
            *("-i", self.address),
            *("-p", str(self.port)),
            *("-m", str(self.calls)),
            *("-r", str(self.rate)),
            *("-t", self.transport),
            *("-s", "service"),
            "-nostdin",
            "-trace_err",
            *("-error_file", str(self.scenario.with_suffix(".errors"))),
            "-trace_msg",
            *("-message_file", str(self.scenario.with_suffix(".messages"))),
            *self.options,
        ]
        with self.scenario.with_suffix(".out").open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        return self

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end and return its exit code: 0 where every call went as the scenario says."""
        assert self.process
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            self.stop()

    def stop(self) -> None:
        """End it."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def report(self) -> str:
        """Return what it complained about."""
        errors = self.scenario.with_suffix(".errors")
        messages = self.scenario.with_suffix(".messages")
        return "\n".join(path.read_text(errors="replace")[-6_000:] for path in (errors, messages) if path.exists())
