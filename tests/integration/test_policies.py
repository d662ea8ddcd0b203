"""Policies in processes of their own: what they decide, and what must not happen where they fail."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent import Agent, answer, call, invite, values
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage, wait_for

Local = Callable[..., tuple[Proxy, int, int]]

POLICY = """
import asyncio, ctypes, time
from edgeproxy.policy import CONTINUE, Policy, Reject, Relay

policy = Policy()

@policy.on_request("INVITE", peer="local")
async def decide(call):
    match call.request_uri.user:
        case "spin":
            end = time.monotonic() + 60
            while time.monotonic() < end:
                pass
        case "block":
            ctypes.PyDLL(None).usleep(10_000_000)
        case "hang":
            await asyncio.sleep(3_600)
        case "raise":
            raise ValueError("on purpose")
        case "nonsense":
            return 42
        case "exit":
            import os
            os._exit(3)
        case "exit_later":
            await asyncio.sleep(0.01)
            raise SystemExit(3)
        case "wait":
            await asyncio.sleep(0.05)
        case "reject":
            return Reject(486, headers={"X-Policy": "yes"})
    call.set_header("X-Decided", call.from_uri.user)
    call.note("decided", "yes")
    return CONTINUE
"""


@pytest.fixture
def decided(local: Local, tmp_path: Path) -> Callable[..., tuple[Proxy, int, int]]:
    """Start a proxy whose calls of local peers are decided by `POLICY`."""
    (tmp_path / "decider.py").write_text(POLICY)

    def start(*, deadline: float = 1.0, heartbeat: float = 1.0, extra: str = "", **options: object) -> tuple[Proxy, int, int]:
        policy = f'[[policy]]\nmodule = "decider"\ndeadline_seconds = {deadline}\n[tuning.policy]\nheartbeat_seconds = {heartbeat}\n{extra}'
        return local(extra=policy, **options)

    return start


def outcome(caller: Agent, port: int, user: str, name: str, *, wait: float = 4) -> str:
    """Call `user` and return the final response."""
    caller.send(invite("INVITE", caller.port, f"sip:{user}@127.0.0.1", call_id=name, branch=name), port)
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if (
            (message := caller.receive(end - time.monotonic()))
            and not message.startswith("SIP/2.0 100")
            and f"Call-ID: {name}\r\n" in message
        ):
            return message
    return ""


def await_decisions(port: int) -> None:
    """Call until the policy decides again.

    From a socket of its own: refusals that nobody acknowledges are sent again, and would fill the caller's buffer.
    """
    deadline = time.monotonic() + 10
    with Agent() as prober:
        while not outcome(prober, port, "reject", f"again{time.monotonic()}", wait=1).startswith("SIP/2.0 486"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_policy_decides_calls_and_its_notes_reach_the_record(workers: int, decided: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = decided(core=core.port, workers=workers)
        for number in range(20):
            request, _ = call(caller, core, port, f"decided{number}")
            assert values(request, "X-Decided") == ["a"]
        refused = outcome(caller, port, "reject", "refused")
        assert refused.startswith("SIP/2.0 486")
        assert values(refused, "X-Policy") == ["yes"]
        caller.send(invite("INVITE", caller.port, "sip:wait@127.0.0.1", call_id="waits", branch="waits"), port)
        assert core.receive_until("INVITE", having="Call-ID: waits")
        # A core's own calls are not for this policy.
        core.send(invite("INVITE", core.port, f"sip:x@127.0.0.1:{caller.port}", call_id="own", branch="own"), port)
        assert values(caller.receive_until("INVITE"), "X-Decided") == []
        counters = proxy.counters()
        assert (counters["policy_questions"], counters["policy_errors"], counters["policy_deadlines"]) == (22, 0, 0)
        (record,) = (record for record in proxy.records(1) if record["call_id"] == "refused")
        assert (record["refused_by"], record["status_code"], len(record["trace_id"])) == ("policy", 486, 32)


@pytest.mark.alone
def test_whatever_a_handler_does_wrong_its_caller_gets_the_verdict_of_the_file_and_others_go_on(decided: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = decided(core=core.port, deadline=0.5)
        for user in ("raise", "nonsense", "hang", "exit_later"):
            start = time.monotonic()
            refused = outcome(caller, port, user, user)
            assert refused.startswith("SIP/2.0 500"), user
            assert values(refused, "Retry-After")
            assert time.monotonic() - start < 0.8
            call(caller, core, port, f"after-{user}")
        (line,) = (line for line in proxy.log if line.get("error") == "ValueError: on purpose")
        assert (line["call_id"], "decider.py:" in line["at"]) == ("raise", True)
        counters = proxy.counters()
        assert (counters["policy_deadlines"], counters["policy_errors"], counters["policy_restarts"]) == (1, 3, 0)
        # What native threads log is printed ten times a second.
        end = time.monotonic() + 3
        while not (found := [line for line in proxy.log if line["event"].startswith("no verdict on the request within its deadline")]):
            assert time.monotonic() < end
            time.sleep(0.05)
        (record,) = (record for record in proxy.records(4) if record["call_id"] == "hang")
        named = {"level": "warning", "part": "policy", "call_id": "hang", "trace_id": record["trace_id"]}
        assert [{key: line.get(key) for key in named} for line in found] == [named]


UNSEEN = """
import asyncio, threading
from edgeproxy.policy import CONTINUE, Policy

