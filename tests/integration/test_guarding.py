"""Floods, limits, fraud and emergency calls at a real process: what is refused, what is told, and what an operator does about it."""

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.agent import Agent, answer, bye, invite, values
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage, wait_for

TOML = """
[install]
workers = {workers}
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = ["sip:127.0.0.1:{core}"]
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/24"]
[events]
log = ["E_PIKE_BLOCKED", "E_PIKE_UNBLOCKED", "E_BAN_ADDED", "E_LIMIT_REACHED", "E_FRD_WARNING", "E_FRD_CRITICAL", "E_FRD_BARRED", "E_FRD_UNBARRED", "E_EMERGENCY_CALL"]
{extra}
"""
FILTER = Path(__file__).parent.parent.parent / "examples" / "fail2ban" / "filter.d" / "edgeproxy.conf"
Start = Callable[..., tuple[Proxy, int, Agent]]


@pytest.fixture
def guarded(start_proxy: Callable[..., Proxy]) -> Iterator[Start]:
    cores: list[Agent] = []

    def start(extra: str, *, workers: int = 1) -> tuple[Proxy, int, Agent]:
        core = Agent()
        port = free_port()
        cores.append(core)
        return start_proxy(TOML.format(port=port, core=core.port, workers=workers, extra=extra)), port, core

    yield start
    for core in cores:
        core.close()


def ask(phone: Agent, port: int, number: str, call_id: str, method: str = "INVITE") -> None:
    phone.send(invite(method, phone.port, f"sip:{number}@edge.example", call_id=call_id, branch=call_id), port)


def refusal(phone: Agent, call_id: str) -> str:
    """Return the first answer of a call that is no 100."""
    while (reply := phone.receive()) and (reply.startswith("SIP/2.0 100") or f"Call-ID: {call_id}\r\n" not in reply):
        pass
    return reply


@pytest.mark.alone
def test_a_flood_is_stopped_and_its_neighbour_served(guarded: Start) -> None:
    proxy, port, core = guarded("[flood]\npackets = 100\nblock_seconds = 3\nmalformed_points = 0\n", workers=2)
    with Agent("127.0.0.50") as attacker, Agent("127.0.0.51") as neighbour:
        for number in range(300):
            attacker.send(f"garbage {number}", port)
        assert proxy.told("E_PIKE_BLOCKED")[0] == {"ip": "127.0.0.50", "state": "blocked", "reason": "flood: 100 packets in 2 s"}
        said = manage(proxy, "ban", "explain", "127.0.0.50")[1]
        assert "banned for" in said
        assert "flood: 100 packets in 2 s" in said
        ask(neighbour, port, "49301", "fine")
        core.send(answer(core.receive_until("INVITE"), "486 Busy"), port)
        assert core.receive_until("ACK")
        ask(attacker, port, "49301", "banned")
        assert core.receive(0.5) == ""
        # What fail2ban reads, with the pattern that we give away.
        assert any(line["event"].startswith("ban of 127.0.0.50 is over") for line in proxy.log) or proxy.told("E_PIKE_UNBLOCKED", seconds=6)
        pattern = re.findall(r"^failregex = (.*)$", FILTER.read_text(), re.MULTILINE)[0].replace("<HOST>", r"(?P<host>\S+)")
        lines = (proxy.folder / "edge.log").read_text().splitlines()
        assert [found["host"] for line in lines if (found := re.search(pattern, line))] == ["127.0.0.50"]
        assert proxy.told("E_PIKE_UNBLOCKED", seconds=6)[0]["ip"] == "127.0.0.50"
        ask(attacker, port, "49301", "again")
        assert core.receive_until("INVITE", having="Call-ID: again")
    counters = proxy.counters()
    assert counters["floods_blocked"] == 1
    assert counters["dropped_banned"] > 100


@pytest.mark.alone
def test_the_kernel_drops_what_a_banned_source_goes_on_sending_but_its_call_for_help(guarded: Start) -> None:
    proxy, port, core = guarded('[emergency]\nnumbers = ["112"]\n')
    assert manage(proxy, "ban", "add", "127.0.0.50")[0] == 0
    sent = 0
    with Agent("127.0.0.50") as attacker, Agent("127.0.0.51") as neighbour:

        def flood(seconds: float) -> None:
            nonlocal sent
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(100):
                    attacker.send("OPTIONS sip:flood@edge.example SIP/2.0\r\n\r\n", port)
                sent += 100
                time.sleep(0.005)

        flood(3)
        ask(attacker, port, "112", "help")
        assert core.receive_until("INVITE", having="Call-ID: help"), "whoever is shut out can still call for help"
        # From now on it is heard again, since it called for help; another is not.
        ask(neighbour, port, "49301", "beside")
        assert core.receive_until("INVITE", having="Call-ID: beside")
    # What the kernel dropped is told once a second.
    wait_for(lambda: proxy.counters()["socket_drops"] + proxy.counters()["dropped_banned"] >= sent)
    counters = proxy.counters()
    assert counters["socket_drops"] + counters["dropped_banned"] == sent
    assert counters["dropped_banned"] < sent // 2


