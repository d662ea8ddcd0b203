"""Carrier routing: loading rules, looking numbers up, calls over a million rules, reloads and dying gateways under load."""

import json
import os
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from load_run import load

from target import COMMANDS, LOAD_CORE, ROOT, Target

DIGITS = 11
GATEWAYS = 1_000
_LOADER = """
import asyncio, json, resource, sys, time
from pathlib import Path
from edgeproxy.config import load_text
from edgeproxy.server.route_load import read_tables

def size():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

text = '[install.listener.a]\\naddress = "udp:127.0.0.1:5060"\\n[peer.g]\\nkind = "gateway"\\ngateway_types = [-1]\\n'
loaded = load_text(text, "bench.toml")
before, spent = size(), time.process_time()
tables, report, _ = asyncio.run(read_tables(loaded, None))
spent = time.process_time() - spent
print(json.dumps({"seconds": spent, "bytes": size() - before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
                  "table": report.partitions[0].bytes, "faults": report.fault_count, "rules": report.partitions[0].rules}))
"""


def make(file: Path, rules: int, *, address: str = "127.0.0.1:5070") -> None:
    """Make a database of random rules of 3 to 10 digits, each with 3 of 1,000 gateways at `address`, and a default rule."""
    line = [str(Path(sys.executable).with_name("edgeproxy")), "db", "init", f"sqlite:///{file}"]
    subprocess.run(line, check=True, capture_output=True)
    pick = random.Random(1)  # noqa: S311 - rules are no secret

    def rows() -> Iterator[tuple[str, str]]:
        yield "", "gw0,gw1,gw2"
        for _ in range(rules - 1):
            length = pick.randint(3, 10)
            yield f"{pick.randrange(10**length):0{length}}", ",".join(f"gw{pick.randrange(GATEWAYS)}" for _ in range(3))

    with sqlite3.connect(file) as connection:
        connection.executemany(
            "INSERT INTO dr_gateways (gwid, address) VALUES (?, ?)", ((f"gw{number}", address) for number in range(GATEWAYS))
        )
        connection.executemany("INSERT INTO dr_rules (groupid, prefix, gwlist) VALUES ('0', ?, ?)", rows())
    connection.close()


def loading(sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    """Processor time and memory of loading so many rules from SQLite, each time in a fresh process."""
    found = []
    for rules in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rules.db"
            make(file, rules)
            environment = {**os.environ, "EDGEPROXY_DATABASE": f"sqlite:///{file}"}
            for _ in range(rounds):
                done = subprocess.run([sys.executable, "-c", _LOADER], env=environment, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout))
                print(f"{rules} rules: {found[-1]}", flush=True)
    return found


def lookups() -> dict[str, float]:
    """Nanoseconds of one lookup of a random number among a million rules, with warm and with cold caches."""
    subprocess.run(["cargo", "bench", "-q", "-p", "micro", "--bench", "lookup"], cwd=ROOT, check=True, capture_output=True)
    found = {}
    for name in ("warm", "cold"):
        estimates = json.loads((ROOT / f"target/criterion/lookup_{name}/new/estimates.json").read_text())
        found[name] = estimates["mean"]["point_estimate"]
    print(found, flush=True)
    return found