policy = Policy()
KEPT = []

async def fail():
    raise ValueError("nobody\\nawaits it")

async def leave():
    raise SystemExit(3)

def fail_in_a_thread():
    raise ValueError("a thread")

@policy.on_request("INVITE")
async def decide(call):
    match call.request_uri.user:
        case "task":
            asyncio.create_task(fail())
            await asyncio.sleep(0)
        case "exit":
            asyncio.get_running_loop().call_later(0.1, asyncio.create_task, leave())
            await asyncio.sleep(0.3)
        case "thread":
            threading.Thread(target=fail_in_a_thread).start()
        case "leak":
            asyncio.get_running_loop().call_later(0.2, lambda: KEPT.append(b"x" * (200 << 20)))
    return CONTINUE
"""


def test_what_fails_where_nobody_waits_is_one_line_of_the_log(local: Local, tmp_path: Path) -> None:
    (tmp_path / "unseen.py").write_text(UNSEEN)
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "unseen"')
        for user, error in (("task", "ValueError: nobody\nawaits it"), ("thread", "ValueError: a thread")):
            caller.send(invite("INVITE", caller.port, f"sip:{user}@127.0.0.1", call_id=user, branch=user), port)
            assert core.receive_until("INVITE", having=user)
            wait_for(lambda error=error: [line for line in proxy.log if line.get("error") == error], 3)
            (line,) = (line for line in proxy.log if line.get("error") == error)
            assert (line["event"], "unseen.py:" in line["at"]) == ("a task of a policy failed", True)
        # Nor does one that wants to end the process end others' handlers.
        caller.send(invite("INVITE", caller.port, "sip:exit@127.0.0.1", call_id="exit", branch="exit"), port)
        assert core.receive_until("INVITE", having="exit")
        (line,) = (line for line in proxy.log if line["event"] == "a task of a policy wanted its process to end, which goes on")
        assert line["error"] == "SystemExit: 3"
        assert proxy.counters()["policy_restarts"] == 0
        assert "Traceback" not in (proxy.folder / "edge.log").read_text()


@pytest.mark.alone
def test_a_process_that_takes_too_much_memory_is_started_anew(local: Local, tmp_path: Path) -> None:
    (tmp_path / "unseen.py").write_text(UNSEEN)
    with Agent() as caller, Agent() as core:
        tuning = "[tuning.policy]\nheartbeat_seconds = 0.3\nmemory_bytes = 157_286_400"
        proxy, port, _ = local(core=core.port, extra=f'[[policy]]\nmodule = "unseen"\n{tuning}')
        assert 10 << 20 < proxy.counters()["policy_memory_bytes"] < 150 << 20
        caller.send(invite("INVITE", caller.port, "sip:leak@127.0.0.1", call_id="leak", branch="leak"), port)
        assert core.receive_until("INVITE")
        wait_for(lambda: [line for line in proxy.log if line["event"] == "policy process lost"], 5)
        (line,) = (line for line in proxy.log if line["event"] == "policy process lost")
        assert "bytes of memory, more than tuning.policy.memory_bytes" in line["reason"]
        wait_for(lambda: [line for line in proxy.log if line["event"] == "policy process started"], 5)
        call(caller, core, port, "after")
        assert 10 << 20 < proxy.counters()["policy_memory_bytes"] < 150 << 20


def test_a_log_that_is_to_name_nobody_names_nobody(decided: Local) -> None:
    with Agent() as caller, Agent() as core:
        extra = '[log]\nmask_identities = true\n[events]\nlog = ["E_DLG_STATE_CHANGED", "X_TRY"]'
        proxy, port, _ = decided(core=core.port, deadline=0.3, extra=extra)
        for user in ("raise", "hang"):
            assert outcome(caller, port, user, f"secret-{user}").startswith("SIP/2.0 500")
        call(caller, core, port, "secret-call")
        assert manage(proxy, "events", "raise", "X_TRY", "who=secret-user")[0] == 0
        assert proxy.told("X_TRY") == [{"who": "(masked)"}]
        assert {state["callid"] for state in proxy.told("E_DLG_STATE_CHANGED")} == {"(masked)"}
        (line,) = (line for line in proxy.log if line["event"] == "a policy failed")
        assert (line["error"], len(line["trace_id"]), "call_id" in line) == ("ValueError: on purpose", 32, False)
        end = time.monotonic() + 3
        while not (found := [line for line in proxy.log if line["event"].startswith("no verdict on the request within")]):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert [(len(line["trace_id"]), "call_id" in line) for line in found] == [(32, False)]
        assert "secret" not in (proxy.folder / "edge.log").read_text()


@pytest.mark.parametrize("user", ["spin", "block", "exit"])
@pytest.mark.alone
def test_a_process_that_is_held_or_gone_is_replaced_and_holds_up_nobody_else(user: str, decided: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = decided(core=core.port, deadline=0.4)
        start = time.monotonic()
        assert outcome(caller, port, user, "bad").startswith("SIP/2.0 500")
        assert time.monotonic() - start < 0.7
        # Neither does management.
        for words in (("status",), ("metrics",), ("reload",)):
            begun = time.monotonic()
            assert manage(proxy, *words)[0] == 0
            assert time.monotonic() - begun < 1.5
        # Who needs no policy does not notice.
        core.send(invite("INVITE", core.port, f"sip:x@127.0.0.1:{caller.port}", call_id="own", branch="own"), port)
        assert caller.receive_until("INVITE", 0.3)
        # Who needs it gets an answer in time, until the process is there again.
        await_decisions(port)
        assert any(line["event"] == "policy process lost" for line in proxy.log)


def children(proxy: Proxy) -> list[int]:
    """Return the policy processes of a proxy."""
    assert proxy.process
    found = subprocess.run(["pgrep", "-P", str(proxy.process.pid)], capture_output=True, text=True, check=False).stdout
    return [int(number) for number in found.split()]


def resident_bytes(process: int) -> int:
    """Return the memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4_096


