"""REGISTER: what one costs, with and without digest, what a binding takes, a storm after a restart, and keep-alives."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from load_run import load

from target import COMMANDS, LOAD_CORE, ROOT, Target, kamailio

DOMAIN = "edge.example"
LINGER = 20
"""Seconds after a load before memory is read."""
_ANSWER = [str(ROOT / "target/release/floors"), "answer", "127.0.0.1:5060"]


def _edgeproxy(file: str) -> list[str]:
    return [*COMMANDS["edgeproxy"][:2], str(ROOT / "bench/load" / file)]


@contextmanager
def _database(users: int) -> Iterator[None]:
    """A database of so many subscribers, u0 with the password pw0 and so on."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "users.db"
        line = [str(Path(sys.executable).with_name("edgeproxy")), "db", "init", f"sqlite:///{file}"]
        subprocess.run(line, check=True, capture_output=True)
        with sqlite3.connect(file) as connection:
            rows = ((f"u{number}", DOMAIN, f"pw{number}") for number in range(users))
            connection.executemany("INSERT INTO subscriber (username, domain, password) VALUES (?, ?, ?)", rows)
        connection.close()
        os.environ["EDGEPROXY_DATABASE"] = f"sqlite:///{file}"
        try:
            yield
        finally:
            del os.environ["EDGEPROXY_DATABASE"]


def _register(target: Target, rate: float, seconds: float, *words: str) -> dict[str, Any]:
    run = load(target, rate, seconds, scenario="register", words=("--domain", DOMAIN, *words))
    return {"target": target.name, "rate": rate, "cost": run.microseconds_per_call, **run.report}


