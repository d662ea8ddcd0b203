"""REGISTER: what one costs, with and without digest, what a binding takes, a storm after a restart, and keep-alives."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from load_run import load

from target import COMMANDS, ROOT, Target, kamailio

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


def storm(phones: int, seconds: int) -> dict[str, Any]:
    """All phones come back within a short time after a restart, with nothing cached, each over a challenge."""
    with _database(phones), Target("edgeproxy", command=_edgeproxy("registrar_auth.toml")) as target:
        row = _register(target, phones / seconds, seconds, "--users", str(phones), "--password", "pw")
    keys = ("attempted", "completed", "refused", "unanswered", "failed", "retransmissions", "seconds", "setup_p99_microseconds")
    done = {key: row[key] for key in keys}
    print(done, flush=True)
    return done