def test_a_leak_stays_in_its_process_and_ends_with_it(local: Local, tmp_path: Path) -> None:
    source = (
        "from edgeproxy.policy import CONTINUE, Policy\npolicy = Policy()\nKEPT = []\n@policy.on_request()\n"
        "def leak(call):\n    KEPT.append(b'x' * (20 << 20))\n    return CONTINUE\n"
    )
    (tmp_path / "leaky.py").write_text(source)
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "leaky"')
        assert proxy.process
        call(caller, core, port, "first")
        (process,) = children(proxy)
        server = resident_bytes(proxy.process.pid)
        for number in range(8):
            call(caller, core, port, f"leak{number}")
        assert resident_bytes(process) > 160 << 20
        assert resident_bytes(proxy.process.pid) < server + (20 << 20)
        (tmp_path / "leaky.py").write_text(source + "# changed\n")
        assert manage(proxy, "reload")[0] == 0
        call(caller, core, port, "after")
        deadline = time.monotonic() + 15
        while len(found := children(proxy)) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found != [process]
        assert [resident_bytes(number) < 100 << 20 for number in found] == [True]


def test_reloads_that_replace_the_process_leave_no_descriptor_open(decided: Local) -> None:
    with Agent() as core:
        proxy, _, _ = decided(core=core.port, extra="drain_seconds = 0")
        assert proxy.process
        descriptors = Path(f"/proc/{proxy.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        text = proxy.file.read_text()
        for number in range(12):
            # Another peer: handlers may go by peers, so the process is replaced.
            proxy.file.write_text(text + f'[peer.more{number}]\nkind = "gateway"\nmatch = ["192.0.2.{number}"]\n')
            assert manage(proxy, "reload")[0] == 0
        end = time.monotonic() + 10
        while len(list(descriptors.iterdir())) > before and time.monotonic() < end:
            time.sleep(0.1)
        assert len(list(descriptors.iterdir())) <= before
        assert len(children(proxy)) == 1


def test_what_processes_did_is_counted_over_all_that_came_and_went(decided: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = decided(core=core.port, extra="drain_seconds = 0")
        names = ("policy_questions_taken", "policy_wait_microseconds", "policy_handling_microseconds")
        before = [0, 0, 0]
        text = proxy.file.read_text()
        for turn in ("the first", "after it ended", "after a reload"):
            call(caller, core, port, turn.replace(" ", "-"))
            counters = proxy.counters()
            now = [counters[name] for name in names]
            assert all(new > old for new, old in zip(now, before, strict=True)), turn
            assert counters["policy_handling_microseconds"] < 5_000_000
            assert counters["policy_restarts"] == (turn != "the first")
            before = now
            if turn == "the first":
                assert outcome(caller, port, "exit", "exit").startswith("SIP/2.0 500")
                await_decisions(port)
            elif turn == "after it ended":
                proxy.file.write_text(text + '[peer.more]\nkind = "gateway"\nmatch = ["192.0.2.1"]\n')
                assert manage(proxy, "reload")[0] == 0


@pytest.mark.alone
def test_a_policy_that_floods_its_queue_harms_nobody_else(local: Local, tmp_path: Path) -> None:
    (tmp_path / "flood.py").write_text(
        "import threading\nfrom edgeproxy.policy import CONTINUE, Policy\npolicy = Policy()\n"
        "@policy.on_request(peer='local')\ndef flood(call):\n"
        "    def work(send=call._send, token=call.token):\n"
        "        for number in range(300_000):\n            send(token, b'nonsense')\n"
        "    if call.request_uri.user == 'flood':\n        threading.Thread(target=work, daemon=True).start()\n    return CONTINUE\n"
    )
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "flood"')
        caller.send(invite("INVITE", caller.port, "sip:flood@127.0.0.1", call_id="flood", branch="flood"), port)
        core.send(answer(core.receive_until("INVITE"), "486 Busy"), port)
        for number in range(20):
            start = time.monotonic()
            core.send(invite("INVITE", core.port, f"sip:x@127.0.0.1:{caller.port}", call_id=f"own{number}", branch=f"own{number}"), port)
            assert caller.receive_until("INVITE", 1, having=f"own{number}")
            assert time.monotonic() - start < 0.5
        counters = proxy.counters()
        assert counters["late_answers"] + counters["policy_errors"] > 1_000
        assert (counters["panics"], counters["policy_restarts"]) == (0, 0)


def test_two_processes_share_the_work(decided: Local, tmp_path: Path) -> None:
    (tmp_path / "decider.py").write_text(POLICY.replace('call.note("decided", "yes")', "import os; call.note('pid', str(os.getpid()))"))
    with Agent() as caller, Agent() as core:
        port = free_port()
        toml = (
            f'[install]\npolicy_processes = 2\nstate_directory = "STATE"\n[install.listener.udp]\naddress = "udp:127.0.0.1:{port}"\n'
            f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n'
            '[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n[[policy]]\nmodule = "decider"\n'
        )
        proxy = Proxy(tmp_path, toml).start()
        try:
            for number in range(10):
                caller.send(invite("INVITE", caller.port, "sip:b@127.0.0.1", call_id=f"s{number}", branch=f"s{number}"), port)
                core.send(answer(core.receive_until("INVITE"), "486 Busy"), port)
                assert caller.receive_until("SIP/2.0 486")
            assert len({record["notes"]["pid"] for record in proxy.records(10)}) == 2
        finally:
            assert proxy.stop() == 0


@pytest.mark.alone
def test_a_process_that_is_asked_twice_what_it_can_decide_spends_no_time_on_verdicts_that_come_too_late(
    local: Local, tmp_path: Path
) -> None:
    (tmp_path / "busy.py").write_text(
        "import time\nfrom edgeproxy.policy import Policy, Reject\npolicy = Policy()\n@policy.on_request('INVITE')\ndef decide(call):\n"
        "    end = time.thread_time() + 0.02\n    while time.thread_time() < end:\n        pass\n    return Reject(486)\n"
    )
    with Agent() as caller, Agent() as core:
        _, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "busy"\ndeadline_seconds = 0.4')
        decided, late = set(), set()
        begun = time.monotonic()
        for number in range(300):
            caller.send(invite("INVITE", caller.port, "sip:b@127.0.0.1", call_id=f"busy{number}", branch=f"busy{number}"), port)
            while message := caller.receive(max(0.001, begun + 0.01 * number - time.monotonic())):
                # Nobody acknowledges: each comes several times.
                (call_id,) = values(message, "Call-ID")
                if message.startswith("SIP/2.0 486"):
                    decided.add(call_id)
                elif message.startswith("SIP/2.0 500"):
                    late.add(call_id)
        # Fifty a second for three seconds is what one process can do at most; with all taken in turn it decided the first 40.
        assert len(decided) > 70
        assert len(decided | late) > 200


def test_a_module_that_cannot_be_used_is_refused_by_check_and_run_alike(tmp_path: Path) -> None:
    broken = {
        "syntax": ("x = (\n", "syntax.py:1: SyntaxError"),
        "absent": ("", "absent.toml:9: policy module absent: no such module beside the file or on Python's path"),
        "imports": ("\nimport not_there\n", "imports.py:2: ModuleNotFoundError: No module named 'not_there'"),
        "without": ("x = 1\n", "without.py: expected `policy = Policy()` in module without"),
        "empty": ("from edgeproxy.policy import Policy\npolicy = Policy()\n", "empty.py: module empty has no handler"),
        "shape": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request('INVITE')\ndef f(): pass\n",
            "shape.py:3: PolicyError: f: expected",
        ),
        "exits": ("import sys\nsys.exit(1)\n", "exits.py:2: SystemExit: 1"),
        "peers": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request('INVITE', peer='nobody')\ndef f(call): pass\n",
            "peers.py:3: f: no peer or kind of peer nobody; there are: core",
        ),
        "yields": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request()\ndef f(call):\n    yield 1\n",
            "yields.py:3: PolicyError: f: a handler returns its verdict, it must not yield",
        ),
        "yields_later": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request()\nasync def f(call):\n    yield 1\n",
            "yields_later.py:3: PolicyError: f: a handler returns its verdict, it must not yield",
        ),
        "acks": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_in_dialog('ACK')\ndef f(call): pass\n",
            "acks.py:3: PolicyError: on_in_dialog: nobody is asked about ACK",
        ),
        "bare": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request\ndef f(call): pass\n",
            "bare.py:3: PolicyError: on_request: expected @policy.on_request() with parentheses",
        ),
        "typed": (
            "from edgeproxy.policy import Policy\npolicy = Policy(options=3)\n",
            "typed.py:2: PolicyError: Policy: expected a subclass",
        ),
        "gone": ("import os\nos._exit(7)\n", "policies: the process ended with 7 before it was ready: a module may have done so"),
        "surplus": (
            "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request()\ndef f(call): pass\n",
            "surplus.toml:9: surplus takes no options, got: x",
        ),
    }
    # The current directory is nobody's: what lies there is not imported, whatever its name.
    for name in ("json", "uvloop", "token"):
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "here" / f"{name}.py").write_text("raise RuntimeError('of the current directory')\n")
    for name, (source, expected) in broken.items():
        if source:
            (tmp_path / f"{name}.py").write_text(source)
        file = tmp_path / f"{name}.toml"
        file.write_text(
            f'[install]\nstate_directory = "{tmp_path}/state"\n[install.listener.udp]\naddress = "udp:127.0.0.1:{free_port()}"\n[peer.core]\nkind = "core"\n'
            f'match = ["127.0.0.1"]\n[[policy]]\nmodule = "{name}"\n' + ("options = { x = 1 }\n" if name == "surplus" else "")
        )
        results = [
            subprocess.run([EDGEPROXY, verb, file], capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path / "here")
            # A start reads modules as the check does; each process costs a second.
            for verb in (("check", "run") if name in {"syntax", "surplus", "gone"} else ("check",))
        ]
        assert {result.returncode for result in results} == {1}, name
        assert expected in results[0].stderr, results[0].stderr
        assert len({result.stderr for result in results}) == 1