@pytest.mark.alone
def test_a_ban_that_is_lifted_is_lifted_in_the_kernel_at_once(guarded: Start) -> None:
    proxy, port, core = guarded("")
    assert manage(proxy, "ban", "add", "127.0.0.50")[0] == 0
    with Agent("127.0.0.50") as attacker:
        end = time.monotonic() + 5
        while proxy.counters()["socket_drops"] < 100 and time.monotonic() < end:
            for _ in range(2_000):
                attacker.send("OPTIONS sip:flood@edge.example SIP/2.0\r\n\r\n", port)
        dropped = proxy.counters()["socket_drops"]
        assert dropped >= 100
        assert manage(proxy, "ban", "remove", "127.0.0.50")[0] == 0
        time.sleep(0.4)
        ask(attacker, port, "49301", "free")
        assert core.receive_until("INVITE", having="Call-ID: free")


def test_what_no_connection_can_make_sense_of_counts_as_malformed(guarded: Start) -> None:
    proxy, port, _ = guarded("[flood]\npackets = 1000\nscore = 20\nmalformed_points = 2\n")
    proxy.file.write_text(
        proxy.file.read_text().replace("[peer.core]", f'[install.listener.tcp]\naddress = "tcp:127.0.0.1:{port}"\n[peer.core]')
    )
    assert manage(proxy, "reload")[0] == 0
    head = "INVITE sip:a@b SIP/2.0\r\nContent-Length: -5\r\n\r\n"
    for number in range(10):
        with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.52", 0)) as stream:
            stream.sendall((head if number % 2 else "GET / HTTP/1.1\r\nHost: x\r\n\r\n").encode())
            stream.settimeout(3)
            with contextlib.suppress(ConnectionError):
                assert stream.recv(1) == b""
    assert proxy.told("E_PIKE_BLOCKED")[0]["ip"] == "127.0.0.52"
    counters = proxy.counters()
    assert counters["malformed"] == 10
    assert counters["malformed_not_sip"] == 5


def test_text_from_the_network_bans_nobody_by_the_log(guarded: Start) -> None:
    """A number that reads like a line of the log is quoted, and no filter takes it for one."""
    rule = "[[fraud.rule]]\nruleid = 1\nprofileid = 1\ntotal_calls_warning = 1\n"
    proxy, port, _ = guarded(f"[fraud]\nrows = false\nprofile = 1\n{rule}")
    forged = 'x","part":"guard","event":"banned 192.0.2.1 for 60 s: flood"}'
    with Agent("127.0.0.9") as phone:
        ask(phone, port, "".join(f"%{ord(character):02x}" for character in forged), "forged")
        assert proxy.told("E_FRD_WARNING")[0]["called_number"] == forged
    pattern = re.findall(r"^failregex = (.*)$", FILTER.read_text(), re.MULTILINE)[0].replace("<HOST>", r"\S+")
    assert proxy.stop() == 0
    lines = (proxy.folder / "edge.log").read_text().splitlines()
    assert any("192.0.2.1" in line and '"part":"fraud"' in line for line in lines)
    assert not any(re.search(pattern, line) for line in lines)


