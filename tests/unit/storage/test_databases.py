"""SQLite, PostgreSQL and MariaDB alike: made, migrated, read, filled and emptied as CSV; those of OpenSIPS read as they are."""

import asyncio
import csv
import errno
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from edgeproxy import _native
from edgeproxy.errors import StorageError
from edgeproxy.server.route_load import read_source
from edgeproxy.server.row_judge import judge
from edgeproxy.storage import (
    DEFAULT_TABLES,
    Keyless,
    RowBlock,
    Source,
    Standing,
    check_database,
    lacking,
    migrations,
    open_engine,
    prepare,
    read_partitions,
    read_rows,
    shown,
    upgrade,
)
from edgeproxy.storage.database import revisions
from edgeproxy.storage.schema import metadata
from edgeproxy.storage.transfer import Imported, export_rows, import_rows
from tests.unit.storage.conftest import run

GATEWAYS = 'gwid,address,strip,pri_prefix,attrs,probe_mode,socket\r\na,192.0.2.1,0,,"one,two",2,\r\nb,sip:gw.example.net:5070,2,00,ü,0,udp:192.0.2.9:5060\r\n'
CARRIERS = 'carrierid,gwlist,sort_alg\r\none,"a=20,b=80",W\r\n'
PROFILES = "id,profile_name,crit_threshold_asr,warn_penalty_pdd\r\n1,usual,0.25,0.5\r\n"
RULES = 'ruleid,groupid,prefix,timerec,priority,gwlist\r\n5,"0,1",49,,0,#one\r\n7,0,,,3,a\r\n9,0,4930,Europe/Rome|20260101T000000|||daily,0,"b,a"\r\n'


def read(url: str) -> tuple[_native.RouteTables, list[tuple[str, str, str, str]]]:
    async def work() -> tuple[_native.RouteTables, list[tuple[str, str, str, str]]]:
        engine = open_engine(url)
        load = _native.RouteLoad([""])
        try:
            await read_source(engine, load, Source("", url, DEFAULT_TABLES))
        finally:
            await engine.dispose()
        for _ in load.recurrences(""):
            load.mean("", [(0, 1)])
        tables, faults, count = load.finish()
        assert count == len(faults)
        return tables, faults

    return asyncio.run(work())


def take(url: str, kind: str, text: str, folder: Path, **options: bool) -> Imported:
    file = folder / f"{kind}.csv"
    file.write_text(text, encoding="utf-8", newline="")
    wanted = {"replace": False, "skip_bad": False, "foreign": False, "judge": judge, **options}
    return asyncio.run(import_rows(url, kind, file, step=lambda _: None, **wanted))


def fill(url: str, folder: Path) -> None:
    asyncio.run(upgrade(url))
    for kind, text in (("gateways", GATEWAYS), ("carriers", CARRIERS), ("profiles", PROFILES), ("rules", RULES)):
        assert take(url, kind, text, folder).fault_count == 0