def test_what_a_module_prints_or_starts_at_import_disturbs_nobody(local: Local, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import os, subprocess\nprint('hello')\nsubprocess.run(['echo', 'noise'])\nos.write(1, b'more')\n" + POLICY
    )
    with Agent() as caller, Agent() as core:
        _, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "loud"')
        assert values(call(caller, core, port, "loud")[0], "X-Decided") == ["a"]


def test_policy_processes_end_with_the_server_however_that_ends(decided: Local) -> None:
    with Agent() as core:
        for number in (signal.SIGTERM, signal.SIGKILL):
            proxy, _, _ = decided(core=core.port)
            assert proxy.process
            children = subprocess.run(["pgrep", "-P", str(proxy.process.pid)], capture_output=True, text=True, check=True).stdout.split()
            assert len(children) == 1
            proxy.signal(number)
            proxy.process.wait(10)
            time.sleep(0.3)
            # Nobody may be there to bury it, but it must be dead.
            status = Path(f"/proc/{children[0]}/stat")
            assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


SAYING = """
import logging
import sys
from edgeproxy.policy import Policy
policy = Policy()
print("while it is imported")

@policy.on_request("INVITE")
def decide(call):
    print("who calls:", call.from_uri.user, end="")
    print(" at last\\nand", "x" * 3_000)
    logging.getLogger("own").info("nobody wants it")
    try:
        raise ValueError("caught")
    except ValueError:
        logging.getLogger("own").exception("%s of %d", "one", 2)
    logging.warning("%d", "no number")
    print("to the other", file=sys.stderr)
"""
SAYING_LATER = """
import asyncio
import logging
from edgeproxy.policy import Policy
policy = Policy()

def in_a_thread():
    print("in a thread")

@policy.on_request("INVITE")
async def wait(call):
    await asyncio.to_thread(in_a_thread)
    logging.warning("it waited")
"""


