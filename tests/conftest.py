"""Tests run beside each other; those marked `alone` measure how long something takes, or fill a processor, and have the machine for themselves."""

import fcntl
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _turn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    # That of all processes.
    folder = tmp_path_factory.getbasetemp().parent
    with (folder / "gate").open("w") as gate, (folder / "turn").open("w") as turn:
        # Whoever waits holds the gate: those that may run beside each other would let it wait for ever.
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX if request.node.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
