"""The crossing between worker and policy process, and a handler by itself: what bench/python prints, as data."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from target import ROOT


def crossing() -> dict[str, float]:
    """Return medians in microseconds: a request of a batch, for a function and a coroutine; one run of a handler."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crossing.json"
        line = [sys.executable, "-m", "pytest", "bench/python", "-q", "--benchmark-only", f"--benchmark-json={file}"]
        subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
        found = {}
        for row in json.loads(file.read_text())["benchmarks"]:
            each = row["stats"]["median"] * 1e6
            found[row["param"]] = row["extra_info"].get("microseconds_per_request", round(each, 2))
    return found
