"""What guarding costs a call, and what floods do beside calls: in user space, and with the kernel's help."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import carrier
from load_run import load

from target import COMMANDS, LOAD_CORE, ROOT, Target

CALLERS = ("--callers", "2000")
"""A thousand trusted sources and a thousand limited ones, as `guard.toml` has them."""
GUARD = ROOT / "bench/load/guard.toml"
FLOORS = str(ROOT / "target/release/floors")


def _command(file: Path) -> list[str]:
    return [*COMMANDS["edgeproxy"][:2], str(file)]


def cost(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """The plain relay and the relay with sampling, a rate, a call limit and a fraud profile, in turns, beside the bare forwarder.

    Calls come from a thousand trusted sources and a thousand limited ones in turn.
    """
    rows = []
    for number in range(rounds):
        for name in ("floor", "edgeproxy", "edgeproxy-guard"):
            with Target(name, command=_command(GUARD) if name == "edgeproxy-guard" else None) as target:
                load(target, min(rate, 500), 1, words=CALLERS)
                run = load(target, rate, seconds, words=CALLERS)
                memory = target.memory_bytes()
            rows.append({"target": name, "rate": rate, "round": number, "cost": run.microseconds_per_call, "memory": memory, **run.report})
            print(f"{name:18} {rate}/s {run.microseconds_per_call:.1f} us/call, failed {run.report['failed']}", flush=True)
    return rows


def edge(rate: int, seconds: int, rounds: int, rules: int) -> list[dict[str, Any]]:
    """All that there is on a call's way, over so many rules, beside the bare forwarder."""
    rows = []
    with carrier.rule_file(rules) as file:
        for number in range(rounds):
            for name in ("floor", "edgeproxy-edge"):
                with carrier.proxy(file, 5, "edge.toml") if name == "edgeproxy-edge" else nullcontext(Target(name)) as target, target:
                    load(target, min(rate, 500), 1, digits=carrier.DIGITS)
                    run = load(target, rate, seconds, digits=carrier.DIGITS)
                    memory = target.memory_bytes()
                rows.append(
                    {"target": name, "rate": rate, "round": number, "cost": run.microseconds_per_call, "memory": memory, **run.report}
                )
                print(f"{name:18} {rate}/s {run.microseconds_per_call:.1f} us/call, {memory >> 20} MiB", flush=True)
    return rows


