"""One run of the load generator against a target."""

import json
import subprocess
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
        report = self.report
        lost = report["failed"] + report["refused"]
        return (
            lost == 0 and report["retransmissions"] <= 0.0005 * report["attempted"] and report["late_starts"] <= 0.02 * report["attempted"]
        )


def load(target: Target, rate: float, seconds: float, *, scenario: str = "call", hold_milliseconds: int = 0) -> Run:
    """Run `rate` calls a second for `seconds` and return what came of them."""
    tool = str(ROOT / "target/release/edge-load")
    words = [tool, scenario, "--rate", str(rate), "--duration", str(seconds), "--hold-ms", str(hold_milliseconds)]
    before = target.processor_seconds()
    done = subprocess.run(["taskset", "-c", LOAD_CORE, *words], capture_output=True, text=True, check=True)
    spent = target.processor_seconds() - before
    report = json.loads(done.stdout)
    return Run(target.name, rate, seconds, spent / max(report["attempted"], 1) * 1e6, report)