@contextmanager
def rule_file(count: int) -> Iterator[Path]:
    """A database of so many rules."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.db"
        make(file, count)
        yield file


@contextmanager
def proxy(file: Path, seconds: float, name: str = "carrier.toml") -> Iterator[Target]:
    """A proxy with a configuration of `bench/load` over the rules of a file, which take so long to load."""
    os.environ["EDGEPROXY_DATABASE"] = f"sqlite:///{file}"
    try:
        with Target(f"edgeproxy-{name.partition('.')[0]}", command=[*COMMANDS["edgeproxy"][:2], str(ROOT / "bench/load" / name)]) as target:
            time.sleep(seconds)
            yield target
    finally:
        del os.environ["EDGEPROXY_DATABASE"]


def cost(rate: int, seconds: int, rounds: int, rules: int) -> list[dict[str, Any]]:
    """The plain relay and calls over so many rules, in turns, beside the bare forwarder."""
    rows = []
    with rule_file(rules) as file:
        for number in range(rounds):
            for name in ("floor", "edgeproxy", "edgeproxy-carrier"):
                with proxy(file, 5) if name == "edgeproxy-carrier" else Target(name) as target:
                    load(target, min(rate, 500), 1, digits=DIGITS)
                    run = load(target, rate, seconds, digits=DIGITS)
                    memory = target.memory_bytes()
                rows.append(
                    {"target": name, "rate": rate, "round": number, "cost": run.microseconds_per_call, "memory": memory, **run.report}
                )
                print(f"{name:18} {rate}/s {run.microseconds_per_call:.1f} us/call", flush=True)
    return rows


def reloads(rate: int, seconds: int, rules: int) -> dict[str, Any]:
    """Set-up times under load without and with reloads of all rules, one after the other."""
    with rule_file(rules) as file, proxy(file, 5) as target:
        load(target, rate, 2, digits=DIGITS)
        before = load(target, rate, seconds, digits=DIGITS).report
        # By the API: what starting a command of ours takes from the proxy's processor is no part of a reload.
        control = "/tmp/edgeproxy-bench/control.sock"  # noqa: S108
        line = ["curl", "-sf", "--unix-socket", control, "-X", "POST", "-d", "{}", "http://edge/routes/reload"]
        tool = str(ROOT / "target/release/edge-load")
        words = [tool, "call", "--rate", str(rate), "--duration", str(seconds), "--digits", str(DIGITS)]
        run = subprocess.Popen(["taskset", "-c", LOAD_CORE, *words], stdout=subprocess.PIPE, text=True)
        count = 0
        times = []
        while run.poll() is None:
            begun = time.monotonic()
            subprocess.run(line, check=True, capture_output=True)
            times.append(time.monotonic() - begun)
            count += 1
            time.sleep(1)
        during = json.loads(run.stdout.read() if run.stdout else "{}")
        memory = target.memory_bytes()
    keys = ("failed", "refused", "unanswered")
    done = {
        "rules": rules,
        "rate": rate,
        "count": count,
        "seconds": statistics.median(times),
        "lost": sum(during[key] for key in keys),
        "attempted": during["attempted"],
        "p99_before": before["setup_p99_microseconds"],
        "p99_during": during["setup_p99_microseconds"],
        "memory": memory,
    }
    print(done, flush=True)
    return done


def hanging(rate: int, dipped: int, seconds: int) -> dict[str, Any]:
    """Set-up times of calls that ask nobody: alone, beside others whose number lookup is refused at once, and where it never answers.

    The second of these says what the others cost by themselves; what the third has more comes from the hanging.
    """
    config = str(ROOT / "bench/load/lookup.toml")
    callers = ("--caller", "127.0.0.1:5081", "--callee", "127.0.0.1:5071", "--digits", str(DIGITS))
    words = [str(ROOT / "target/release/edge-load"), "call", *callers, "--rate", str(dipped), "--duration", str(seconds + 2)]

    def beside(target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
        others = subprocess.Popen(["taskset", "-c", LOAD_CORE, *words], stdout=subprocess.PIPE, text=True)
        time.sleep(1.5)
        report = load(target, rate, seconds).report
        return report, json.loads(others.communicate()[0])

    with Target("edgeproxy", command=[*COMMANDS["edgeproxy"][:2], config]) as target:
        load(target, rate, 2)
        alone = load(target, rate, seconds).report
        refused, _ = beside(target)
        with socket.create_server(("127.0.0.1", 8090), backlog=4_096):
            hung, waited = beside(target)
    done = {
        "rate": rate,
        "dipped": dipped,
        "p99_alone": alone["setup_p99_microseconds"],
        "p99_refused": refused["setup_p99_microseconds"],
        "p99_beside": hung["setup_p99_microseconds"],
        "lost": sum(hung[key] for key in ("failed", "refused", "unanswered")),
        "attempted": hung["attempted"],
        "waited_p50": waited["setup_p50_microseconds"],
        "waited_lost": sum(waited[key] for key in ("failed", "refused", "unanswered")),
        "waited_attempted": waited["attempted"],
    }
    print(done, flush=True)
    return done


def killed(rate: int, seconds: int) -> dict[str, Any]:
    """Calls of SIPp at a steady rate while the first of two gateways, SIPp too, is killed; what became of them its records tell."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.db"
        subprocess.run(
            [str(Path(sys.executable).with_name("edgeproxy")), "db", "init", f"sqlite:///{file}"], check=True, capture_output=True
        )
        with sqlite3.connect(file) as connection:
            connection.executemany(
                "INSERT INTO dr_gateways (gwid, address) VALUES (?, ?)", [("victim", "127.0.0.1:5071"), ("other", "127.0.0.1:5070")]
            )
            connection.execute("INSERT INTO dr_rules (groupid, prefix, gwlist) VALUES ('0', '', 'victim,other')")
        connection.close()
        records = Path("/tmp/edgeproxy-bench/records/calls.jsonl")  # noqa: S108
        records.unlink(missing_ok=True)

        def sipp(*words: str) -> "subprocess.Popen[bytes]":
            line = ["sipp", *words, "-i", "127.0.0.1", "-nostdin"]
            return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

        with proxy(file, 1):
            victim, other = (sipp("-sn", "uas", "-p", port) for port in ("5071", "5070"))
            time.sleep(1)
            count = str(rate * seconds)
            caller = sipp("-sn", "uac", "-p", "5080", "-r", str(rate), "-m", count, "-s", "4930", "-d", "0", "127.0.0.1:5060")
            time.sleep(seconds / 2)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            caller.wait(seconds + 60)
            other.kill()
            other.wait()
            time.sleep(1)
        calls = [json.loads(line) for line in records.read_text().splitlines()]
    rang = [
        call
        for call in calls
        if call["outcome"] != "answered" and any(attempt["ringing_milliseconds"] is not None for attempt in call["attempts"])
    ]
    lost = [call for call in calls if call["outcome"] != "answered" and call not in rang]
    done = {
        "rate": rate,
        "attempted": len(calls),
        "lost": len(lost),
        "rang": len(rang),
        "moved": sum(len(call["attempts"]) > 1 for call in calls),
        "setup_max_milliseconds": max(call["setup_milliseconds"] for call in calls),
    }
    print(done, flush=True)
    return done
