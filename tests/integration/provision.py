"""Rules and gateways for proxies under test."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeproxy.storage import upgrade


def provision(
    file: Path,
    gateways: Mapping[str, str],
    rules: Sequence[tuple[str, str, str]],
    carriers: Mapping[str, str] | None = None,
    *,
    probe_mode: int = 0,
) -> dict[str, str]:
    """Put gateways (name: address), rules (group, prefix, list) and carriers (name: list) into a SQLite file, in place of those there.

    Return the environment by which a proxy finds it.
    """
    asyncio.run(upgrade(f"sqlite:///{file}"))
    with sqlite3.connect(file) as connection:
        for table in ("dr_gateways", "dr_carriers", "dr_rules"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        connection.executemany(
            "INSERT INTO dr_gateways (gwid, address, probe_mode) VALUES (?, ?, ?)", [(*row, probe_mode) for row in gateways.items()]
        )
        connection.executemany("INSERT INTO dr_carriers (carrierid, gwlist) VALUES (?, ?)", (carriers or {}).items())
        connection.executemany("INSERT INTO dr_rules (groupid, prefix, gwlist) VALUES (?, ?, ?)", rules)
    connection.close()
    return {"EDGEPROXY_DATABASE": f"sqlite:///{file}"}