def test_calls_at_once_are_limited_listed_changed_and_ended(guarded: Start, start_proxy: Callable[..., Proxy]) -> None:
    limits = '[limit.callers]\ncounts = "calls"\nkey = "{caller}"\nmost = 2\npeers = ["phones"]\n'
    proxy, port, core = guarded(limits)
    with Agent("127.0.0.7") as phone:
        oks = []
        for call_id in ("a", "b"):
            ask(phone, port, "49301", call_id)
            request = core.receive_until("INVITE", having=f"Call-ID: {call_id}")
            core.send(
                answer(request, "200 OK").replace("Content-Length", f"Contact: <sip:b@127.0.0.1:{core.port}>\r\nContent-Length"), port
            )
            oks.append(phone.receive_until("SIP/2.0 200"))
        ask(phone, port, "49301", "c")
        assert refusal(phone, "c").startswith("SIP/2.0 486")
        assert proxy.told("E_LIMIT_REACHED") == [{"limit": "callers", "key": "a@127.0.0.1", "counts": "calls", "most": 2}]
        shown = json.loads(manage(proxy, "limits", "list", "--json")[1])["keys"]
        assert shown == [
            {"limit": "callers", "counts": "calls", "key": "a@127.0.0.1", "used": 2, "most": 2, "share": None, "at_limit": True}
        ]
        assert json.loads(manage(proxy, "calls")[1])["calls"][0]["limits"] == ["callers=a@127.0.0.1"]
        assert manage(proxy, "limits", "set", "callers", "3", "a@127.0.0.1")[0] == 0
        ask(phone, port, "49301", "d")
        assert core.receive_until("INVITE", having="Call-ID: d")
        assert '"a@127.0.0.1": 3' in manage(proxy, "diff")[1], "a layer of its own"
        phone.send(bye(phone, core, oks[0], "a"), port)
        core.send(answer(core.receive_until("BYE"), "200 OK"), port)
        phone.receive_until("SIP/2.0 200", having="BYE")
        assert json.loads(manage(proxy, "limits", "list", "--json")[1])["keys"][0]["used"] == 2
        assert json.loads(manage(proxy, "limits", "end", "callers", "a@127.0.0.1")[1]) == {"ended": 2, "untold": 0}
        assert core.receive_until("BYE")
        metrics = manage(proxy, "metrics")[1]
        assert 'edgeproxy_limit_refused_total{node="edge1",limit="callers"} 1' in metrics
    # What was set holds over a restart, and until it is taken back.
    assert proxy.stop() == 0
    proxy.start()
    assert json.loads(manage(proxy, "limits", "list", "--json")[1])["set"] == {"callers": {"a@127.0.0.1": 3}}
    assert [line["limits"] for line in proxy.log if line["event"] == "limits of calls begin with the calls that come"] == [["callers"]] * 2
    assert manage(proxy, "limits", "reset", "callers", "a@127.0.0.1")[0] == 0
    assert json.loads(manage(proxy, "limits", "list", "--json")[1])["set"] == {}
    code, said = manage(proxy, "limits", "set", "nobody", "3")
    assert (code, said.strip()) == (1, "no such limit: nobody")


def test_rows_of_the_database_say_what_single_keys_may_have(guarded: Start) -> None:
    proxy, port, core = guarded('[limit.pace]\ncounts = "rate"\nkey = "{caller_user}"\nmost = 100\nwindow_seconds = 5\nrows = true\n')
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute(
            "INSERT INTO edgeproxy_limits (limit_name, limit_key, most) VALUES ('pace', 'a', 1), ('none', 'a', 1), ('pace', 'b', 'many'), ('pace', 'c', 70000)"
        )
    database.close()
    code, said = manage(proxy, "routes", "reload")
    assert (code, [fault.split()[1] for fault in json.loads(said)["peer_faults"]]) == (0, ["2", "3", "4"])
    assert "edgeproxy_limits 2 limit_name" in manage(proxy, "status")[1]
    assert "edgeproxy_limits 3 most expected 0 to 4294967295, got: many" in manage(proxy, "status")[1]
    assert "edgeproxy_limits 4 most tail_drop wants 0 to 65535, got: 70000" in manage(proxy, "status")[1]
    assert manage(proxy, "limits", "set", "pace", "70000") == (1, "limit pace: tail_drop wants 0 to 65535, got: 70000\n")
    with Agent("127.0.0.7") as phone:
        ask(phone, port, "49301", "a")
        assert core.receive_until("INVITE")
        ask(phone, port, "49301", "b")
        reply = refusal(phone, "b")
        assert (reply.split("\r\n")[0], values(reply, "Retry-After")) == ("SIP/2.0 480 Temporarily Unavailable", ["5"])