def _flood(rate: int, seconds: int, sources: int) -> subprocess.Popen[str]:
    line = ["taskset", "-c", LOAD_CORE, FLOORS, "flood", "127.0.0.1:5060", str(rate), str(seconds), str(sources)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def _asked(path: str) -> Any:
    """Ask the proxy's management."""
    line = ["curl", "-s", "--unix-socket", "/tmp/edgeproxy-bench/control.sock", f"http://edge/{path}"]  # noqa: S108
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def _counters() -> dict[str, int]:
    found: dict[str, int] = _asked("counters")
    return found


def _dropped() -> int:
    """How many datagrams of banned sources were dropped, by us and by the kernel."""
    counters = _counters()
    return counters["dropped_banned"] + counters["socket_drops"]


def _alone(command: list[str] | None, name: str, rate: int, seconds: int, sources: int) -> dict[str, Any]:
    """Processor time of each datagram of a flood that nothing stands beside."""
    with Target(name, command=command) as target:
        # Who is to be banned is by then; what the kernel dropped is told once a second.
        _flood(rate, 3, sources).wait()
        time.sleep(1.5)
        received = _dropped() if name != "sink" else 0
        before = target.processor_seconds()
        sent = int(_flood(rate, seconds, sources).communicate()[0])
        spent = target.processor_seconds() - before
        memory = target.memory_bytes()
        time.sleep(1.5)
        taken = _dropped() - received if name != "sink" else sent
    return {
        "target": name,
        "sent": sent,
        "taken": taken,
        "nanoseconds": spent / max(taken, 1) * 1e9,
        "share": spent / seconds,
        "memory": memory,
    }


def floods(seconds: int, rounds: int) -> dict[str, Any]:
    """Floods of one and of many sources: what a datagram costs that is dropped, and calls beside it."""
    sink = [FLOORS, "sink", "127.0.0.1:5060"]
    kernel = Path("/tmp/edgeproxy-bench-kernel.toml")  # noqa: S108
    kernel.write_text(GUARD.read_text() + "\n[flood.kernel]\nenabled = true\n")
    alone = []
    for _ in range(rounds):
        for name, command in (("sink", sink), ("edgeproxy-guard", _command(GUARD))):
            alone.append(_alone(command, name, 100_000, seconds, 1))
            print(alone[-1], flush=True)
    rows = []
    # (datagrams a second, sources, whether the kernel helps)
    for rate, sources, helped in ((0, 1, False), (50_000, 10_000, False), (0, 1, True), (50_000, 10_000, True)):
        if helped and os.geteuid() != 0:
            continue
        with Target("edgeproxy-guard", command=_command(kernel if helped else GUARD)) as target:
            calm = load(target, 500, seconds)
            # Strangers of five packets a second are noticed by their behaviour, which takes longer.
            patience = 20 if sources > 1 else 2
            flood = _flood(rate, 2 * seconds + patience + 3, sources)
            begun = load(target, 500, seconds)
            end = time.monotonic() + patience
            while _counters()["bans"] < sources and time.monotonic() < end:
                time.sleep(0.5)
            time.sleep(1.5)
            before = target.processor_seconds()
            beside = load(target, 500, seconds)
            spent = target.processor_seconds() - before
            sent = int(flood.communicate()[0])
            counters, memory = _counters(), target.memory_bytes()
        keys = ("failed", "refused", "unanswered")
        row = {
            "rate": rate,
            "sources": sources,
            "kernel": helped,
            "sent_per_second": sent / (2 * seconds + patience + 3),
            "calls": begun.report["attempted"] + beside.report["attempted"],
            "lost": sum(run.report[key] for run in (begun, beside) for key in keys),
            "p99_calm": calm.report["setup_p99_microseconds"],
            "share_calm": 500 * calm.microseconds_per_call / 1e6,
            "p99_beside": beside.report["setup_p99_microseconds"],
            "share": spent / seconds,
            "banned": counters["bans"],
            "memory": memory,
        }
        rows.append(row)
        print(row, flush=True)
    kernel.unlink()
    return {"alone": alone, "beside": rows}


def exactness(rate: int, calls: int) -> dict[str, Any]:
    """Races for the places of one key: callers that are refused, cancel while they are answered, or are gone without a word.

    Whoever is gone is found out by the longest time of a call, here three seconds. The callee counts what it has at once; in the end
    nothing may be held.
    """
    file = Path("/tmp/edgeproxy-bench-exact.toml")  # noqa: S108
    most = rate // 4
    text = (
        GUARD.read_text()
        .replace("workers = 1", "workers = 2")
        .replace('key = "{caller}"\nmost = 60000\n\n[fraud]', f'key = ""\nmost = {most}\n\n[fraud]')
    )
    file.write_text(text.replace("[tuning.timers]\n", "[tuning.timers]\ncall_seconds = 3\n"))
    words = ("--refused-every", "7", "--cancelled-every", "5", "--killed-every", "11")
    with Target("edgeproxy-guard", command=_command(file)) as target:
        run = load(target, rate, calls / rate, hold_milliseconds=200, words=words)
        end = time.monotonic() + 60
        while (found := _counters())["calls"] and time.monotonic() < end:
            time.sleep(1)
        used = _held()
        memory = target.memory_bytes()
    file.unlink()
    row = {
        "rate": rate,
        "limit": most,
        "most_live": run.report["most_live"],
        "admitted": found["calls_started"],
        "left": found["calls"],
        "held": used,
        "memory": memory,
        **{key: run.report[key] for key in ("attempted", "completed", "refused", "killed", "failed", "unanswered", "seconds")},
    }
    print(row, flush=True)
    return row


def _held() -> int:
    """Return the places that any key still has."""
    return sum(key["used"] for key in _asked("limits?name=calls")["keys"])


if __name__ == "__main__":
    print(json.dumps(floods(int(sys.argv[1]) if len(sys.argv) > 1 else 5, 1), indent=1))
