"""Subscribers and bindings in SQLite, PostgreSQL and MariaDB alike; those of OpenSIPS taken over."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import text

from edgeproxy import _native
from edgeproxy.config.registrar import Registrar
from edgeproxy.errors import RowRefused, StorageError
from edgeproxy.server import location_store
from edgeproxy.server.location_store import LocationStore
from edgeproxy.storage import open_engine, require, upgrade, url
from edgeproxy.storage.location import LocationTable
from edgeproxy.storage.subscribers import Attributes, Credentials, SubscriberTable
from tests.unit.storage.conftest import run

SOON = int(time.time()) + 3_000
REGISTRAR = Registrar(domains=["edge.example"])
FOREIGN = """INSERT INTO location (contact_id, username, domain, contact, received, expires, q, callid, cseq, cflags, user_agent, socket, path)
VALUES ({number}, '{user}', 'edge.example', 'sip:{user}@10.0.0.9', {received}, {expires}, 0.5, 'call', 7, 'NAT_BFLAG', 'phone', 'udp:127.0.0.1:5060', NULL)"""


def binding(user: str, **changes: Any) -> _native.BindingRow:
    values = {
        "user": user,
        "domain": "edge.example",
        "contact": f"sip:{user}@192.0.2.7:5062",
        "received": "",
        "path": "",
        "expires": SOON,
        "q": 250,
        "call_id": "c",
        "cseq": 4_294_967_295,
        "modified": SOON - 3_600,
        "natted": False,
        "user_agent": "ü phone",
        "socket": "udp:127.0.0.1:5060",
        "instance": '"<urn:uuid:1>"',
        "reg_id": 0,
        **changes,
    }
    number = _native.contact_id(values["user"], values["domain"], values["contact"], values["instance"], values["reg_id"])
    return _native.BindingRow(contact_id=number, **values)


@asynccontextmanager
async def location(url: str) -> AsyncIterator[LocationTable]:
    engine = open_engine(url)
    yield LocationTable(engine, (await require(engine, "location"))[1])
    await engine.dispose()


class Idle:
    """An engine that has nothing to be written."""

    def location_writes(self, _limit: int) -> list[tuple[int, None]]:
        return []


async def serve(store: LocationStore, table: LocationTable) -> None:
    """Do what comes first once there is an engine."""
    store.use(table)
    while await store.write(Idle()):  # type: ignore[arg-type]
        pass


async def all_of(table: LocationTable) -> dict[str, dict[str, Any]]:
    return {row["user"]: row async for row in table.read(int(time.time()))}


def test_bindings_are_put_replaced_removed_and_swept(database: str) -> None:
    asyncio.run(upgrade(database))

    async def work() -> None:
        async with location(database) as table:
            over = binding("over", expires=SOON - 100_000)
            await table.write([binding("a"), binding("b", natted=True, received="sip:192.0.2.7:4000"), over], [])
            found = await all_of(table)
            assert sorted(found) == ["a", "b"]
            assert _native.BindingRow(**found["a"]).cseq == 4_294_967_295
            for key in ("contact_id", "contact", "expires", "q", "call_id", "modified", "natted", "user_agent", "socket", "instance"):
                assert found["a"][key] == getattr(binding("a"), key), key
            assert (found["b"]["natted"], found["b"]["received"]) == (True, "sip:192.0.2.7:4000")
            flow = binding("flow", reg_id=2)
            assert flow.contact_id != binding("flow").contact_id
            await table.write([flow], [])
            assert (await all_of(table))["flow"]["reg_id"] == 2
            await table.write([], [flow.contact_id])
            await table.write([binding("a", q=1_000)], [binding("b").contact_id, 17])
            assert {user: row["q"] for user, row in (await all_of(table)).items()} == {"a": 1_000}
            await table.sweep(int(time.time()) - 60)
            assert [row["user"] async for row in table.read(0)] == ["a"]

    asyncio.run(work())


def test_what_opensips_left_is_taken_over_and_where_that_may_be_renamed(database: str) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        FOREIGN.format(number=3961049, user="x", received="'sip:198.51.100.9:31000'", expires=SOON),
        FOREIGN.format(number=3961050, user="y", received="NULL", expires=0),
        FOREIGN.format(number=3961051, user="z", received="NULL", expires=SOON - 100_000),
        FOREIGN.format(number=3961052, user="x", received="NULL", expires=SOON).replace("'edge.example'", "'other.example'"),
    )

    async def work() -> None:
        async with location(database) as table:
            told: list[Any] = []
            store = LocationStore(lambda event, **values: told.append((event, values.get("values"))), lambda *_: None)
            rows = {row.user: row for row in await store.restore(table, REGISTRAR, ["edge.example"], writable=False)}
            assert sorted(rows) == ["x", "y"]
            assert (rows["x"].received, rows["x"].natted, rows["x"].q, rows["y"].expires) == (
                "sip:198.51.100.9:31000",
                True,
                500,
                2**31 - 1,
            )
            assert (told[1][1]["of_another_registrar"], told[1][1]["in_domains_not_served"]) == (2, 1)
            # A place is noted of each of ours, and says nothing of a NAT.
            await table.write([binding("own", natted=False), binding("behind", natted=True)], [])
            assert {
                row.user: row.natted
                for row in await store.restore(table, REGISTRAR, ["edge.example"], writable=False)
                if row.user in {"own", "behind"}
            } == {
                "own": False,
                "behind": True,
            }
            await table.write([], [row.contact_id for row in (binding("own"), binding("behind"))])
            assert sorted([row["contact_id"] async for row in table.read(int(time.time()))]) == [3961049, 3961050, 3961052]
            await store.restore(table, REGISTRAR, ["edge.example"], writable=True)
            # A start that fails has changed nothing.
            assert sorted([row["contact_id"] async for row in table.read(int(time.time()))]) == [3961049, 3961050, 3961052]
            await serve(store, table)
            numbers = sorted(_native.contact_id(user, "edge.example", f"sip:{user}@10.0.0.9") for user in "xy")
            assert sorted([row["contact_id"] async for row in table.read(int(time.time()))]) == [3961052, *numbers], (
                "another may serve that domain"
            )

    asyncio.run(work())


def test_what_is_taken_over_is_known_however_it_was_written_and_of_two_the_newer(database: str) -> None:
    asyncio.run(upgrade(database))
    rows = {
        1: FOREIGN.format(number=1, user="Carol", received="NULL", expires=SOON).replace("'edge.example'", "'Edge.EXAMPLE'"),
        2: FOREIGN.format(number=2, user="dave", received="NULL", expires=SOON).replace("'edge.example'", "''"),
        3: FOREIGN.format(number=3, user="dave", received="NULL", expires=SOON).replace("'call', 7", "'call', 9"),
    }
    run(database, *rows.values())
    registrar = Registrar(domains=["edge.example"], case_sensitive=False)

    async def work() -> None:
        async with location(database) as table:
            store = LocationStore(lambda *_, **__: None, lambda *_: None)
            found = {
                row.user: (row.domain, row.cseq, row.contact_id)
                for row in await store.restore(table, registrar, ["Edge.example"], writable=True)
            }
            numbers = {
                user: _native.contact_id(user, "edge.example", contact)
                for user, contact in (("carol", "sip:Carol@10.0.0.9"), ("dave", "sip:dave@10.0.0.9"))
            }
            assert found == {"carol": ("edge.example", 7, numbers["carol"]), "dave": ("edge.example", 9, numbers["dave"])}
            assert sorted([row["contact_id"] async for row in table.read(0)]) == [1, 2, 3]
            await serve(store, table)
            assert sorted([row["contact_id"] async for row in table.read(0)]) == sorted(numbers.values())
            # Whoever leaves is not back at the next start.
            await table.write([], list(numbers.values()))
            assert await all_of(table) == {}

    asyncio.run(work())


def test_many_rows_of_another_registrar_cost_the_start_little(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'edge.db'}"
    asyncio.run(upgrade(url))
    with sqlite3.connect(tmp_path / "edge.db") as database:
        line = "INSERT INTO location (contact_id, username, domain, contact, expires, callid, cseq, user_agent) VALUES (?, ?, 'edge.example', ?, ?, 'c', 1, '')"
        database.executemany(line, [(number, f"u{number}", f"sip:u{number}@10.0.0.9", SOON) for number in range(1, 30_001)])
    database.close()

    async def work() -> None:
        async with location(url) as table:
            store = LocationStore(lambda *_, **__: None, lambda *_: None)
            begun = time.process_time()
            assert len(await store.restore(table, REGISTRAR, ["edge.example"], writable=True)) == 30_000
            await serve(store, table)
            numbers = {row["contact_id"] for row in (await all_of(table)).values()}
            assert (len(numbers), min(numbers) > 30_000) == (30_000, True)
            # Row by row it took a millisecond each.
            assert time.process_time() - begun < 10

    asyncio.run(work())


def test_a_database_that_hangs_is_told_and_what_waits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        hangs = True

        async def write(self, *_: object, **__: object) -> None:
            await asyncio.sleep(60 if self.hangs else 0)

    class Engine:
        rows: ClassVar = [[(17, None)]]

        def location_writes(self, _: int) -> list[tuple[int, None]]:
            return self.rows.pop() if self.rows else []

    monkeypatch.setattr(location_store, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(location_store, "_PAUSES", (0.05,))

    async def work() -> None:
        lines: list[str] = []
        store, table = LocationStore(lambda line, **_: lines.append(line), lambda *_: None), Hanging()
        store.use(table)  # type: ignore[arg-type]
        with pytest.raises(StorageError, match="did not answer within"):
            await store.write(Engine())  # type: ignore[arg-type]
        assert store.status()["waiting"] == 1
        writing = asyncio.create_task(store.run(Engine()))  # type: ignore[arg-type]
        await asyncio.sleep(0.3)
        assert lines == ["bindings not written"], "once, however often it is tried"
        table.hangs = False
        async with asyncio.timeout(5):
            while store.status()["waiting"]:
                await asyncio.sleep(0.01)
        assert (lines, store.status()["state"]) == (["bindings not written", "bindings are written again"], "ready")
        writing.cancel()

    asyncio.run(work())


@pytest.mark.parametrize(("kind", "pid"), [("postgresql", "SELECT pg_backend_pid()"), ("mysql", "SELECT @@pid_file")])
def test_a_server_that_falls_silent_while_it_is_read_is_told(
    kind: str, pid: str, servers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time enough for a busy machine to answer what is asked before and after.
    monkeypatch.setattr(url, "PATIENCE_SECONDS", 3.0)
    server = servers[kind]
    run(f"{server}postgres" if kind == "postgresql" else server, "CREATE DATABASE silent")
    there = f"{server}silent"
    asyncio.run(upgrade(there))

    async def work() -> None:
        engine = open_engine(there)
        table = LocationTable(engine, (await require(engine, "location"))[1])
        async with engine.connect() as connection:
            found = str((await connection.execute(text(pid))).scalar_one())
        process = int(found if found.isdigit() else Path(found).read_text())
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(StorageError, match=rf"^database {kind}://.*: no answer in time$"):
                async with asyncio.timeout(20):
                    await all_of(table)
        finally:
            os.kill(process, signal.SIGCONT)
        await engine.dispose()
        # It is read again once it answers.
        async with location(there) as again:
            assert await all_of(again) == {}

    asyncio.run(work())


def test_rows_of_attributes_fit_their_account_in_any_case(database: str) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "INSERT INTO subscriber (username, domain, password) VALUES ('Alice', 'edge.example', 'secret')",
        "INSERT INTO subscriber (username, domain, password) VALUES ('bob', 'edge.example', 'other')",
        "INSERT INTO usr_preferences (uuid, username, domain, attribute, type, value) VALUES ('', 'Alice', 'edge.example', 'limit', 0, '7')",
    )

    async def work() -> None:
        engine = open_engine(database)
        table = await SubscriberTable.open(
            engine, "password", use_domain=True, attributes=Attributes(preferences=True), case_sensitive=False
        )
        found = await table.fetch([("Alice", "edge.example"), ("bob", "edge.example")], 5)
        assert found["Alice", "edge.example"].attributes == (("limit", "7"),)
        assert found["bob", "edge.example"] == Credentials("other", "", "", "")
        await engine.dispose()

    asyncio.run(work())


def test_a_user_in_two_cases_of_a_large_batch_has_each_attribute_once(database: str) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "INSERT INTO subscriber (username, domain, password) VALUES ('zoe', 'edge.example', 'secret')",
        "INSERT INTO usr_preferences (uuid, username, domain, attribute, type, value) VALUES ('', 'zoe', 'edge.example', 'group', 0, '1')",
        "INSERT INTO usr_preferences (uuid, username, domain, attribute, type, value) VALUES ('', 'zoe', 'x.example', 'group', 0, '2')",
    )

    async def work() -> None:
        engine = open_engine(database)
        for sensitive in (True, False):
            table = await SubscriberTable.open(
                engine, "password", use_domain=False, attributes=Attributes(preferences=True), case_sensitive=sensitive
            )
            others = [(f"u{number:04}", "edge.example") for number in range(600)]
            found = await table.fetch([("ZOE", "edge.example"), ("zoe", "edge.example"), *others], 20)
            assert sorted(found["zoe", "edge.example"].attributes) == [("group", "1"), ("group", "2")]
        await engine.dispose()

    asyncio.run(work())


def test_case_counts_by_domain(database: str) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "INSERT INTO subscriber (username, domain, password) VALUES ('alice', 'edge.example', 'here')",
        "INSERT INTO subscriber (username, domain, password) VALUES ('alice', 'other.example', 'there')",
    )

    async def work() -> None:
        engine = open_engine(database)
        table = await SubscriberTable.open(engine, "password", use_domain=True, case_of_domains={"other.example": False})
        found = await table.fetch([("Alice", "edge.example"), ("Alice", "other.example")], 5)
        assert found == {("Alice", "other.example"): Credentials("there", "", "", "")}
        await engine.dispose()

    asyncio.run(work())


def test_credentials_are_those_of_user_and_domain(database: str) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "INSERT INTO subscriber (username, domain, password) VALUES ('alice', 'edge.example', 'secret')",
        "INSERT INTO subscriber (username, domain, ha1) VALUES ('alice', 'other.example', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')",
        "INSERT INTO subscriber (username, domain, password) VALUES ('O''Neil', 'edge.example', 'x')",
    )

    async def work() -> None:
        engine = open_engine(database)
        table = await SubscriberTable.open(engine, "password", use_domain=True)
        users = [
            ("alice", "edge.example"),
            ("alice", "OTHER.example"),
            ("alice", "third.example"),
            ("ALICE", "edge.example"),
            ("O'Neil", "edge.example"),
        ]
        found = await table.fetch(users, 5)
        assert found == {
            users[0]: Credentials("secret", "", "", ""),
            users[1]: Credentials("", "a" * 32, "", ""),
            users[4]: Credentials("x", "", "", ""),
        }
        anywhere = await SubscriberTable.open(engine, "", use_domain=False)
        assert (await anywhere.fetch(users, 5))[users[2]] in (Credentials("", "", "", ""), Credentials("", "a" * 32, "", ""))
        uncased = await SubscriberTable.open(engine, "password", use_domain=True, case_sensitive=False)
        assert (await uncased.fetch(users, 5))[users[3]] == Credentials("secret", "", "", "")
        assert len(await anywhere.fetch([(f"nobody{number}", "edge.example") for number in range(1_200)], 5)) == 0
        await engine.dispose()

    asyncio.run(work())


def test_attributes_are_those_of_columns_preferences_and_uris(database: str) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "ALTER TABLE subscriber ADD COLUMN call_limit INTEGER",
        "INSERT INTO subscriber (username, domain, password, call_limit) VALUES ('alice', 'edge.example', 'x', 5)",
        "INSERT INTO subscriber (username, domain, password) VALUES ('alice', 'other.example', 'y')",
        "INSERT INTO subscriber (username, domain, password) VALUES ('bob', 'third.example', 'z')",
        "INSERT INTO usr_preferences (username, domain, attribute, value) VALUES ('alice', 'edge.example', 'group', 'sales')",
        "INSERT INTO usr_preferences (username, domain, attribute, value) VALUES ('bob', 'edge.example', 'group', 'none')",
        "INSERT INTO uri (username, domain, uri_user) VALUES ('alice', 'edge.example', 'info')",
    )

    async def work() -> None:
        engine = open_engine(database)
        wanted = Attributes(["call_limit"], preferences=True, uris=True)
        table = await SubscriberTable.open(engine, "password", use_domain=True, attributes=wanted)
        found = await table.fetch([("alice", "edge.example"), ("alice", "other.example"), ("bob", "edge.example")], 5)
        own = (("call_limit", "5"), ("group", "sales"), ("=uri", "info"))
        assert {key[1]: known.attributes for key, known in found.items()} == {"edge.example": own, "other.example": ()}
        # Who does not look at domains mixes no accounts up either.
        table = await SubscriberTable.open(engine, "password", use_domain=False, attributes=wanted)
        found = await table.fetch([("alice", "edge.example"), ("alice", "other.example")], 5)
        assert {key[1]: known.attributes for key, known in found.items()} == {"edge.example": own, "other.example": ()}
        assert (await table.fetch([("bob", "third.example")], 5))["bob", "third.example"].attributes == (("group", "none"),)
        with pytest.raises(StorageError, match="subscriber has no column colour, taste\nhint"):
            await SubscriberTable.open(engine, "password", use_domain=True, attributes=Attributes(["colour", "taste"]))
        await engine.dispose()

    asyncio.run(work())


def test_a_database_without_the_table_is_told(database: str) -> None:
    run(database, "CREATE TABLE version (table_name VARCHAR(32))")

    async def work() -> None:
        engine = open_engine(database)
        with pytest.raises(StorageError, match="no table subscriber\nhint: it is OpenSIPS"):
            await SubscriberTable.open(engine, "password", use_domain=True)
        await engine.dispose()

    asyncio.run(work())


def test_a_row_that_cannot_be_put_is_told_from_a_database_that_takes_nothing(database: str) -> None:
    asyncio.run(upgrade(database))

    async def work() -> None:
        async with location(database) as table:
            with pytest.raises(RowRefused):
                await table.write([binding("a"), binding("a")], [])
            assert await all_of(table) == {}
            await table.write([binding("a", user_agent="Ph\u00f6n \U0001f600")], [], plain=True)
            assert (await all_of(table))["a"]["user_agent"] == "Ph?n ?"

    asyncio.run(work())


def test_a_locked_database_loses_no_binding(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/location.db"
    asyncio.run(upgrade(url))
    lock = sqlite3.connect(tmp_path / "location.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    store = LocationStore(lambda *_, **__: None, lambda *_: None)
    engine: Any = Engine([[(1, binding("a")), (2, binding("b"))]])

    async def work() -> None:
        async with location(url) as table:
            store.use(table)
            with pytest.raises(StorageError, match="locked"):
                await store.write(engine)
            assert (store.status()["refused"], store.status()["waiting"]) == (0, 2)
            lock.execute("COMMIT")
            while await store.write(engine):
                pass
            assert sorted(await all_of(table)) == ["a", "b"]

    asyncio.run(work())
    lock.close()


def test_a_question_that_waits_for_a_lock_ends_in_time_and_leaves_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/users.db"
    asyncio.run(upgrade(url))
    lock = sqlite3.connect(tmp_path / "users.db", isolation_level=None, check_same_thread=False)

    async def work() -> None:
        engine = open_engine(url)
        table = await SubscriberTable.open(engine, "password", use_domain=True)
        await table.fetch([("a", "b")], 1)
        lock.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises((StorageError, TimeoutError)):
                async with asyncio.timeout(0.4):
                    await table.fetch([("a", "b")], 0.4)
            assert time.monotonic() - begun < 2
        lock.execute("COMMIT")
        # Whatever is at work still would end after its question, with a lock that nobody knows of.
        await asyncio.sleep(0.2)
        lock.execute("PRAGMA busy_timeout = 100")
        lock.execute("BEGIN EXCLUSIVE")
        lock.execute("COMMIT")
        assert await table.fetch([("a", "b")], 1) == {}
        await engine.dispose()

    asyncio.run(work())
    lock.close()


def test_a_binding_that_opensips_left_without_q_is_as_good_as_any(database: str) -> None:
    asyncio.run(upgrade(database))
    names = "contact_id, username, domain, contact, expires, q, callid, cseq, last_modified, user_agent"
    rows = [
        f"({number}, 'u{number}', 'd', 'sip:a@h', {SOON}, {q}, 'c', 1, '2026-01-01 00:00:00', 'x')" for number, q in enumerate((-1, 0, 0.5))
    ]
    run(database, f"INSERT INTO location ({names}) VALUES {', '.join(rows)}")  # noqa: S608 - ours

    async def work() -> None:
        async with location(database) as table:
            assert {user: row["q"] for user, row in (await all_of(table)).items()} == {"u0": 1_000, "u1": 0, "u2": 500}

    asyncio.run(work())


class Broken(LocationTable):
    """A table that takes nothing until it is told to."""

    def __init__(self) -> None:
        self.broken = True
        self.rows: list[str] = []

    async def write(self, rows: Any, gone: Any, *, plain: bool = False) -> None:
        if self.broken:
            raise StorageError("database: gone")
        if any(row.user == "odd" or (row.user == "strange agent" and not plain) for row in rows):
            raise RowRefused("database: odd")
        self.rows.extend([row.user for row in rows] + [str(number) for number in gone])


class Engine:
    """Hands out what is to be written."""

    def __init__(self, writes: list[list[tuple[int, _native.BindingRow | None]]]) -> None:
        self.writes = writes

    def location_writes(self, _limit: int) -> list[tuple[int, _native.BindingRow | None]]:
        return self.writes.pop(0) if self.writes else []


def test_what_cannot_be_written_waits_and_only_the_last_of_each_is_written() -> None:
    states: list[int] = []
    store = LocationStore(lambda *_, **__: None, lambda status, _: states.append(status))
    table, first = Broken(), binding("a")
    engine: Any = Engine([[(1, first), (2, binding("b")), (1, None)], [(3, binding("c"))]])
    store.use(table)

    async def work() -> None:
        for _ in range(3):
            with pytest.raises(StorageError):
                await store.write(engine)
        assert (store.status()["waiting"], len(engine.writes)) == (2, 1)
        table.broken = False
        while await store.write(engine):
            pass
        assert table.rows == ["b", "1", "c"]
        assert store.status() == {"state": "ready", "problem": "", "written": 3, "refused": 0, "waiting": 0}

    asyncio.run(work())


def test_a_row_that_the_database_refuses_keeps_no_other_from_being_written() -> None:
    told: list[str] = []
    store = LocationStore(lambda event, **_: told.append(event), lambda *_: None)
    table = Broken()
    table.broken = False
    engine: Any = Engine([[(number, binding(user)) for number, user in enumerate(["a", "b", "odd", "c", "strange agent"])]])
    store.use(table)

    async def work() -> None:
        while await store.write(engine):
            pass

    asyncio.run(work())
    assert sorted(table.rows) == ["a", "b", "c", "strange agent"]
    assert (store.status()["refused"], store.status()["waiting"], told) == (1, 0, ["a binding cannot be written"])