def test_a_policy_limits_by_a_key_of_its_own(guarded: Start, tmp_path: Path) -> None:
    (tmp_path / "limiter.py").write_text(
        "from edgeproxy.policy import CONTINUE, Policy\n"
        "policy = Policy()\n"
        '@policy.on_request("INVITE", peer="phones")\n'
        "def decide(call):\n"
        '    call.limit("trunk", call.request_uri.user[:2], most=1)\n'
        "    return CONTINUE\n"
    )
    limit = '[limit.trunk]\ncounts = "calls"\nmost = 50\nby_policy = true\nstatus_code = 480\nreason_phrase = "Trunk Busy"\n[[policy]]\nmodule = "limiter"\n'
    proxy, port, core = guarded(limit)
    with Agent("127.0.0.7") as phone:
        ask(phone, port, "49301", "a")
        request = core.receive_until("INVITE", having="Call-ID: a")
        ask(phone, port, "49302", "b")
        assert refusal(phone, "b").startswith("SIP/2.0 480 Trunk Busy")
        (shown,) = json.loads(manage(proxy, "limits", "list", "--json")[1])["keys"]
        assert (shown["key"], shown["used"], shown["most"]) == ("49", 1, 1), "what the policy said"
        ask(phone, port, "44301", "c")
        assert core.receive_until("INVITE", having="Call-ID: c")
        core.send(answer(request, "486 Busy"), port)
        phone.receive_until("SIP/2.0 486")
        ask(phone, port, "49302", "d")
        assert core.receive_until("INVITE", having="Call-ID: d")
        # An operator goes before policies, too.
        assert manage(proxy, "limits", "set", "trunk", "0", "43")[0] == 0
        assert re.search(r"^ trunk +43 +0 *$", manage(proxy, "limits", "list")[1], re.MULTILINE), "though 43 has no call"
        ask(phone, port, "43301", "e")
        assert refusal(phone, "e").startswith("SIP/2.0 480 Trunk Busy")
    assert proxy.records(3)[0]["refused_by"] == "admit"


def test_help_can_be_called_whatever_becomes_of_a_policy_that_looks_at_attempts(guarded: Start, tmp_path: Path) -> None:
    (tmp_path / "looker.py").write_text(
        "import os, time\n"
        "from edgeproxy.policy import CONTINUE, Policy\n"
        "policy = Policy()\n"
        '@policy.on_branch("INVITE")\n'
        "def look(branch):\n"
        '    if branch.call_id.startswith("late"):\n'
        "        time.sleep(1)\n"
        '    if branch.call_id.startswith("dead"):\n'
        "        os._exit(1)\n"
        '    raise ValueError("broken")\n'
    )
    proxy, port, core = guarded('[emergency]\nnumbers = ["112"]\n[[policy]]\nmodule = "looker"\ndeadline_seconds = 0.3\n')
    with Agent("127.0.0.7") as phone:
        for number in ("49301", "112", "urn:service:sos"):
            for call_id in ("raises", "late", "dead"):
                own = f"{call_id}{len(number)}"
                target = number if number.startswith("urn") else f"sip:{number}@edge.example"
                phone.send(invite("INVITE", phone.port, target, call_id=own, branch=own), port)
                if number == "49301":
                    assert refusal(phone, own).startswith("SIP/2.0 500"), own
                else:
                    request = core.receive_until("INVITE", having=f"Call-ID: {own}")
                    assert request, own
                    core.send(answer(request, "486 Busy"), port)
                    assert refusal(phone, own).startswith("SIP/2.0 486"), own
                # A process that died comes back.
                wait_for(lambda: manage(proxy, "status")[0] == 0 and json.loads(manage(proxy, "status")[1])["policies"] != [])


def test_a_limit_of_one_key_has_no_others(guarded: Start) -> None:
    load = '[limit.load]\ncounts = "rate"\nkey = "{caller}"\nmost = 80\nalgorithm = "feedback"\n'
    proxy, _, _ = guarded('[limit.all]\ncounts = "calls"\nkey = ""\nmost = 5\n' + load)
    code, said = manage(proxy, "limits", "set", "load", "50", "somebody")
    assert (code, "one number for all keys" in said) == (1, True), said
    code, said = manage(proxy, "limits", "set", "all", "3", "somebody")
    assert (code, "one key, the empty one" in said) == (1, True), said
    assert manage(proxy, "limits", "set", "all", "3")[0] == 0


