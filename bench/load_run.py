"""One run of the load generator against a target."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from target import LOAD_CORE, ROOT, Target


@dataclass
class Run:
    """What one run showed."""

    target: str
    rate: float
    seconds: float
    microseconds_per_call: float
    report: dict[str, Any]

    @property
    def clean(self) -> bool:
        """Whether no call failed or was refused and hardly anything was sent twice."""
        return not self.fault

    @property
    def fault(self) -> str:
        """What kept the run from being clean; empty where it was."""
        report = self.report
        allowed = {
            "failed": 0,
            "unanswered": 0,
            "refused": 0,
            "retransmissions": 0.0005 * report["attempted"],
            "late_starts": 0.02 * report["attempted"],
        }
        return ", ".join(f"{key} {report[key]}" for key, most in allowed.items() if report[key] > most)


def load(  # noqa: PLR0913
    target: Target,
    rate: float,
    seconds: float,
    *,
    scenario: str = "call",
    hold_milliseconds: int = 0,
    transport: str = "udp",
    cores: str = LOAD_CORE,
    digits: int = 0,
    words: Sequence[str] = (),
) -> Run:
    """Run `rate` calls a second for `seconds` and return what came of them."""
    tool = str(ROOT / "target/release/edge-load")
    line = [
        tool,
        scenario,
        "--rate",
        str(rate),
        "--duration",
        str(seconds),
        "--hold-ms",
        str(hold_milliseconds),
        "--transport",
        transport,
        "--digits",
        str(digits),
        *words,
    ]
    before = target.processor_seconds()
    done = subprocess.run(["taskset", "-c", cores, *line], capture_output=True, text=True, check=True)
    spent = target.processor_seconds() - before
    report = json.loads(done.stdout)
    return Run(target.name, rate, seconds, spent / max(report["attempted"], 1) * 1e6, report)