def test_what_policies_print_and_log_are_lines_of_the_log(local: Local, tmp_path: Path) -> None:
    (tmp_path / "saying.py").write_text(SAYING)
    (tmp_path / "later.py").write_text(SAYING_LATER)
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "saying"\n[[policy]]\nmodule = "later"')
        caller.send(invite("INVITE", caller.port, "sip:bob@127.0.0.1", call_id="says", branch="says"), port)
        assert core.receive_until("INVITE", having="says")
        wait_for(lambda: any(line.get("text") == "it waited" for line in proxy.log), 3)
        printed = [(line["stream"], line["level"], line["text"]) for line in proxy.log if line["event"] == "printed by a policy"]
        assert printed == [
            ("stdout", "info", "while it is imported"),
            ("stdout", "info", "who calls: a at last"),
            ("stdout", "info", f"and {'x' * 1_996}... (3004 characters)"),
            ("stderr", "info", "to the other"),
            ("stdout", "info", "in a thread"),
        ]
        of_the_call = {line["text"][:12] for line in proxy.log if "by a policy" in line["event"] and line.get("call_id") == "says"}
        assert of_the_call == {"who calls: a", f"and {'x' * 8}", "to the other", "one of 2", "%d (TypeErro", "it waited"}
        logged = [line for line in proxy.log if line["event"] == "logged by a policy"]
        assert [(line["logger"], line["level"], line["text"], line.get("error")) for line in logged] == [
            ("own", "error", "one of 2", "ValueError: caught"),
            ("root", "warning", "%d (TypeError: %d format: a real number is required, not str)", None),
            ("root", "warning", "it waited", None),
        ]
        assert [Path(line["at"]).name.split(":")[0] for line in logged] == ["saying.py", "saying.py", "later.py"]