def test_rows_that_are_there_already_and_numbers_that_no_column_takes_are_named(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    before = take(database, "gateways", "gwid,address\r\nx,192.0.2.7\r\na,192.0.2.8\r\nx,192.0.2.9\r\n", tmp_path)
    assert (before.taken, [fault.partition("gateways.csv:")[2] for fault in before.faults]) == (
        0,
        ["3: gwid: a second row of a, the first is in the database", "4: gwid: a second row of x, the first is in line 2"],
    )
    skipped = take(database, "gateways", "gwid,address\r\nx,192.0.2.7\r\na,192.0.2.8\r\nx,192.0.2.9\r\n", tmp_path, skip_bad=True)
    assert (skipped.taken, skipped.fault_count) == (1, 2)
    assert take(database, "gateways", "gwid,address\r\na,192.0.2.8\r\n", tmp_path, replace=True).taken == 1
    large = take(database, "rules", f"groupid,prefix,priority,gwlist\r\n0,49,{10**20},a\r\n0,49,1\r\n", tmp_path)
    assert [fault.partition("rules.csv:")[2] for fault in large.faults] == [
        f"2: priority: expected a number from -2147483648 to 2147483647, got: {10**20}",
        "3: row: expected 4 columns, as many as the first line names",
    ]


def test_a_sqlite_url_with_two_slashes_is_refused_with_the_right_form() -> None:
    with pytest.raises(StorageError, match=r"expected sqlite:///FILE, got: sqlite://relative\.db"):
        asyncio.run(check_database("sqlite://relative.db"))


def test_an_empty_one_is_made_and_a_second_time_nothing_happens(database: str) -> None:
    assert asyncio.run(check_database(database))[0] is Standing.EMPTY
    assert asyncio.run(upgrade(database)) is Standing.EMPTY
    assert asyncio.run(check_database(database)) == (Standing.OURS, [])
    assert asyncio.run(upgrade(database)) is Standing.OURS


def test_migrations_make_what_the_schema_says(database: str) -> None:
    asyncio.run(upgrade(database))

    async def differences() -> list[object]:
        engine = open_engine(database)

        def compare(connection: object) -> list[object]:
            options = {"version_table": "edgeproxy_version", "compare_type": True}
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))  # type: ignore[arg-type]

        async with engine.connect() as connection:
            found = await connection.run_sync(compare)
        await engine.dispose()
        return found

    assert asyncio.run(differences()) == []


def test_revisions_are_those_of_alembic_which_reading_does_not_need(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert revisions() == sorted(script.revision for script in scripts.walk_revisions())
    assert revisions()[-1] == scripts.get_current_head()
    url = f"sqlite:///{tmp_path}/made.db"
    asyncio.run(upgrade(url))
    reading = (
        f"import asyncio, sys; from edgeproxy.storage import prepare; asyncio.run(prepare({url!r})); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", reading], check=False).returncode == 0


def test_a_database_of_a_newer_edgeproxy_is_left_alone(database: str) -> None:
    asyncio.run(upgrade(database))
    run(database, "UPDATE edgeproxy_version SET version_num = '9999'")
    assert asyncio.run(check_database(database))[0] is Standing.NEWER
    with pytest.raises(StorageError, match="of a newer edgeproxy: nothing is changed in it"):
        asyncio.run(upgrade(database))
    run(database, "UPDATE edgeproxy_version SET version_num = '0010'")
    assert asyncio.run(check_database(database))[0] is Standing.OLD


