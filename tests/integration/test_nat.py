"""Runs the tests behind real NATs in a network namespace of their own, which needs no rights of root."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["behind_nat.py", "media_behind_nat.py", "kernel_bans.py"])
def test_behind_nats(name: str, tmp_path: Path) -> None:
    # A folder of its own: two runs of pytest that put away the same old ones get in each other's way.
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'nat'}"]
    line = ["unshare", "-Urn", sys.executable, "-m", "pytest", *options, str(ROOT / "tests/nat" / name)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