def test_a_policy_bans_a_source_and_never_the_core(guarded: Start, tmp_path: Path) -> None:
    (tmp_path / "banner.py").write_text(
        "from edgeproxy.policy import CONTINUE, Policy, Reject\n"
        "policy = Policy()\n"
        '@policy.on_request("INVITE")\n'
        "def decide(call):\n"
        '    if call.request_uri.user == "900":\n'
        '        call.ban(60, "premium\\nnumber")\n'
        "        return Reject(403)\n"
        "    return CONTINUE\n"
    )
    proxy, port, core = guarded('[[policy]]\nmodule = "banner"\n')
    with Agent("127.0.0.7") as phone:
        ask(core, port, "900", "core")
        assert core.receive_until("SIP/2.0 403")
        ask(phone, port, "900", "a")
        assert refusal(phone, "a").startswith("SIP/2.0 403")
        assert proxy.told("E_BAN_ADDED") == [{"ip": "127.0.0.7", "seconds": 60, "reason": "policy: premiumnumber", "proto": "udp"}]
        ask(phone, port, "49301", "b")
        assert core.receive_until("INVITE", 0.5) == ""
        ask(core, port, "900", "still")
        assert core.receive_until("SIP/2.0 403", having="Call-ID: still")


def counts_no_call_twice(line: list[str], records: Path) -> None:
    """A copy of a file beside it raises no alarm."""
    once, twice = (subprocess.run([*line, *more], capture_output=True, text=True, check=True) for more in ([], [str(records)]))
    assert once.stdout == twice.stdout
    assert "3 records are of calls that were read already; left out" in twice.stderr


