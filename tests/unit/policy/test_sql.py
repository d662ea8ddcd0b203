"""Asking a database: rows, nothing, and every way to get none."""

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from edgeproxy.config import load_text
from edgeproxy.config.database import database_url
from edgeproxy.policy import Call, CallEnded, LookupFailed, Policy, Reject, Relay, Verdict
from edgeproxy.policy.sql import close, fetch
from edgeproxy.testing import SimulatedEdge, request
from edgeproxy.testing.edge import CONFIGURATION


@pytest.fixture
def configuration(tmp_path: Path) -> str:
    file = tmp_path / "dips.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE dips (number TEXT PRIMARY KEY, carrier TEXT)")
        database.executemany("INSERT INTO dips VALUES (?, ?)", [("+4930", "sip:203.0.113.7"), *((f"n{n}", "x") for n in range(1_100))])
    database.close()
    return f'[install]\ndatabase = "sqlite:///{file}"\n{CONFIGURATION}'


def asking(statement: str, errors: list[str], **parameters: object) -> Policy:
    policy = Policy()

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        try:
            rows = await call.sql(statement, {"number": call.request_uri.user, **parameters})
        except LookupFailed as error:
            errors.append(str(error))
            return Reject(480)
        return Relay((rows[0]["carrier"],)) if rows else Reject(404)

    return policy


def test_rows_decide_where_a_call_goes(configuration: str) -> None:
    errors: list[str] = []
    with SimulatedEdge(asking("SELECT carrier FROM dips WHERE number = :number", errors), configuration=configuration) as edge:
        edge.receive(request("INVITE", "sip:+4930@example.net"))
        (out,) = [message for message in edge.wait() if message.method == "INVITE"]
        assert out.to == "203.0.113.7:5060"
        edge.receive(request("INVITE", "sip:' OR 1=1 --@example.net".replace(" ", "%20")))
        assert [message.status_code for message in edge.wait()] == [404]
    assert errors == []


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("SELECT carrier FROM nowhere", "no such table: nowhere"),
        ("SELECT carrier FROM dips WHERE number != :other", "A value is required for bind parameter"),
        ("SELECT carrier FROM dips", "more than 1000 rows"),
    ],
)
def test_what_gives_no_answer_is_said_without_values(statement: str, problem: str, configuration: str) -> None:
    errors: list[str] = []
    with SimulatedEdge(asking(statement, errors), configuration=configuration) as edge:
        edge.receive(request("INVITE", "sip:secret@example.net"))
        assert [message.status_code for message in edge.wait()] == [480]
    assert problem in errors[0]
    assert "secret" not in errors[0]


def test_no_database_and_one_that_is_not_there(tmp_path: Path) -> None:
    for text in (CONFIGURATION, f'[install]\ndatabase = "sqlite:///{tmp_path}/no/such/folder.db"\n{CONFIGURATION}'):
        errors: list[str] = []
        with SimulatedEdge(asking("SELECT 1", errors), configuration=text) as edge:
            edge.receive(request("INVITE"))
            edge.wait()
            assert edge.sent[-1].status_code == 480
        assert errors
        assert errors[0].startswith("sql: ")


def test_where_the_database_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def url(line: str) -> str:
        return database_url(load_text(f'[install]\nstate_directory = "{tmp_path}"\n{line}\n{CONFIGURATION}', "x.toml").config)

    assert url("") == f"sqlite:///{tmp_path}/edgeproxy.db"
    assert url('database = "sqlite:////var/x.db"') == "sqlite:////var/x.db"
    assert url('database = "postgresql://u@h/d"') == "postgresql://u@h/d"
    monkeypatch.setenv("EDGEPROXY_DATABASE", "mysql://u@h/d")
    assert url("") == "mysql://u@h/d"


def test_a_fork_rings_all_at_once() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        failure = await call.fork("sip:203.0.113.7", "sip:203.0.113.8")
        return Reject(failure.status_code if failure else 500)

    with SimulatedEdge(policy) as edge:
        edge.receive(request("INVITE"))
        out = [message for message in edge.sent if message.method == "INVITE"]
        assert [message.to for message in out] == ["203.0.113.7:5060", "203.0.113.8:5060"]
        edge.respond(out[0], 486)
        assert [message.status_code for message in edge.respond(out[1], 480) if message.status_code] == [480]


ENDLESS = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t WHERE :number != ''"


def test_a_statement_that_would_never_end_ends_at_its_deadline_and_costs_nothing_after_it(configuration: str) -> None:
    url = database_url(load_text(configuration, "edge.toml").config)

    async def ask() -> None:
        begun = time.monotonic()
        with pytest.raises(LookupFailed, match=r"no answer within 0\.2 s"):
            await fetch(url, ENDLESS, {"number": "1"}, 0.2)
        given_up = asyncio.create_task(fetch(url, ENDLESS, {"number": "1"}, 60))
        await asyncio.sleep(0.2)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        for deadline in (0.0005, 0.001, 0.002, 0.005):
            with pytest.raises(LookupFailed, match="no answer within"):
                await fetch(url, ENDLESS, {"number": "1"}, deadline)
        with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(LookupFailed, match=r"locked|no answer within"):
                await fetch(url, "SELECT carrier FROM dips", {}, 0.3)
            holder.execute("ROLLBACK")
        holder.close()
        # The connections are there for others, and nothing runs on.
        rows = await asyncio.gather(*(fetch(url, "SELECT carrier FROM dips WHERE number = '+4930'", {}, 1) for _ in range(20)))
        assert rows == [[{"carrier": "sip:203.0.113.7"}]] * 20
        assert time.monotonic() - begun < 3
        spent = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - spent < 0.25
        await close()

    asyncio.run(ask())


def test_a_statement_ends_with_its_call_and_nothing_of_it_reaches_the_log(configuration: str) -> None:
    policy, ended = Policy(), []

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        try:
            await call.sql(ENDLESS, {"number": "secret"}, deadline_seconds=60)
        except CallEnded as error:
            ended.append(error.status_code)
            raise
        return Reject(500)

    def turns(edge: SimulatedEdge, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not ended:
            edge.advance(0.001)
            time.sleep(0.01)

    with SimulatedEdge(policy, configuration=configuration, deadline_seconds=60) as edge:
        invite = request("INVITE").decode()
        assert edge.receive(invite).status_code == 100
        turns(edge, 0.3)
        head = "\r\n".join(line for line in invite.split("\r\n") if not line.startswith("Contact"))
        assert edge.receive(head.replace("INVITE", "CANCEL")).status_code == 487
        turns(edge, 10)
        assert ended == [487]
        spent = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - spent < 0.25, "SQLite goes on with nothing"
        assert edge.failures == []