ASKING = """
import sys
from edgeproxy.policy import Policy, Reject
policy = Policy()

@policy.on_request("INVITE")
async def decide(call):
    call.note("there", ",".join(sorted({"aiohttp", "aiosqlite"} & set(sys.modules))))
    if call.request_uri.user == "asks":
        await call.http_json("http://127.0.0.1:1/")
        await call.sql("SELECT 1")
    return Reject(486)
"""


@pytest.mark.parametrize("asks", [True, False])
def test_what_a_policy_asks_services_with_is_there_before_its_first_question(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    text = ASKING if asks else ASKING.replace("http_json", "variables").replace("sql", "variables")
    (tmp_path / "asking.py").write_text(text)
    sqlite3.connect(tmp_path / "some.db").close()
    monkeypatch.setenv("EDGEPROXY_DATABASE", f"sqlite:///{tmp_path}/some.db")
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "asking"\n')
        caller.send(invite("INVITE", caller.port, "sip:bob@127.0.0.1", call_id="asks", branch="asks"), port)
        assert caller.receive_until("SIP/2.0 486")
        (record,) = proxy.records()
        assert record["notes"]["there"] == ("aiohttp,aiosqlite" if asks else "")


FAILING = """
from edgeproxy.policy import Policy
policy = Policy()

@policy.on_request("INVITE")
async def decide(call):
    await call.sleep(0)
    if call.request_uri.user == __name__:
        raise ValueError
"""


def test_the_sender_gets_what_the_module_says_that_failed(local: Local, tmp_path: Path) -> None:
    tables = ""
    for name, status in (("first", 501), ("second", 580), ("third", 481)):
        (tmp_path / f"{name}.py").write_text(FAILING)
        tables += f'[[policy]]\nmodule = "{name}"\non_error.status = {status}\n'
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra=tables)
        for name, status in (("third", 481), ("first", 501), ("second", 580)):
            caller.send(invite("INVITE", caller.port, f"sip:{name}@127.0.0.1", call_id=name, branch=name), port)
            assert caller.receive_until(f"SIP/2.0 {status}", having=name)
        assert proxy.counters()["policy_errors"] == 3