def test_rows_are_read_as_they_were_taken(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    tables, faults = read(database)
    assert faults == []
    assert tables.sizes()[0][:4] == ("", 4, 2, 1)
    assert [tables.find("", group, number, 0) for group, number in ((0, "4930"), (0, "4931"), (1, "4930"), (0, "1"), (1, "1"))] == [
        9,
        5,
        5,
        7,
        None,
    ]
    assert tables.find("", 0, "4930", 1) == 5
    assert tables.names_to_resolve() == [("gw.example.net", 5070, "")]


def test_dial_plans_and_groups_of_callers_are_read_and_their_faults_named(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    plan = "id,dpid,pr,match_op,match_exp,subst_exp,repl_exp,timerec\r\n"
    assert take(database, "dialplan", f"{plan}1,7,1,1,^0,^0(.*)$,+49\\1,\r\n2,7,1,1,^1,,x,\r\n", tmp_path).taken == 2
    run(database, "UPDATE dialplan SET match_exp = '(?=1)' WHERE id = 2")
    assert take(database, "groups", "username,domain,groupid\r\nalice,example.net,1\r\n", tmp_path).taken == 1
    assert [(table, row, column) for table, row, column, _ in read(database)[1]] == [("dialplan", "2", "match_exp")]


def test_many_rows_come_in_several_blocks_and_none_is_lost(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    lines = "".join(f"{number},0,{number},a\r\n" for number in range(1_000, 51_000))
    assert take(database, "rules", f"ruleid,groupid,prefix,gwlist\r\n{lines}", tmp_path, replace=True).taken == 50_000
    tables, faults = read(database)
    assert (tables.sizes()[0][1], faults) == (50_000, [])
    assert tables.find("", 0, "50999123", 0) == 50_999


def test_a_server_that_cuts_long_answers_loses_no_row(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    carried = "x" * 250
    lines = "".join(f"{number},0,{number},a,{carried}\r\n" for number in range(1_000, 9_000))
    assert take(database, "rules", f"ruleid,groupid,prefix,gwlist,attrs\r\n{lines}", tmp_path, replace=True).taken == 8_000
    if database.startswith("mysql"):
        # It cuts what it joins at the length of a packet, and only warns.
        run(database, "SET GLOBAL max_allowed_packet = 1048576")
    try:
        tables, faults = read(database)
    finally:
        if database.startswith("mysql"):
            run(database, "SET GLOBAL max_allowed_packet = 16777216")
    assert (tables.sizes()[0][1], faults) == (8_000, [])


def test_keys_that_are_made_come_behind_those_that_were_brought(database: str, tmp_path: Path) -> None:
    asyncio.run(upgrade(database))
    assert take(database, "gateways", "id,gwid,address\r\n1,a,192.0.2.1\r\n2,b,192.0.2.2\r\n", tmp_path).taken == 2
    assert take(database, "gateways", "gwid,address\r\nc,192.0.2.3\r\nd,192.0.2.4\r\n", tmp_path).taken == 2


def test_a_table_without_what_its_rows_mean_is_no_table(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    run(database, "ALTER TABLE dr_rules RENAME COLUMN prefix TO was_prefix")
    with pytest.raises(StorageError, match=r"table dr_rules: no column prefix"):
        read(database)


def test_what_a_schema_lacks_is_not_exported(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    run(database, "ALTER TABLE dr_gateways RENAME COLUMN max_calls TO was_max_calls")
    out = tmp_path / "out.csv"
    assert asyncio.run(export_rows(database, "gateways", out, step=lambda _: None)) == 2
    with out.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["gwid"] for row in rows] == ["a", "b"]
    assert "max_calls" not in rows[0]


def test_a_file_that_cannot_be_written_is_named_and_not_the_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rules.db'}"
    fill(url, tmp_path)
    file = tmp_path / "none" / "out.csv"
    with pytest.raises(StorageError, match=f"^{file}: No such file or directory$"):
        asyncio.run(export_rows(url, "gateways", file, step=lambda _: None))

    def fill_up(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=f"^{tmp_path}/out.csv: No space left on device$"):
        asyncio.run(export_rows(url, "gateways", tmp_path / "out.csv", step=fill_up))


def test_columns_that_do_not_fit_each_other_are_read_as_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rules.db'}"
    fill(url, tmp_path)
    rows = [
        # Nothing where others have something, what parts values, and keys at both ends of what there is.
        (-(1 << 63), "100", "a", None, None),
        (-7, "101", "a", "", "one"),
        (1, "102", None, None, "two"),
        (2, "103", "a,b", None, "a\x1fb"),
        (3, "104", "b", None, None),
        ((1 << 63) - 1, "105", "a", None, ""),
        *((number, str(number), "a", None, None if number % 2 else "x") for number in range(60_000, 110_000)),
        *((number, str(number), "a", "", "") for number in range(200_000, 230_000)),
    ]
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        connection.execute("DELETE FROM dr_rules")
        connection.executemany("INSERT INTO dr_rules (ruleid, groupid, prefix, gwlist, timerec, attrs) VALUES (?, '0', ?, ?, ?, ?)", rows)
        # The same rows through a view, which has no key, come as rows.
        connection.execute("CREATE TABLE kept AS SELECT * FROM dr_rules")
    connection.close()
    tables, faults = read(url)
    told = [(row.split("\x1f")[0], column) for _, row, column, _ in faults]
    assert told == [(str(-(1 << 63)), "ruleid"), ("-7", "ruleid"), ("2", "ruleid"), (str((1 << 63) - 1), "ruleid")]
    assert tables.sizes()[0][1] == len(rows) - len(faults)
    assert [tables.find("", 0, number, 0) for number in ("102", "104", "60000", "109999", "229999")] == [1, 3, 60_000, 109_999, 229_999]
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        connection.execute("DROP TABLE dr_rules")
        connection.execute("CREATE VIEW dr_rules AS SELECT * FROM kept")
    connection.close()
    again, faults_again = read(url)
    assert (again.sizes(), faults_again) == (tables.sizes(), faults)


def test_csv_goes_out_as_it_came_in(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    for kind, text in (("gateways", GATEWAYS), ("carriers", CARRIERS), ("profiles", PROFILES), ("rules", RULES)):
        file = tmp_path / "out.csv"
        assert asyncio.run(export_rows(database, kind, file, step=lambda _: None)) == text.count("\r\n") - 1
        before = list(csv.DictReader(text.splitlines()))
        with file.open(newline="", encoding="utf-8") as lines:
            after = list(csv.DictReader(lines))
        assert [{key: row[key] for key in before[0]} for row in after] == before
        taken = take(database, kind, file.read_text(encoding="utf-8"), tmp_path, replace=True)
        assert (taken.taken, taken.faults) == (len(before), [])
    assert not list(tmp_path.glob("*.part"))


def test_a_bad_row_is_named_and_nothing_is_taken_unless_that_is_wished(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    text = f"ruleid,groupid,prefix,gwlist,priority\r\n20,0,1,a,0\r\n21,0,2,a,high\r\n22,,3,a,0\r\n23,0,{'1' * 65},a,0\r\n24,0,4\r\n"
    done = take(database, "rules", text, tmp_path)
    assert (done.taken, done.fault_count) == (0, 4)
    places = [fault.split(": ", 2) for fault in done.faults]
    assert [(place.rsplit(":", 1)[1], column) for place, column, _ in places] == [
        ("3", "priority"),
        ("4", "groupid"),
        ("5", "prefix"),
        ("6", "row"),
    ]
    assert read(database)[0].sizes()[0][1] == 4
    assert take(database, "rules", text, tmp_path, skip_bad=True).taken == 1
    assert read(database)[0].sizes()[0][1] == 5
    for wrong, problem in (
        ("ruleid,gruop\r\n", "no such column: gruop"),
        ("ruleid,prefix\r\n", "missing column: groupid"),
        ("ruleid,groupid,prefix,groupid\r\n", "twice: groupid"),
    ):
        with pytest.raises(StorageError, match=problem):
            take(database, "rules", wrong, tmp_path)
    first = b"groupid,prefix,gwlist\n"
    for broken, told in (
        (b"groupid,prefix,gwlist\xfc\n", "1: expected UTF-8, got byte 0xfc at place 22"),
        (first + b"0,49,a\n" * 3_000 + b"0,4\xfc,a\n0,49,a\n", "3002: expected UTF-8, got byte 0xfc at place 4"),
        (b'"groupid,prefix\n', "1: a quote is opened and not closed"),
        (first + b'0,49,a\n0,"49,a\n0,49,a\n', "3: a quote is opened and not closed"),
        (first + b'0,49,a\n\n\r\n0,"49,a\n0,49,a\n', "5: a quote is opened and not closed"),
        (first + b'0,"49"x,a\n', "2: ',' expected after '\"'"),
    ):
        (tmp_path / "rules.csv").write_bytes(broken)
        with pytest.raises(StorageError, match=re.escape(f"rules.csv:{told}")):
            asyncio.run(
                import_rows(
                    database,
                    "rules",
                    tmp_path / "rules.csv",
                    replace=False,
                    skip_bad=False,
                    foreign=False,
                    step=lambda _: None,
                    judge=judge,
                )
            )


def test_a_row_that_no_load_could_use_is_told_by_the_import(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rules.db'}"
    asyncio.run(upgrade(url))
    for kind, text, wanted in (
        (
            "gateways",
            "gwid,address,probe_mode,state\r\nq q,192.0.2.1,0,0\r\na,bad:port:x,0,0\r\nb,sips:192.0.2.1,0,0\r\nc,192.0.2.1,9,0\r\nd,192.0.2.1,0,9\r\ne,192.0.2.1,1,0\r\nf,192.0.2.1:0,1,0\r\ng,256.1.1.1,1,0\r\nh,192.0.2.1;transport=udp;TRANSPORT=tcp,1,0\r\ni,SIP:gw.example.net,1,0\r\n",
            [
                (2, "gwid"),
                (3, "address"),
                (4, "address"),
                (5, "probe_mode"),
                (6, "state"),
                (8, "address"),
                (9, "address"),
                (10, "address"),
            ],
        ),
        ("carriers", "carrierid,gwlist,sort_alg\r\none,#c,W\r\ntwo,nobody,Z\r\nthree,nobody,W\r\n", [(2, "gwlist"), (3, "sort_alg")]),
        (
            "rules",
            "ruleid,groupid,prefix,timerec,gwlist,sort_alg\r\n1,x,49,,a,N\r\n2,0,49,20260101T00,a,N\r\n3,0,49,,a=many,N\r\n4,0,49,,a,Z\r\n"
            "5,0,+49*,Europe/Rome|20260101T000000,nobody,N\r\n6,0,abcdef,,a,N\r\n",
            [(2, "groupid"), (3, "timerec"), (4, "gwlist"), (5, "sort_alg"), (7, "prefix")],
        ),
        (
            "dialplan",
            "id,dpid,pr,match_op,match_exp,subst_exp,repl_exp\r\n1,7,1,1,(?=1),,x\r\n2,7,1,1,^0(.),,\\2\r\n",
            [(2, "match_exp"), (3, "repl_exp")],
        ),
        (
            "dispatcher",
            "setid,destination,weight,state\r\n1,sip:10.0.0.1,1,0\r\n1,not a uri,1,0\r\n1,sip:10.0.0.2,many,0\r\n1,SIP:10.0.0.3,1,7\r\n1,sip:256.1.1.1,1,0\r\n1,sip:10.0.0.4:0,1,0\r\n"
            "1,sip:10.0.0.5;transport=udp;Transport=tcp,1,0\r\n1,SIP:10.0.0.6,1,0\r\n1,sip:10.0.0.7;transport=tls,1,0\r\n1,SIPS:10.0.0.8,1,0\r\n",
            [
                (3, "destination"),
                (4, "weight"),
                (5, "state"),
                (6, "destination"),
                (7, "destination"),
                (8, "destination"),
                (10, "destination"),
                (11, "destination"),
            ],
        ),
        (
            "load_balancer",
            "group_id,dst_uri,resources,probe_mode\r\n1,sip:10.0.0.1,pstn=9;vm=fs://x,0\r\n1,sip:10.0.0.2,pstn=0,0\r\n1,sip:10.0.0.3,pstn=9,4\r\n1,:,pstn=9,0\r\n",
            [(3, "resources"), (4, "probe_mode"), (5, "dst_uri")],
        ),
        (
            "address",
            "grp,ip,mask,port,proto,pattern\r\n1,10.0.0.0,8,0,any,\r\n1,10.0.0.0,33,0,any,\r\n1,10.0.0.1,32,0,sctp,\r\n1,10.0.0.0,8,5060,any,\r\n1,10.0.0.2,32,70000,any,\r\n1,10.0.0.3,32,0,any,[a]\r\n1,fe80::1%eth0,128,0,any,\r\n",
            [(3, "ip"), (4, "proto"), (5, "port"), (6, "port"), (7, "pattern"), (8, "ip")],
        ),
    ):
        done = take(url, kind, text, tmp_path, skip_bad=True)
        assert done.fault_count == len(wanted), done.faults
        assert [tuple(fault.split(": ")[0:2]) for fault in done.faults] == [
            (f"{tmp_path}/{kind}.csv:{line}", column) for line, column in wanted
        ]
        assert done.taken == text.count("\r\n") - 1 - len(wanted)


def test_a_row_that_the_database_takes_for_another_is_told_with_its_line(servers: dict[str, str], tmp_path: Path) -> None:
    """MariaDB compares names without their case, whereas two gateways may well be called so."""
    admin = servers["mysql"]
    run(f"{admin}mysql", "CREATE DATABASE alike")
    url = f"{admin}alike"
    asyncio.run(upgrade(url))
    text = "gwid,address\r\none,192.0.2.1\r\ntwo,192.0.2.2\r\nONE,192.0.2.3\r\nthree,192.0.2.4\r\n"
    done = take(url, "gateways", text, tmp_path)
    assert (done.taken, done.fault_count) == (0, 1)
    assert done.faults[0].startswith(f"{tmp_path}/gateways.csv:4: row: the database refuses it: ")
    assert "Duplicate entry 'ONE'" in done.faults[0]
    assert read(url)[0].sizes()[0][2] == 0
    assert take(url, "gateways", text, tmp_path, skip_bad=True).taken == 3
    assert read(url)[0].sizes()[0][2] == 3


def test_what_somebody_took_from_a_database_of_ours_is_told_and_tables_come_back(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    assert asyncio.run(lacking(database)) == []
    run(database, "DROP TABLE dispatcher", "ALTER TABLE dr_rules DROP COLUMN attrs")
    assert asyncio.run(lacking(database)) == ["table dispatcher", "column dr_rules.attrs"]
    with pytest.raises(StorageError, match=r"does not bring back column dr_rules\.attrs: restore a backup"):
        asyncio.run(upgrade(database))
    run(database, "ALTER TABLE dr_rules ADD COLUMN attrs CHAR(255)")
    asyncio.run(upgrade(database))
    assert asyncio.run(lacking(database)) == []


def opensips(url: str) -> None:
    """Make an OpenSIPS database with tables of an older version, whose columns are fewer."""
    run(
        url,
        "CREATE TABLE version (table_name CHAR(32), table_version INT)",
        "CREATE TABLE dr_gateways (id INT PRIMARY KEY, gwid CHAR(64), type INT, address CHAR(128), strip INT, pri_prefix CHAR(16))",
        "CREATE TABLE dr_carriers (id INT PRIMARY KEY, carrierid CHAR(64), gwlist CHAR(255))",
        "CREATE TABLE dr_rules (ruleid INT PRIMARY KEY, groupid CHAR(255), prefix CHAR(64), timerec CHAR(255), priority INT, routeid CHAR(255), gwlist CHAR(255))",
        "INSERT INTO dr_gateways VALUES (1, 'a', 0, '192.0.2.1', 0, NULL)",
        "INSERT INTO dr_carriers VALUES (1, 'one', 'a')",
        "INSERT INTO dr_rules VALUES (4, '0', '49', NULL, 0, NULL, '#one')",
    )


def test_a_database_of_opensips_is_read_and_never_written(database: str, tmp_path: Path) -> None:
    opensips(database)
    asyncio.run(prepare_quietly(database))
    assert asyncio.run(check_database(database)) == (Standing.OPENSIPS, [])
    with pytest.raises(StorageError, match="OpenSIPS's"):
        asyncio.run(upgrade(database))
    with pytest.raises(StorageError, match="without --into-opensips"):
        take(database, "gateways", "gwid,address\r\nz,192.0.2.8\r\n", tmp_path)
    tables, faults = read(database)
    assert (faults, tables.find("", 0, "4930", 0)) == ([], 4)


async def prepare_quietly(url: str) -> None:
    await prepare(url)


def test_a_reader_needs_to_select_and_nothing_else(servers: dict[str, str], tmp_path: Path) -> None:
    admin = servers["postgresql"]
    run(f"{admin}postgres", "CREATE DATABASE readonly", "CREATE USER reader")
    opensips(f"{admin}readonly")
    run(f"{admin}readonly", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    url = admin.replace("admin@", "reader@") + "readonly"
    asyncio.run(prepare(url))
    assert read(url)[0].find("", 0, "4930", 0) == 4


def test_partitions_name_their_tables(database: str, tmp_path: Path) -> None:
    fill(database, tmp_path)
    run(
        database,
        "CREATE TABLE other_rules AS SELECT * FROM dr_rules WHERE ruleid = 5",
        "INSERT INTO dr_partitions (id, partition_name, db_url, drr_table) VALUES (1, 'second', '', 'other_rules'), (2, 'second', '', NULL), "
        "(3, '', '', NULL), (4, 'odd', 'what', NULL)",
    )

    async def sources() -> tuple[list[Source], list[tuple[str, str, str, str]]]:
        engine = open_engine(database)
        found = await read_partitions(engine, database)
        await engine.dispose()
        return found

    found, faults = asyncio.run(sources())
    assert [fault[:3] for fault in faults] == [
        ("dr_partitions", "2", "partition_name"),
        ("dr_partitions", "3", "partition_name"),
        ("dr_partitions", "4", "db_url"),
    ]
    assert found == [
        Source("second", database, {kind: name for kind, name in DEFAULT_TABLES.items() if kind != "dialplan"} | {"rules": "other_rules"})
    ]


def test_what_cannot_be_read_is_told_without_its_password(tmp_path: Path) -> None:
    assert shown("postgresql://bob:secret@db/x") == "postgresql://bob:***@db/x"
    for url, problem in (
        ("oracle://x", "expected a sqlite:///"),
        ("postgresql://bob:secret@127.0.0.1:1/x", r"postgresql://bob:\*\*\*@127.0.0.1:1/x"),
        ("mysql://bob:secret@127.0.0.1:1/x", r"mysql://bob:\*\*\*@127.0.0.1:1/x"),
        (f"sqlite:///{tmp_path}", "database"),
    ):
        with pytest.raises(StorageError, match=problem) as caught:
            asyncio.run(prepare(url))
        assert "secret" not in str(caught.value)


def test_a_sqlite_file_is_made_at_first_use_and_others_are_not(servers: dict[str, str], tmp_path: Path) -> None:
    asyncio.run(prepare(f"sqlite:///{tmp_path}/new/rules.db"))
    assert asyncio.run(check_database(f"sqlite:///{tmp_path}/new/rules.db")) == (Standing.OURS, [])
    run(f"{servers['postgresql']}postgres", "CREATE DATABASE blank")
    with pytest.raises(StorageError, match=r"no table dr_carriers, dr_gateways, dr_rules\nhint: edgeproxy db init"):
        asyncio.run(prepare(f"{servers['postgresql']}blank"))
    run(f"sqlite:///{tmp_path}/foreign.db", "CREATE TABLE songs (id INT)")
    with pytest.raises(StorageError, match="tables of something else"):
        asyncio.run(upgrade(f"sqlite:///{tmp_path}/foreign.db"))


def test_rows_without_a_key_or_with_one_twice_are_a_fault_and_not_lost(database: str, tmp_path: Path) -> None:
    opensips(database)
    run(
        database,
        "INSERT INTO dr_rules VALUES (-7, '0', '41', NULL, 0, NULL, 'a')",
        "INSERT INTO dr_rules VALUES (0, '0', '42', NULL, 0, NULL, 'a')",
    )
    tables, faults = read(database)
    # A rule's number cannot be negative; its row is told and not passed over.
    assert ([fault[1:3] for fault in faults], tables.find("", 0, "42", 0)) == ([("-7", "ruleid")], 0)
    run(
        database,
        "CREATE TABLE loose (ruleid INT, groupid CHAR(255), prefix CHAR(64), gwlist CHAR(255))",
        "INSERT INTO loose VALUES (NULL, '0', '43', 'a')",
    )

    run(database, "INSERT INTO loose VALUES (8, '0', '44', 'a')")

    async def blocks() -> list[object]:
        engine = open_engine(database)
        try:
            return [block async for block in read_rows(engine, Source("", database, {**DEFAULT_TABLES, "rules": "loose"}))]
        finally:
            await engine.dispose()

    *_, rules, without = asyncio.run(blocks())
    assert isinstance(rules, RowBlock)
    assert (rules.rows.split(b"\x1f")[0], without) == (b"8", Keyless("loose", "ruleid", 1))
