"""Asking a database: rows, nothing, and every way to get none."""

import sqlite3
from pathlib import Path

import pytest

from edgeproxy.config import load_text
from edgeproxy.config.database import database_url
from edgeproxy.policy import Call, LookupFailed, Policy, Reject, Relay, Verdict
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