def cost(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """New bindings at a steady rate: the bare answer, the proxy, Kamailio, in turns; and the proxy with digest, by request."""
    users = 20_000
    commands = {
        "floor": _ANSWER,
        "edgeproxy": _edgeproxy("registrar.toml"),
        "edgeproxy-digest": _edgeproxy("registrar_auth.toml"),
        "kamailio": kamailio(ROOT / "bench/load/kamailio_registrar.cfg"),
    }
    rows = []
    with _database(users):
        for number in range(rounds):
            for name, command in commands.items():
                digest = ("--users", str(users), "--password", "pw") if name == "edgeproxy-digest" else ()
                with Target(name, command=command) as target:
                    # Credentials are known once each user was there; an exchange is two requests.
                    pace = rate / 2 if digest else rate
                    _register(target, pace if digest else 500, users / pace + 1 if digest else 1, *digest)
                    row = _register(target, pace, seconds, *digest)
                row |= {"round": number, "cost": row["cost"] / (2 if digest else 1)}
                rows.append(row)
                print(f"{name:18} {rate}/s {row['cost']:.2f} us a request, {row['refused']} refused", flush=True)
    return rows


def memory(bindings: int, rate: int) -> list[dict[str, Any]]:
    """Memory of so many bindings some time after the load, and what of that load was refused or lost."""
    found = []
    commands = {"edgeproxy": _edgeproxy("registrar.toml"), "kamailio": kamailio(ROOT / "bench/load/kamailio_registrar.cfg")}
    for name, command in commands.items():
        with Target(name, command=command) as target:
            _register(target, 500, 1)
            before = target.memory_bytes()
            row = _register(target, rate, bindings / rate)
            time.sleep(LINGER)
            after = target.memory_bytes()
        lost = row["refused"] + row["failed"] + row["unanswered"]
        found.append(
            {"target": name, "rate": rate, "bindings": row["completed"], "each": (after - before) / max(row["completed"], 1), "lost": lost}
        )
        print(found[-1], flush=True)
    return found


def highest(rate: int, seconds: int) -> dict[str, Any]:
    """As many as a worker is asked to take: refused, lost, and memory before and after a second load of the same users."""
    with Target("edgeproxy", command=_edgeproxy("registrar.toml")) as target:
        users = str(rate * seconds)
        first = _register(target, rate, seconds, "--users", users)
        time.sleep(LINGER)
        before = target.memory_bytes()
        second = _register(target, rate, seconds, "--users", users)
        time.sleep(LINGER)
        after = target.memory_bytes()
    lost = [row["refused"] + row["failed"] + row["unanswered"] for row in (first, second)]
    done = {
        "rate": rate,
        "attempted": first["attempted"],
        "lost": lost,
        "before": before,
        "after": after,
        "p99": second["setup_p99_microseconds"],
    }
    print(done, flush=True)
    return done


@contextmanager
def _altered(file: str, more: str, **changes: str) -> Iterator[list[str]]:
    """The command for a configuration of `bench/load` with other values and more lines."""
    text = (ROOT / "bench/load" / file).read_text()
    for old, new in changes.items():
        text = re.sub(rf"^{old} = .*$", f"{old} = {new}", text, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_text(text + more)
        yield [*COMMANDS["edgeproxy"][:2], str(path)]


_CALLS = """
[peer.core]
kind = "core"
match = ["127.0.0.1:5070"]
to = ["sip:127.0.0.1:5070"]
[peer.trunk]
kind = "trusted"
match = ["127.0.0.1:5080"]
"""


@contextmanager
def _beside(scenario: str, rate: float, seconds: float, *words: str) -> Iterator[dict[str, Any]]:
    """Another load meanwhile; its report is filled in at the end."""
    line = [str(ROOT / "target/release/edge-load"), scenario, "--rate", str(rate), "--duration", str(seconds), *words]
    process = subprocess.Popen(["taskset", "-c", LOAD_CORE, *line], stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = {}
    yield report
    report |= json.loads(process.communicate()[0])


def _lost(report: dict[str, Any]) -> int:
    return int(sum(report[key] for key in ("refused", "failed", "unanswered")))


def storm(phones: int, seconds: int) -> dict[str, Any]:
    """All phones come back within a short time after a restart, with nothing cached, each over a challenge; calls of five seconds go on meanwhile."""
    pace, hold = 100, ("--hold-ms", "5000")
    register = ("--users", str(phones), "--password", "pw", "--caller", "127.0.0.2:5081", "--callee", "127.0.0.2:5071")
    with (
        _altered("registrar_auth.toml", _CALLS) as command,
        _database(phones),
        Target("edgeproxy", command=command) as target,
    ):
        with _beside("call", pace, 10, *hold) as alone:
            time.sleep(16)
        with _beside("call", pace, seconds + 5, *hold) as calls:
            time.sleep(4)
            row = _register(target, phones / seconds, seconds, *register)
    keys = ("attempted", "completed", "refused", "unanswered", "failed", "retransmissions", "seconds", "setup_p99_microseconds")
    done = {key: row[key] for key in keys}
    done["calls"] = {
        "attempted": calls["attempted"],
        "lost": _lost(calls),
        "p99_alone": alone["setup_p99_microseconds"],
        "p99": calls["setup_p99_microseconds"],
    }
    print(done, flush=True)
    return done


def dark(rate: int, seconds: int) -> dict[str, Any]:
    """The database is gone: users that are known go on, from stale credentials; others are told to come again; who is served is not slower."""
    users = 5_000
    known = ("--users", str(users), "--password", "pw", "--caller", "127.0.0.2:5081", "--callee", "127.0.0.2:5071")
    more = "stale_seconds = 3600\ndeadline_milliseconds = 500\n"
    with (
        _altered("registrar_auth.toml", more, fresh_seconds="1", domains='["edge.example", "cold.example"]') as command,
        _database(users),
        Target("edgeproxy", command=command) as target,
    ):
        _register(target, 1_000, users / 1_000 + 1, *known)
        before = _register(target, rate, seconds, *known)
        with sqlite3.connect(os.environ["EDGEPROXY_DATABASE"].removeprefix("sqlite:///")) as connection:
            connection.execute("ALTER TABLE subscriber RENAME TO elsewhere")
        connection.close()
        time.sleep(2)
        cold = ("--domain", "cold.example", "--users", str(users), "--password", "pw")
        with _beside("register", rate / 4, seconds, *cold) as unknown:
            after = _register(target, rate, seconds, *known)
    done = {
        "rate": rate,
        "attempted": after["attempted"],
        "lost": _lost(after),
        "p99_before": before["setup_p99_microseconds"],
        "p99": after["setup_p99_microseconds"],
        "unknown": unknown["attempted"],
        "refused": unknown["refused"],
        "unanswered": unknown["unanswered"] + unknown["failed"],
    }
    print(done, flush=True)
    return done


def keep_alive(bindings: int, seconds: int) -> list[dict[str, Any]]:
    """What a keep-alive costs: CRLF and a bare send at the same pace on the same processor at the same time, OPTIONS with its answer and a bare answer, and how many came in time."""
    rate = bindings // 30
    found = []
    with Target("floor", command=_ANSWER) as target:
        # What nothing is kept for costs the same from the first second on.
        row = _register(target, rate, min(seconds, 20))
        found.append({"kind": "bare answer", "each": row["cost"], "sent": row["attempted"]})
    for kind in ("crlf", "options"):
        text = (ROOT / "bench/load/keep_alive.toml").read_text().replace('method = "crlf"', f'method = "{kind}"')
        with tempfile.TemporaryDirectory() as folder, ExitStack() as beside:
            file = Path(folder) / "keep_alive.toml"
            file.write_text(text)
            target = beside.enter_context(Target("edgeproxy", command=[*COMMANDS["edgeproxy"][:2], str(file)]))
            _register(target, 16_000, bindings / 16_000)
            beside.enter_context(_sink(answers=kind == "options"))
            targets = [target]
            if kind == "crlf":
                floor = [str(ROOT / "target/release/floors"), "send", "127.0.0.1:5061", "127.0.0.1:5080", str(rate)]
                targets.append(beside.enter_context(Target("floor", command=floor)))
            time.sleep(5)
            counts, spent = _counters(), [one.processor_seconds() for one in targets]
            time.sleep(seconds)
            after = _counters()
            spent = [one.processor_seconds() - before for one, before in zip(targets, spent, strict=True)]
        sent, answered = (after[key] - counts[key] for key in ("keep_alives_sent", "keep_alives_answered"))
        found.append({"kind": kind, "each": spent[0] / max(sent, 1) * 1e6, "sent": sent, "answered": answered, "wanted": rate * seconds})
        found += [{"kind": "bare send", "each": alone / (rate * seconds) * 1e6, "sent": rate * seconds} for alone in spent[1:]]
        print(*found, sep="\n", flush=True)
    return found


@contextmanager
def _sink(*, answers: bool) -> Iterator[None]:
    """Whoever sits where all contacts point: takes everything, and answers it where that is wished."""
    words = ["answer", "127.0.0.1:5080"] if answers else ["udp", "127.0.0.1:5080", "127.0.0.1:9", "127.0.0.1:9"]
    process = subprocess.Popen(["taskset", "-c", LOAD_CORE, str(ROOT / "target/release/floors"), *words], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _counters() -> dict[str, int]:
    # Not by a command of ours, whose start takes longer than what is measured may wait.
    line = ["curl", "-s", "--unix-socket", "/tmp/edgeproxy-bench/control.sock", "http://edge/counters"]  # noqa: S108
    found: dict[str, int] = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return found


def guessing(guesses: int, rate: int, others: int) -> dict[str, Any]:
    """Guesses at many users from one address, beside honest users from another: what is found, and what the others notice."""
    seconds = guesses // rate
    with _database(1_000), Target("edgeproxy", command=_edgeproxy("registrar_auth.toml")) as target:
        honest = ("--users", "1000", "--password", "pw", "--caller", "127.0.0.2:5081")
        _register(target, others, 5, *honest)
        alone = _register(target, others, seconds, *honest)
        line = [str(ROOT / "target/release/edge-load"), "register", "--rate", str(rate), "--duration", str(seconds), "--domain", DOMAIN]
        attack = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, *line, "--callee", "127.0.0.1:5071", "--users", "50000", "--password", "guess"],
            stdout=subprocess.PIPE,
            text=True,
        )
        beside = _register(target, others, seconds, *honest)
        attack.kill()
        attack.communicate()
        line = [str(Path(sys.executable).with_name("edgeproxy")), "ban", "list", "--json", "--control", "/tmp/edgeproxy-bench/control.sock"]  # noqa: S108
        banned = [ban["source"] for ban in json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)["bans"]]
    keys = ("refused", "failed", "unanswered")
    done = {
        "guesses": guesses,
        "rate": rate,
        "others": others,
        "lost_alone": sum(alone[key] for key in keys),
        "lost_beside": sum(beside[key] for key in keys),
        "p99_alone": alone["setup_p99_microseconds"],
        "p99_beside": beside["setup_p99_microseconds"],
        "banned": banned,
    }
    print(done, flush=True)
    return done
