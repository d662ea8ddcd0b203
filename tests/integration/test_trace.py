"""Seeing what happened: ladders of recent calls, masked and followed, and a collector that gets the same."""

import json
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.agent import Agent, answer, bye, call, invite
from tests.integration.proxy import EDGEPROXY, Proxy, manage, wait_for

Local = Callable[..., tuple[Proxy, int, int]]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_ladder_of_a_call_tells_messages_times_repetitions_and_decisions(workers: int, local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, workers=workers)
        _, ok = call(caller, core, port, "seen-x", extra="Authorization: Digest response=topsecret\r\n")
        call(caller, core, port, "other-x")
        caller.send(bye(caller, core, ok, "seen-x"), port)
        # The core lets the proxy repeat its BYE once.
        core.receive_until("BYE")
        core.send(answer(core.receive_until("BYE"), "200 OK"), port)
        assert caller.receive_until("SIP/2.0 200", having="CSeq: 2 BYE")
        code, text = manage(proxy, "trace", "seen-x")
        assert code == 0
        assert "other-x" not in text
        lines = text.splitlines()
        start = next(line for line in lines if "INVITE" in line and "-->" in line)
        assert start.lstrip().startswith("+0.000000")
        assert any("* identify: INVITE from peer local" in line for line in lines)
        assert any("* relay: attempt 1 to udp:127.0.0.1:" in line for line in lines)
        assert any("--> BYE" in line and "(again)" in line for line in lines)
        assert any("<-- 200 OK" in line for line in lines)
        whole = manage(proxy, "trace", "--user", "a", "--messages", "--mask")[1]
        assert "topsecret" not in whole
        assert "Authorization: ******" in whole
        assert "From: <sip:***@127.0.0.1>" in whole
        assert "seen-x" in whole
        assert "other-x" in whole
        code, text = manage(proxy, "trace", "nobody-x")
        assert (code, "no such call in memory" in text) == (1, True)


def test_the_trace_says_which_phase_refused_and_what_a_policy_decided(local: Local, tmp_path: Path) -> None:
    (tmp_path / "decider.py").write_text(
        "from edgeproxy.policy import Policy, Reject\npolicy = Policy()\n@policy.on_request()\ndef decide(call):\n    return Reject(486)\n"
    )
    with Agent() as caller:
        proxy, port, _ = local(extra='[[policy]]\nmodule = "decider"\n')
        caller.send(invite("INVITE", caller.port, "sip:b@127.0.0.1", call_id="tired").replace("Max-Forwards: 70", "Max-Forwards: 0"), port)
        assert caller.receive_until("SIP/2.0 483")
        assert "* match: refused with 483" in manage(proxy, "trace", "tired")[1]
        caller.send(invite("INVITE", caller.port, "sip:b@127.0.0.1", call_id="busy", branch="b2"), port)
        assert caller.receive_until("SIP/2.0 486")
        text = manage(proxy, "trace", "busy")[1]
        assert "* policy: reply 486 after " in text


def test_a_trace_is_followed(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        call(caller, core, port, "before")
        environment = {**os.environ, "EDGEPROXY_CONTROL": str(proxy.state / "control.sock")}
        follower = subprocess.Popen([EDGEPROXY, "trace", "--follow"], stdout=subprocess.PIPE, text=True, env=environment)
        assert follower.stdout
        time.sleep(1.5)
        call(caller, core, port, "after")
        time.sleep(1.5)
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="after", branch="after"), port)
        lines = []
        for line in follower.stdout:
            lines.append(line)
            if "INVITE" in line and "(again)" in line:
                break
        follower.send_signal(signal.SIGINT)
        assert follower.wait(5) == 0
        follower.stdout.close()
        text = "".join(lines)
        assert "call after" in text
        assert "call before" not in text


def test_no_memory_keeps_nothing_and_a_reload_changes_that(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra="[trace]\nmemory_bytes = 0\n")
        call(caller, core, port, "unseen")
        assert manage(proxy, "trace", "unseen")[0] == 1
        proxy.file.write_text(proxy.file.read_text().replace("memory_bytes = 0", "memory_bytes = 100000"))
        assert manage(proxy, "reload")[0] == 0
        call(caller, core, port, "now")
        assert "call now" in manage(proxy, "trace")[1]


def test_bad_queries_are_refused(local: Local) -> None:
    proxy, _, _ = local()
    socket_path = str(proxy.state / "control.sock")

    def ask(query: str) -> tuple[int, str]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(socket_path)
            connection.sendall(f"GET /trace?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            data = b"".join(iter(lambda: connection.recv(65_536), b""))
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body).get("error", "")

    assert ask("cursor=abc") == (400, "cursor: expected `now` or what an earlier answer gave, got: abc")
    assert ask("cursor=99999999999999999999999999")[0] == 400
    assert ask("nope=1")[0] == 400
    assert ask("limit=0")[0] == 400
    assert ask("cursor=123456789")[0] == 200


@contextmanager
def collector() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(3)
        yield udp


def chunks(datagram: bytes) -> dict[int, bytes]:
    magic, length = struct.unpack("!4sH", datagram[:6])
    assert (magic, length) == (b"HEP3", len(datagram))
    found, at = {}, 6
    while at < len(datagram):
        vendor, kind, size = struct.unpack("!HHH", datagram[at : at + 6])
        assert vendor == 0
        found[kind] = datagram[at + 6 : at + size]
        at += size
    return found


def test_a_collector_gets_messages_and_decisions(local: Local) -> None:
    with Agent() as caller, Agent() as core, collector() as udp:
        place = f"127.0.0.1:{udp.getsockname()[1]}"
        proxy, port, _ = local(core=core.port, extra=f'[trace]\ncollector = "{place}"\ncapture_id = 77\n')
        before = time.time()
        call(caller, core, port, "homer", extra="Proxy-Authorization: Digest response=topsecret\r\n")
        got = [chunks(udp.recv(65_535)) for _ in range(7)]
        messages = [one for one in got if one[11] == b"\x01"]
        decisions = [one for one in got if one[11] == b"\x64"]
        first = messages[0]
        assert first[15].startswith(b"INVITE")
        assert b"topsecret" not in first[15]
        assert (first[1], first[2], first[3], first[4]) == (b"\x02", b"\x11", socket.inet_aton("127.0.0.1"), socket.inet_aton("127.0.0.1"))
        assert struct.unpack("!HH", first[7] + first[8]) == (caller.port, port)
        assert abs(struct.unpack("!I", first[9])[0] - before) < 5
        assert struct.unpack("!I", first[12])[0] == 77
        assert {one[17] for one in decisions} == {b"homer"}
        assert any(b"identify" in one[15] for one in decisions)
        sent = next(one for one in messages if one[15].startswith(b"SIP/2.0 200") and struct.unpack("!H", one[8])[0] == caller.port)
        assert struct.unpack("!H", sent[7])[0] == port
        # The last one may have come before it was counted.
        wait_for(lambda: proxy.counters()["hep_sent"] >= 7, 3)
