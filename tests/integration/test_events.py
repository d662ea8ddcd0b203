"""Events of the real process: to the log, to handlers in policy processes, and to whoever follows."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.agent import Agent, answer, bye, call, invite
from tests.integration.proxy import EDGEPROXY, Proxy, manage

Local = Callable[..., tuple[Proxy, int, int]]

HANDLER = """
import json
from pathlib import Path
from edgeproxy.policy import CONTINUE, Policy, raise_event

policy = Policy()
OUT = Path(__file__).with_name("told.jsonl")

@policy.on_event("E_DLG_STATE_CHANGED", "E_DISPATCHER_STATUS", "E_CORE_SR_STATUS_CHANGED", "X_TRY")
def told(event):
    with OUT.open("a") as out:
        out.write(json.dumps([getattr(event, "own_name", event.name), event.parameters()]) + "\\n")

@policy.on_event("X_ASK")
async def ask(event):
    answer = await policy.send_request("OPTIONS", event.parameters()["uri"], from_uri="sip:edge@example.net")
    told_answer = ["answer", answer.status_code]
    with OUT.open("a") as out:
        out.write(json.dumps(told_answer) + "\\n")
    await raise_event("X_ANSWERED", code=answer.status_code, by=answer.header("Server") or "")
"""


def logged(proxy: Proxy, name: str, count: int = 1, seconds: float = 5) -> list[dict[str, Any]]:
    """Return the parameters of events of this name in the log, waiting until there are `count`."""
    end = time.monotonic() + seconds
    while True:
        found = [line["parameters"] for line in proxy.log if line["event"] == name]
        if len(found) >= count or time.monotonic() > end:
            return found
        time.sleep(0.05)


def told(folder: Path, enough: Callable[[list[Any]], bool], seconds: float = 5) -> list[Any]:
    """Return what the handler wrote, waiting until it is enough."""
    path = folder / "told.jsonl"
    end = time.monotonic() + seconds
    while True:
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if enough(found) or time.monotonic() > end:
            return found
        time.sleep(0.05)


def test_the_states_and_the_end_of_a_call_and_of_a_connection_are_told(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        names = '"E_DLG_STATE_CHANGED", "E_ACC_CDR", "E_ACC_MISSED_EVENT", "E_CORE_TCP_DISCONNECT", "E_CORE_SR_STATUS_CHANGED"'
        proxy, port, _ = local(core=core.port, extra=f"[events]\nlog = [{names}]\n")
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="told", branch="told"), port)
        request = core.receive_until("INVITE")
        core.send(answer(request, "180 Ringing"), port)
        core.send(answer(request, "200 OK"), port)
        ok = caller.receive_until("SIP/2.0 200")
        caller.send(bye(caller, core, ok, "told"), port)
        core.send(answer(core.receive_until("BYE"), "200 OK"), port)
        states = logged(proxy, "E_DLG_STATE_CHANGED", 4)
        assert [(one["old_state"], one["new_state"]) for one in states] == [(0, 1), (1, 2), (2, 4), (4, 5)]
        (record,) = proxy.records()
        assert {one["id"] for one in states} == {record["id"]}
        assert {one["callid"] for one in states} == {"told"}
        (account,) = logged(proxy, "E_ACC_CDR")
        assert (account["method"], account["code"], account["reason"], account["trace_id"]) == ("INVITE", 200, "OK", record["trace_id"])
        assert account["ms_duration"] == record["duration_milliseconds"]
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="missed", branch="missed"), port)
        core.send(answer(core.receive_until("INVITE", having="missed"), "486 Busy Here"), port)
        (missed,) = logged(proxy, "E_ACC_MISSED_EVENT")
        assert (missed["callid"], missed["code"], missed["reason"]) == ("missed", 486, "Busy Here")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            own = connection.getsockname()[1]
            time.sleep(0.2)
        (gone,) = logged(proxy, "E_CORE_TCP_DISCONNECT")
        assert gone == {"src_ip": "127.0.0.1", "src_port": own, "dst_ip": "127.0.0.1", "dst_port": port, "proto": "tcp"}
        assert logged(proxy, "E_CORE_SR_STATUS_CHANGED")[0]["identifier"] == "node"


def test_a_handler_is_told_and_sends_requests_of_its_own(local: Local, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(HANDLER)
    with Agent() as caller, Agent() as core, Agent() as other:
        extra = '[events]\nlog = ["X_ANSWERED"]\n[[policy]]\nmodule = "handler"\n'
        proxy, port, _ = local(core=core.port, workers=2, extra=extra)
        call(caller, core, port, "told")

        def states(found: list[Any]) -> list[int]:
            return [one["new_state"] for name, one in found if name == "E_DLG_STATE_CHANGED"]

        assert states(told(tmp_path, lambda found: len(states(found)) >= 2)) == [1, 4]
        code, text = manage(proxy, "events", "raise", "X_TRY", "number=7", "text=a b")
        assert (code, json.loads(text)) == (0, {"taken_by": 1})
        assert told(tmp_path, lambda found: ["X_TRY", {"number": 7, "text": "a b"}] in found)
        for _ in range(3):
            # Both workers send in turn.
            manage(proxy, "events", "raise", "X_ASK", f"uri=sip:x@127.0.0.1:{other.port}")
            request = other.receive_until("OPTIONS")
            assert request.count("\r\nVia:") == 1
            other.send(answer(request, "204 Fine"), port)
        assert told(tmp_path, lambda found: found.count(["answer", 204]) == 3).count(["answer", 204]) == 3
        assert logged(proxy, "X_ANSWERED", 3) == [{"code": 204, "by": ""}] * 3
        assert proxy.counters()["requests_originated"] == 3
        code, text = manage(proxy, "events", "list")
        assert json.loads(text)["events"]["E_DLG_STATE_CHANGED"]["subscribers"] == ["policies"]
        # The reload replaces the process and its handlers; nothing listens twice.
        (tmp_path / "handler.py").write_text(HANDLER.replace('"E_DLG_STATE_CHANGED", ', ""))
        assert manage(proxy, "reload")[0] == 0
        assert json.loads(manage(proxy, "events", "list")[1])["events"]["E_DLG_STATE_CHANGED"]["subscribers"] == []


def test_a_target_that_dies_and_comes_back_is_told(local: Local) -> None:
    with Agent() as caller, Agent() as core, Agent() as closed:
        dead = closed.port
        closed.close()
        to = f'"sip:127.0.0.1:{dead}", "sip:127.0.0.1:{core.port}"'
        extra = '[events]\nlog = ["E_DISPATCHER_STATUS"]\n[tuning.timers]\ndead_target_seconds = 2\n'
        proxy, port, _ = local(core=core.port, to=to, extra=extra)
        call(caller, core, port, "over")
        inactive, active = logged(proxy, "E_DISPATCHER_STATUS", 2)
        assert inactive == {"partition": "default", "group": "local", "address": f"udp:127.0.0.1:{dead}", "status": "inactive"}
        assert active == {**inactive, "status": "active"}


def test_what_is_followed_and_what_is_refused(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        environment = {**os.environ, "EDGEPROXY_CONTROL": str(proxy.state / "control.sock")}
        line = [EDGEPROXY, "events", "follow", "E_DLG_STATE_CHANGED", "X_TRY"]
        follower = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
        assert follower.stdout
        end = time.monotonic() + 10
        while "follower" not in manage(proxy, "events", "list")[1] and time.monotonic() < end:
            time.sleep(0.1)
        call(caller, core, port, "followed")
        first = json.loads(follower.stdout.readline())
        assert (first["event"], first["node"], first["parameters"]["callid"]) == ("E_DLG_STATE_CHANGED", "test", "followed")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(5) == 0
        follower.stdout.close()
        assert manage(proxy, "events", "follow", "E_NOPE") == (1, "no such event: E_NOPE\n")
        code, text = manage(proxy, "events", "raise", "E_NOPE")
        assert (code, text) == (1, "no such event: E_NOPE; an event of your own begins with X_\n")
        assert manage(proxy, "events", "raise", "X_TRY", "a=1", "novalue") == (1, "expected KEY=VALUE, got: novalue\n")
        code, text = manage(proxy, "events", "raise", "E_DISPATCHER_STATUS", "status=1")
        assert code == 1
        assert "E_DISPATCHER_STATUS" in text
        end = time.monotonic() + 5
        while "follower" in manage(proxy, "events", "list")[1] and time.monotonic() < end:
            time.sleep(0.1)
        assert "follower" not in manage(proxy, "events", "list")[1]
