"""The number plans of the world, as public metadata knows them, with four carriers each."""

import asyncio
import random
import sqlite3
from pathlib import Path

from phonenumbers.carrierdata import CARRIER_DATA
from phonenumbers.geodata import GEOCODE_DATA

from edgeproxy import _native
from edgeproxy.server.route_load import read_source
from edgeproxy.storage import DEFAULT_TABLES, Source, open_engine, upgrade

CARRIERS = 4


async def _read(url: str) -> _native.RouteTables:
    load = _native.RouteLoad([""])
    engine = open_engine(url)
    await read_source(engine, load, Source("", url, DEFAULT_TABLES))
    await engine.dispose()
    tables, faults, count = load.finish()
    assert (faults, count) == ([], 0)
    return tables


def test_every_real_prefix_leads_to_its_cheapest_carrier(tmp_path: Path) -> None:
    prefixes = sorted({*GEOCODE_DATA, *CARRIER_DATA})
    assert len(prefixes) > 300_000
    url = f"sqlite:///{tmp_path / 'rules.db'}"
    asyncio.run(upgrade(url))
    draw = random.Random(1)  # noqa: S311 - rules are no secret
    # The priority says which of the four is the cheapest for a prefix.
    cheapest = {prefix: draw.randrange(CARRIERS) for prefix in prefixes}
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        connection.executemany("INSERT INTO dr_gateways (gwid, address) VALUES (?, '192.0.2.1')", [(f"gw{n}",) for n in range(CARRIERS)])
        connection.executemany(
            "INSERT INTO dr_carriers (carrierid, gwlist) VALUES (?, ?)",
            [(f"c{n}", f"gw{n},gw{(n + 1) % CARRIERS}") for n in range(CARRIERS)],
        )
        rows = (
            (place * CARRIERS + carrier + 1, prefix, 10 if cheapest[prefix] == carrier else carrier, f"#c{carrier}")
            for place, prefix in enumerate(prefixes)
            for carrier in range(CARRIERS)
        )
        connection.executemany("INSERT INTO dr_rules (ruleid, groupid, prefix, priority, gwlist) VALUES (?, '0', ?, ?, ?)", rows)
    connection.close()

    tables = asyncio.run(_read(url))

    assert tables.sizes()[0][1] == len(prefixes) * CARRIERS
    places = {prefix: place for place, prefix in enumerate(prefixes)}
    numbers = [draw.choice(prefixes) + f"{draw.randrange(10**5):05}" for _ in range(10_000)]
    for number in [*numbers, *(f"{draw.randrange(10**11):011}" for _ in range(10_000))]:
        longest = next((number[:length] for length in range(len(number), 0, -1) if number[:length] in places), None)
        wanted = None if longest is None else places[longest] * CARRIERS + cheapest[longest] + 1
        assert tables.find("", 0, number, 0) == wanted, number
