"""What is measured: each function runs its targets and returns plain data."""

import http.client
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from load_run import Run, load

from target import COMMANDS, LOAD_CORE, PROXY_CORE, ROOT, Target

SHARE = 0.25
TARGETS = ["floor", "edgeproxy", "kamailio"]


PYTHON_TARGETS = ["floor", "edgeproxy", "edgeproxy-python", "kamailio-python"]


def cost(rates: list[int], seconds: int, rounds: int, targets: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure each target at each rate, in turns, so that a slow minute of the machine hits all alike."""
    rows = []
    for number in range(rounds):
        for rate in rates:
            for name in targets or TARGETS:
                with Target(name) as target:
                    load(target, min(rate, 500), 1)
                    before = target.processor_seconds_by_process()
                    run = load(target, rate, seconds)
                    split = target.processor_seconds_by_process()
                    decisions = _decisions() if name == "edgeproxy-python" else {}
                if decisions:
                    decisions["bare_wake_microseconds"] = _bare_wake(rate, seconds)
                shares = {pid: (split[pid] - before.get(pid, 0)) / max(run.report["attempted"], 1) * 1e6 for pid in split}
                rows.append(
                    {
                        "target": name,
                        "rate": rate,
                        "round": number,
                        "split": sorted(shares.values(), reverse=True),
                        **decisions,
                        **_row(run),
                    }
                )
                print(
                    f"{name:10} {rate:6}/s {run.microseconds_per_call:7.1f} us/call p99 {run.report['setup_p99_microseconds']} us",
                    flush=True,
                )
    return rows


def _bare_wake(rate: int, seconds: int) -> float:
    """Return the median time to ask another process on the same processor and be answered, with nothing decided."""
    line = ["taskset", "-c", PROXY_CORE, str(ROOT / "target/release/floors"), "wake", str(rate), str(seconds)]
    return float(json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)["p50"])


def _decisions() -> dict[str, float]:
    """Return the times within which half and 99 % of the decisions were made, as upper bounds in microseconds, and what a decision's mean is made of."""
    control = Path("/tmp/edgeproxy-bench/control.sock")  # noqa: S108
    line = [str(Path(sys.executable).with_name("edgeproxy")), "metrics", "--control", str(control)]
    page = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    found = [(float(bound), int(value)) for bound, value in re.findall(r'decision_seconds_bucket\{[^}]*le="([^"]+)"\} (\d+)', page)]
    total = found[-1][1]
    within = {name: next(bound for bound, value in found if value >= share * total) for name, share in (("p50", 0.5), ("p99", 0.99))}
    counted = dict(re.findall(r"^edgeproxy_policy_(\w+?)(?:_total)?\{[^}]*\} ([\d.e+-]+)$", page, re.MULTILINE))
    parts = {
        "decision_mean_microseconds": float(counted["decision_seconds_sum"]) * 1e6 / total,
        "decision_wait_microseconds": float(counted["wait_microseconds"]) / float(counted["questions_taken"]),
        "decision_handling_microseconds": float(counted["handling_microseconds"]) / float(counted["questions_taken"]),
    }
    return parts | {f"decision_{name}_microseconds": round(bound * 1e6) if bound != float("inf") else -1 for name, bound in within.items()}


def _row(run: Run) -> dict[str, Any]:
    return {"cost": run.microseconds_per_call, **run.report}


def highest(name: str, start: int, seconds: int, share: float = 1.0) -> int:
    """Return the highest rate that is clean, to within 5 %; a rate that fails gets a second chance."""

    def clean(rate: int) -> bool:
        for _ in range(2):
            with Target(name, share=share) as target:
                run = load(target, rate, seconds)
            print(f"{name:10} {rate:6}/s {'clean' if run.clean else 'not clean: ' + run.fault}", flush=True)
            if run.clean:
                return True
        return False

    low, high = 0, start
    while clean(high):
        low, high = high, int(high * 1.4)
    while high - low > 0.05 * high:
        middle = (low + high) // 2
        low, high = (middle, high) if clean(middle) else (low, middle)
    return low


def overload(seconds: int) -> dict[str, Any]:
    """Find the highest rate that a part of a processor sustains, offer twice and four times that, and look at it 5 s later.

    The generator has one processor too: without the limit it would be the first to be overloaded. The rate is one that stays
    clean as long as the overload lasts: the transactions of the first seconds linger, so that a short run tells too much.
    """
    rows = []
    rate = highest("edgeproxy", 2_000, 5, SHARE)
    while True:
        with Target("edgeproxy", share=SHARE) as target:
            run = load(target, rate, seconds)
        print(f"edgeproxy  {rate:6}/s for {seconds} s {'clean' if run.clean else 'not clean: ' + run.fault}", flush=True)
        if run.clean:
            break
        served = statistics.mean(run.report["completed_by_second"][2 : seconds - 1])
        rate = int(min(rate * 0.95, served * 0.98))
    for factor in (2, 4):
        with Target("edgeproxy", share=SHARE) as target:
            run = load(target, rate * factor, seconds)
            time.sleep(5)
            after = load(target, rate * 0.5, 3)
        middle = run.report["completed_by_second"][2 : seconds - 1]
        served = statistics.mean(middle) if middle else 0
        rows.append({"factor": factor, "goodput": served, "share": served / rate, "clean_after": after.clean, **_row(run)})
        print(
            f"overload {factor} x: {served:.0f} calls/s served, {served / rate:.0%} of {rate}/s; "
            f"refused {run.report['refused']}, unanswered {run.report['unanswered']}, failed {run.report['failed']}",
            flush=True,
        )
    return {"rate": rate, "rows": rows}


def memory(rate: int, seconds: int, linger: int) -> dict[str, Any]:
    """Follow the memory of edgeproxy through a short warm-up and three equal loads with their linger."""
    trace: list[tuple[float, int]] = []
    with Target("edgeproxy") as target:
        start = time.monotonic()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                trace.append((time.monotonic() - start, target.memory_bytes()))

        thread = threading.Thread(target=watch)
        thread.start()
        load(target, 500, 10)
        time.sleep(linger)
        warm = target.memory_bytes()
        peaks, rests, failed = [], [], 0
        for _ in range(3):
            began = time.monotonic() - start
            failed += load(target, rate, seconds).report["failed"]
            time.sleep(linger)
            peaks.append(max(size for at, size in trace if at >= began))
            rests.append(target.memory_bytes())
        done.set()
        thread.join()
    print(f"memory: warm {warm >> 20} MiB, peaks {[peak >> 20 for peak in peaks]}, afterwards {[rest >> 20 for rest in rests]}", flush=True)
    return {
        "rate": rate,
        "seconds": seconds,
        "linger": linger,
        "warm": warm,
        "peaks": peaks,
        "rests": rests,
        "failed": failed,
        "trace": trace,
    }


def per_transaction() -> dict[str, float]:
    """Return bytes for a live call, and for what lingers of an ended one, each with two transactions."""
    calls = 20_000
    with Target("edgeproxy") as target:
        load(target, 500, 2)
        time.sleep(45)
        before = target.memory_bytes()
        held = threading.Thread(target=load, args=(target, 2_000, calls / 2_000), kwargs={"hold_milliseconds": 50_000})
        held.start()
        time.sleep(calls / 2_000 + 4)
        live = (target.memory_bytes() - before) / calls
        # The INVITE transactions are gone by now; what is left of a call is the call alone.
        time.sleep(33)
        bare = (target.memory_bytes() - before) / calls
        held.join()
        lingering = (target.memory_bytes() - before) / calls
    print(f"memory of a call: {live:.0f} bytes live, {bare:.0f} after its INVITE transaction, {lingering:.0f} lingering", flush=True)
    return {"live": live, "without_transaction": bare, "lingering": lingering}


def streams(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """The relay over TCP on both sides, against a bare TCP forwarder."""
    rows = []
    for _ in range(rounds):
        for name in ("floor-tcp", "edgeproxy"):
            with Target(name) as target:
                run = load(target, rate, seconds, transport="tcp")
            rows.append({"target": name, "rate": rate, **_row(run)})
            print(f"{name:10} tcp {rate:6}/s {run.microseconds_per_call:7.1f} us/call failed {run.report['failed']}", flush=True)
    return rows


def workers(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """One worker and two, proxy and load sharing both processors."""
    rows = []
    text = (ROOT / "bench/load/relay.toml").read_text()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "edge.toml"
        for _ in range(rounds):
            for count in (1, 2):
                file.write_text(text.replace("workers = 1", f"workers = {count}"))
                with Target("edgeproxy", cores="0,1", command=[*COMMANDS["edgeproxy"][:2], str(file)]) as target:
                    run = load(target, rate, seconds, cores="0,1")
                rows.append({"workers": count, "rate": rate, **_row(run)})
                print(f"{count} workers {rate:6}/s {run.microseconds_per_call:7.1f} us/call", flush=True)
    return rows


def reloads(count: int, rate: int, name: str = "relay.toml") -> dict[str, Any]:
    """So many reloads in a row under load, every other one with a peer more: calls that fail, and memory before and after.

    With policies each of them starts a process anew, since handlers may go by peers. Memory is without the queues that processes
    share: their pages are touched one after the other, whether there are reloads or not.
    """
    text = (ROOT / "bench/load" / name).read_text()
    line = [str(ROOT / "target/release/edge-load"), "call", "--rate", str(rate), "--duration"]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("edge.toml", "more.toml")]
        shutil.copy(ROOT / "bench/load/relay_policy.py", folder)
        files[0].write_text(text)
        files[1].write_text(text + '\n[peer.more]\nkind = "gateway"\nmatch = ["192.0.2.1"]\n')
        with Target("edgeproxy", command=[*COMMANDS["edgeproxy"][:2], str(files[0])]) as target:
            load(target, rate, 2)
            for number in range(20):
                _manage("POST", "/reload", {"path": str(files[number % 2])})
            # What lingers of calls is no matter of reloads.
            time.sleep(45)
            before = target.anonymous_bytes()
            run = subprocess.Popen(["taskset", "-c", LOAD_CORE, *line, "20"], stdout=subprocess.PIPE, text=True)
            begun = time.monotonic()
            times = []
            failed = 0
            for number in range(count):
                start = time.monotonic()
                status = _manage("POST", "/reload", {"path": str(files[number % 2])})
                times.append(time.monotonic() - start)
                failed += status != 200
                if run.poll() is not None:
                    failed += _lost(run)
                    run = subprocess.Popen(["taskset", "-c", LOAD_CORE, *line, "20"], stdout=subprocess.PIPE, text=True)
            seconds = time.monotonic() - begun
            run.wait(80)
            failed += _lost(run)
            time.sleep(45)
            after = target.anonymous_bytes()
    print(
        f"{count} reloads in {seconds:.0f} s under {rate} calls/s: failed {failed}, memory {before >> 10} to {after >> 10} KiB", flush=True
    )
    row = {"count": count, "rate": rate, "seconds": seconds, "failed": failed, "before": before, "after": after}
    return {**row, "median_milliseconds": statistics.median(times) * 1e3}


def _lost(run: "subprocess.Popen[str]") -> int:
    report = json.loads(run.stdout.read() if run.stdout else "{}")
    return int(report["failed"] + report["unanswered"] + report["refused"])


def _manage(method: str, path: str, body: dict[str, Any] | None = None) -> int:
    """Ask the proxy over its control socket and return the status; without our client, which would cost more than the answer."""

    class Local(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect("/tmp/edgeproxy-bench/control.sock")  # noqa: S108

    connection = Local("edgeproxy")
    connection.request(method, path, json.dumps(body) if body is not None else None)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def scraping(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """Processor time a second with metrics read ten times a second and without, in turns of so many seconds within one run.

    Two runs of the relay differ by more than the reading costs, and two windows next to each other by as much as one
    reading a second does: hence ten.
    """
    line = [str(ROOT / "target/release/edge-load"), "call", "--rate", str(rate), "--duration", str(2 * rounds * seconds + 4)]
    rows = []
    # The reader shares the load's processor: on the proxy's it would cost the proxy its caches.
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    with Target("edgeproxy") as target:
        run = subprocess.Popen(["taskset", "-c", LOAD_CORE, *line], stdout=subprocess.PIPE, text=True)
        time.sleep(2)
        for _ in range(rounds):
            for reads in (0, READS):
                begun, before = time.monotonic(), target.processor_seconds()
                for number in range(1, seconds * reads + 1):
                    _manage("GET", "/metrics")
                    time.sleep(max(0.0, begun + number / reads - time.monotonic()))
                time.sleep(max(0.0, begun + seconds - time.monotonic()))
                share = (target.processor_seconds() - before) / (time.monotonic() - begun)
                rows.append({"reads": reads, "rate": rate, "share": share})
                print(f"{rate}/s metrics read {reads:2} times a second: {share:7.2%} of a processor", flush=True)
        run.wait(80)
        report = json.loads(run.stdout.read() if run.stdout else "{}")
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return [{**row, "failed": report["failed"], "retransmissions": report["retransmissions"]} for row in rows]


def tracing(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """The relay with the trace that the configuration has by default, without any, and with a collector that takes it all."""
    rows = []
    text = (ROOT / "bench/load/relay.toml").read_text()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        kinds = {"off": "memory_bytes = 0", "memory": "", "collector": f'collector = "127.0.0.1:{collector.getsockname()[1]}"'}
        for _ in range(rounds):
            for kind, line in kinds.items():
                file = Path(folder) / "edge.toml"
                file.write_text(f"{text}\n[trace]\n{line}\n")
                with Target("edgeproxy", command=[*COMMANDS["edgeproxy"][:2], str(file)]) as target:
                    run = load(target, rate, seconds)
                rows.append({"trace": kind, "rate": rate, **_row(run)})
                print(f"{rate}/s trace {kind:9} {run.microseconds_per_call:7.1f} us/call failed {run.report['failed']}", flush=True)
    return rows


BUSY = """
import time
from edgeproxy.policy import Policy, Relay

policy = Policy()


@policy.on_request("INVITE")
def decide(call):
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return Relay(("sip:127.0.0.1:5070",))
"""


def policy_processes(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """Decide as many calls as possible with one policy process and with two, more being offered; a handler works for 10 ms.

    It works for so long that proxy and generator leave nearly two processors to the processes.
    """
    rows = []
    text = (ROOT / "bench/load/relay_python.toml").read_text().replace("relay_policy", "busy")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "busy.py").write_text(BUSY)
        file = Path(folder) / "edge.toml"
        for _ in range(rounds):
            for count in (1, 2):
                file.write_text(text.replace("workers = 1", f"workers = 1\npolicy_processes = {count}"))
                with Target("edgeproxy-python", cores="0,1", command=[*COMMANDS["edgeproxy"][:2], str(file)]) as target:
                    run = load(target, rate, seconds, cores="0,1")
                rows.append(
                    {"processes": count, "rate": rate, "decided": statistics.mean(run.report["completed_by_second"][2 : seconds - 1])}
                )
                print(f"{count} policy processes, {rate}/s offered: {rows[-1]['decided']:.0f}/s decided", flush=True)
    return rows


READS = 10
"""How often metrics are read in a second, to tell what one reading costs."""

SPINNER = """
import time
from edgeproxy.policy import CONTINUE, Policy

policy = Policy()


@policy.on_request("INVITE", peer="spinner")
def spin(call):
    end = time.monotonic() + 3_600
    while time.monotonic() < end:
        pass
    return CONTINUE
"""


def spinning(rate: int, seconds: int, rounds: int) -> list[dict[str, Any]]:
    """Calls that need no policy, alone and beside a policy process that spins on the proxy's own processor."""
    rows = []
    text = (ROOT / "bench/load/relay.toml").read_text()
    invite = (
        "INVITE sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.9:5099;branch=z9hG4bKspin\r\nMax-Forwards: 70\r\nFrom: <sip:a@x>;tag=1\r\n"
        "To: <sip:b@x>\r\nCall-ID: spin\r\nCSeq: 1 INVITE\r\nContact: <sip:a@127.0.0.9:5099>\r\nContent-Length: 0\r\n\r\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "spinner.py").write_text(SPINNER)
        file = Path(folder) / "edge.toml"
        more = '[peer.spinner]\nkind = "trusted"\nmatch = ["127.0.0.9"]\n[[policy]]\nmodule = "spinner"\n[tuning.policy]\nheartbeat_seconds = 60\n'
        file.write_text(f"{text}\n{more}")
        for _ in range(rounds):
            for spins in (False, True):
                with (
                    Target("edgeproxy", command=[*COMMANDS["edgeproxy"][:2], str(file)]) as target,
                    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller,
                ):
                    caller.bind(("127.0.0.9", 5_099))
                    time.sleep(1)
                    if spins:
                        caller.sendto(invite.encode(), ("127.0.0.1", 5_060))
                        time.sleep(1)
                    run = load(target, rate, seconds)
                rows.append({"spins": spins, "rate": rate, **_row(run)})
                shown = f"p50 {run.report['setup_p50_microseconds']} p99 {run.report['setup_p99_microseconds']} us failed {run.report['failed']}"
                print(f"{rate}/s policy {'spins' if spins else 'rests'} {shown}", flush=True)
    return rows


def garbage(seconds: int) -> dict[str, Any]:
    """20,000 datagrams of garbage a second beside 500 calls a second."""
    line = [str(ROOT / "target/release/edge-load"), "garbage", "--caller", "127.0.0.1:5081", "--callee", "127.0.0.1:5082"]
    with Target("edgeproxy") as target:
        flood = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, *line, "--rate", "20000", "--duration", str(seconds + 2)], stdout=subprocess.DEVNULL
        )
        time.sleep(1)
        run = load(target, 500, seconds)
        flood.wait(seconds + 10)
    print(f"500 calls/s beside 20,000 datagrams of garbage/s: failed {run.report['failed']}", flush=True)
    return _row(run)


def idle_connections(count: int) -> dict[str, Any]:
    """Memory of connections that say nothing."""
    opened: list[socket.socket] = []
    count = min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    with Target("edgeproxy") as target:
        before = target.memory_bytes()
        try:
            for number in range(count):
                connection = socket.socket()
                opened.append(connection)
                # One source address has some 28,000 ports.
                connection.bind((f"127.0.1.{number // 10_000 + 1}", 0))
                connection.connect(("127.0.0.1", 5060))
        finally:
            print(f"{len(opened)} connections", flush=True)
        time.sleep(3)
        each = (target.memory_bytes() - before) / max(len(opened), 1)
        run = load(target, 200, 3)
    for connection in opened:
        connection.close()
    print(f"{len(opened)} idle connections: {each:.0f} bytes each; calls failed beside them: {run.report['failed']}", flush=True)
    return {"connections": len(opened), "bytes_each": each, "failed": run.report["failed"]}
