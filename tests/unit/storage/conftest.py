"""Databases to read from: one of each kind, empty for each test."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from edgeproxy.storage.url import driver_url
from tests.databases import mariadb, postgresql


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        yield {"postgresql": stack.enter_context(postgresql()), "mysql": stack.enter_context(mariadb())}


def run(url: str, *statements: str) -> None:
    """Run statements, each by itself."""

    async def work() -> None:
        engine = create_async_engine(driver_url(url), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(work())


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("servers")[request.param]
    name = f"test_{abs(hash(str(tmp_path)))}"
    run(f"{url}postgres" if request.param == "postgresql" else url, f"CREATE DATABASE {name}")
    return f"{url}{name}"