def costs_no_other_line(replay: list[str], records: Path) -> None:
    """What a crash cut short of the last record is told, and the others are read."""
    counts_no_call_twice(replay, records)
    whole = records.read_text()
    records.write_text(whole + whole[:100])
    done = subprocess.run(replay, capture_output=True, text=True, check=True)
    assert f"{records}:6: not a call record: Input data was truncated; left out" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    records.write_text(whole[:100])
    done = subprocess.run(replay, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (1, "", "no call record among them")
    records.write_text(whole)


def test_fraud_is_told_refused_barred_kept_and_replayed(guarded: Start) -> None:
    fraud = (
        '[fraud]\nprofile = 1\nbar_seconds = 600\n[fraud.critical]\nbar = true\n[[fraud.rule]]\nruleid = 9\nprofileid = 2\nprefix = "1"\n'
    )
    proxy, port, core = guarded(fraud)
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute(
            "INSERT INTO fraud_detection (ruleid, profileid, prefix, total_calls_warning, total_calls_critical, start_hour)"
            " VALUES (1, 1, '900', 2, 3, '00:00'), (2, 1, '9', 0, 0, 'noon'), (9, 1, '7', 1, 1, '00:00'),"
            " (10, 1, '+900', 1, 1, '0:00'), (11, 1, '8', 1.5, 2, '00:00')"
        )
    database.close()
    assert manage(proxy, "routes", "reload")[0] == 0
    status = manage(proxy, "status")[1]
    for fault in (
        "9 ruleid a rule of the file has it",
        "2 start_hour expected HH:MM, got: noon",
        "10 prefix a second row of profile 1",
        "11 total_calls_warning expected a number, got: 1.5",
    ):
        assert f"fraud_detection {fault}" in status
    with Agent("127.0.0.7") as phone:
        for call_id in ("a", "b"):
            ask(phone, port, "9001", call_id)
            core.send(answer(core.receive_until("INVITE", having=f"Call-ID: {call_id}"), "486 Busy"), port)
            assert phone.receive_until("SIP/2.0 486")
        told = {"param": "total-calls", "user": "a@127.0.0.1", "called_number": "9001", "rule_id": 1, "profile_id": 1}
        assert proxy.told("E_FRD_WARNING") == [{**told, "value": 2, "threshold": 2}]
        ask(phone, port, "9001", "c")
        assert refusal(phone, "c").startswith("SIP/2.0 403")
        assert proxy.told("E_FRD_CRITICAL") == [{**told, "value": 3, "threshold": 3}]
        assert proxy.told("E_FRD_BARRED") == [{"user": "a@127.0.0.1", "seconds": 600, "reason": "total-calls"}]
        assert proxy.stop() == 0
        proxy.start()
        shown = json.loads(manage(proxy, "fraud", "show", "--json")[1])
        assert (shown["figures"][0]["total_calls"], shown["figures"][0]["rule"]) == (2, 1)
        assert shown["barred"][0]["user"] == "a@127.0.0.1"
        ask(phone, port, "4930", "d")
        assert refusal(phone, "d").startswith("SIP/2.0 403")
        assert manage(proxy, "fraud", "unbar", "a@127.0.0.1")[0] == 0
        assert proxy.told("E_FRD_UNBARRED") == [{"user": "a@127.0.0.1", "reason": "by an operator"}]
        ask(phone, port, "4930", "e")
        core.send(answer(core.receive_until("INVITE", having="Call-ID: e"), "486 Busy"), port)
        assert manage(proxy, "fraud", "unbar", "nobody")[0] == 1
    proxy.records(5)
    records = proxy.state / "records" / "calls.jsonl"
    line = [EDGEPROXY, "fraud", "replay", str(proxy.file), str(records), "--json"]

    def replayed(*options: str) -> list[tuple[str, str, int]]:
        done = subprocess.run([*line, *options], capture_output=True, text=True, check=True)
        assert ("fraud_detection 2 start_hour" in done.stderr) == ("rows = false" not in proxy.file.read_text())
        return [(alarm["event"], alarm["user"], alarm["value"]) for alarm in map(json.loads, done.stdout.splitlines())]

    assert replayed() == [("E_FRD_WARNING", "a@127.0.0.1", 2)]
    costs_no_other_line(line, records)
    # However users and numbers are written, they are who the engine would watch.
    text = records.read_text()
    other = text.replace('"sip:9001@', '"sip:9(0)0-1;phone-context=x@').replace(
        '"from_uri":"sip:a@127.0.0.1"', '"from_uri":"sip:%61@127.0.0.1:5099;x=1"'
    )
    assert other.count("5099") == 5
    records.write_text(other)
    assert replayed() == [("E_FRD_WARNING", "a@127.0.0.1", 2)]
    records.write_text(text)
    assert replayed("--refused") == [("E_FRD_WARNING", "a@127.0.0.1", 2), ("E_FRD_CRITICAL", "a@127.0.0.1", 3)]
    assert replayed("--profile", "2") == []
    done = subprocess.run([*line, "--profile", "9"], capture_output=True, text=True, check=False)
    assert (done.returncode, "--profile: no rule has profile 9; there are " in done.stderr) == (1, True)
    # Another rule is tried out without touching anything.
    proxy.file.write_text(
        proxy.file.read_text().replace("profile = 1\n", "profile = 2\nrows = false\n").replace('"1"', '"4"\ntotal_calls_warning = 1')
    )
    assert replayed() == [("E_FRD_WARNING", "a@127.0.0.1", 1)]


def test_help_can_be_called_from_a_banned_source_by_a_way_of_its_own(guarded: Start) -> None:
    psap = Agent("127.0.0.1")
    extra = f'[peer.psap]\nkind = "gateway"\nmatch = ["127.0.0.1:{psap.port}"]\nto = ["sip:127.0.0.1:{psap.port}"]\n'
    proxy, port, core = guarded(
        extra + '[emergency]\nnumbers = ["112"]\npeer = "psap"\n[limit.none]\ncounts = "calls"\nkey = ""\nmost = 0\n'
    )
    with psap, Agent("127.0.0.7") as phone:
        ask(phone, port, "4930", "barred")
        assert refusal(phone, "barred").startswith("SIP/2.0 486")
        code, told = manage(proxy, "ban", "add", "127.0.0.1")
        assert (code, "127.0.0.1 is exempt (" in told) == (1, True), "a slip of the pen must not shut a carrier out"
        assert json.loads(manage(proxy, "ban", "add", "127.0.0.1", "--exempt", "--seconds", "60")[1])["new"]
        assert manage(proxy, "ban", "remove", "127.0.0.1")[0] == 0
        assert json.loads(manage(proxy, "ban", "add", "::ffff:127.0.0.7")[1])["source"] == "127.0.0.7"
        # A ban that is there already is replaced, and told once more.
        assert json.loads(manage(proxy, "ban", "add", "127.0.0.7", "--seconds", "3000")[1]) == {"source": "127.0.0.7", "new": False}
        assert re.search(r"127\.0\.0\.7 +\d s +(?:3000|29\d\d) s", manage(proxy, "ban", "list")[1])
        ask(phone, port, "4930", "deaf")
        ask(phone, port, "112", "help")
        request = psap.receive_until("INVITE", having="Call-ID: help")
        assert request.startswith("INVITE sip:112@edge.example")
        psap.send(answer(request, "200 OK"), port)
        assert phone.receive_until("SIP/2.0 200", having="Call-ID: help")
        assert core.receive(0.3) == ""
        assert proxy.told("E_EMERGENCY_CALL")[0]["callid"] == "help"
        # A drain lets it in, too.
        proxy.signal(signal.SIGTERM)
        proxy.told("nothing", seconds=0.5)
        phone.send(invite("INVITE", phone.port, "urn:service:sos", call_id="sos", branch="sos"), port)
        assert psap.receive_until("INVITE", having="Call-ID: sos").startswith("INVITE urn:service:sos")
