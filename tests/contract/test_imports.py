"""What a process loads: seconds of each start and megabytes of each policy process are in libraries that it does not need."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("edgeproxy.cli.main", "aiohttp structlog sqlalchemy alembic"),
        ("edgeproxy.cli.manage", "structlog sqlalchemy alembic"),
        # A configuration that names no database.
        ("edgeproxy.cli.serve", "sqlalchemy alembic dateutil"),
        ("edgeproxy.server.policy_process", "aiohttp sqlalchemy alembic dateutil edgeproxy.server.control"),
        # A policy that asks a database makes none.
        ("edgeproxy.policy.sql", "alembic aiohttp"),
    ],
)
def test_only_what_is_needed_is_loaded(module: str, without: str) -> None:
    look = f"import sys, {module}; print(*[name for name in {without.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
