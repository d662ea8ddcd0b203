"""Reload, rollback, and the management API of the real process."""

import json
import re
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.integration.agent import Agent, bye, call
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage, wait_for

Local = Callable[..., tuple[Proxy, int, int]]


def test_status_metrics_and_live_calls(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        assert stat.S_IMODE((proxy.state / "control.sock").stat().st_mode) == 0o600
        _, ok = call(caller, core, port, "alive")
        code, answer = manage(proxy, "status")
        status = json.loads(answer)
        assert (code, status["state"], status["node"], status["peers"]) == (0, "serving", "test", {"core": "core", "local": "trusted"})
        (live,) = json.loads(manage(proxy, "calls")[1])["calls"]
        assert (live["call_id"], live["state"], live["from_peer"], live["to_peer"]) == ("alive", "confirmed", "local", "core")
        assert json.loads(manage(proxy, "calls", "another")[1]) == {"calls": []}
        page = manage(proxy, "metrics")[1]
        assert 'edgeproxy_requests_by_method_total{node="test",method="INVITE"} 1\n' in page
        assert 'edgeproxy_responses_by_class_total{node="test",class="2xx"} 1\n' in page
        assert 'edgeproxy_calls_started_total{node="test"} 1\n' in page
        caller.send(bye(caller, core, ok, "alive"), port)
        assert core.receive_until("BYE")


def families(page: str) -> dict[str, str]:
    """Return the metrics of a page by name with their type, having looked that all samples of one stand together behind it."""
    types: dict[str, str] = {}
    helped: set[str] = set()
    current = ""
    for line in page.splitlines():
        if line.startswith("# "):
            word, name, rest = line[2:].split(" ", 2)
            if word == "TYPE":
                assert name not in types, f"{name} has two types"
                types[name] = rest
            else:
                assert (word, name not in helped, bool(rest.strip())) == ("HELP", True, True), line
                helped.add(name)
            current = name
            continue
        name, value = line.split("{")[0], line.rsplit("} ", 1)[1]
        assert name.removeprefix(current) in ({"_bucket", "_sum", "_count"} if types[current] == "histogram" else {""}), line
        assert float(value) >= 0
    assert page.endswith("\n")
    assert helped == set(types)
    return types


def test_every_metric_has_its_type_once_and_its_samples_together(local: Local, tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text(
        "from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request()\ndef look(call): pass\n"
    )
    with Agent() as caller, Agent() as core:
        limit = '[limit.one]\ncounts = "calls"\nmost = 5\n[limit.two]\ncounts = "rate"\nmost = 500\n[[policy]]\nmodule = "looks"\n'
        proxy, port, _ = local(core=core.port, workers=2, extra=limit)
        call(caller, core, port, "one")
        page = manage(proxy, "metrics")[1]
        found = families(page)
    assert "# HELP edgeproxy_requests_total Requests that parsed.\n" in page
    assert found["edgeproxy_table_entries"] == found["edgeproxy_limit_keys"] == "gauge"
    assert (found["edgeproxy_peer_requests_total"], found["edgeproxy_policy_decision_seconds"]) == ("counter", "histogram")


def test_connections_that_ask_nothing_use_nothing_up(api: tuple[Proxy, str, str, str]) -> None:
    proxy, url, metrics, token = api
    assert proxy.process
    descriptors = Path(f"/proc/{proxy.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    idle = []
    for place in (metrics, url):
        port = int(place.rsplit(":", 1)[1])
        for number in range(600):
            idle.append(socket.create_connection(("127.0.0.1", port)))
            if number % 2:
                idle[-1].send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        # Whoever asks gets an answer all the same.
        assert http("GET", f"{place}/metrics", token=token)[0] == 200
        assert len(list(descriptors.iterdir())) - before < 600
    # Those that asked, with a token or without one, hold no place either once they are answered.
    port = int(url.rsplit(":", 1)[1])
    for line in ("", f"Authorization: Bearer {token}\r\n"):
        for _ in range(300):
            idle.append(socket.create_connection(("127.0.0.1", port)))
            idle[-1].send(f"GET /counters HTTP/1.1\r\nHost: x\r\n{line}\r\n".encode())
        assert http("GET", f"{url}/metrics", token=token)[0] == 200
    assert manage(proxy, "status")[0] == 0
    wait_for(lambda: len(list(descriptors.iterdir())) <= before + 1, 25)
    for one in idle:
        one.close()
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(proxy.state / "control.sock"))
        control.send(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    time.sleep(0.5)
    assert not any(line["event"] == "management request failed" for line in proxy.log)
    # A request that never comes to its end keeps nobody from ending.
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(proxy.state / "control.sock"))
        control.send(b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        time.sleep(0.2)
        proxy.signal(signal.SIGTERM)
        assert proxy.process.wait(8) == 0


def test_a_reload_changes_all_or_nothing_and_a_rollback_goes_back(local: Local) -> None:
    with Agent() as caller, Agent() as core, Agent() as other:
        proxy, port, _ = local(core=core.port)
        _, ok = call(caller, core, port, "before")
        first = proxy.file.read_text()
        second = first.replace(f'to = ["sip:127.0.0.1:{core.port}"]', f'to = ["sip:127.0.0.1:{other.port}"]')
        # Wrong: nothing changes, and every fault is told.
        proxy.file.write_text(second + '\n[peer.x]\nkind = "nobody"\n[tunning]\n')
        code, answer = manage(proxy, "reload")
        assert (code, "peer.x.kind" in answer, "did you mean tuning?" in answer) == (1, True, True)
        proxy.file.write_text(second.replace('node = "test"', 'node = "moved"'))
        code, answer = manage(proxy, "reload")
        assert code == 1
        assert re.fullmatch(rf"{re.escape(str(proxy.file))}:\d+: install\.node: changes with a restart only\n", answer)
        call(caller, core, port, "still")
        # Right: the next call goes the new way, the old one on as it began.
        proxy.file.write_text(second)
        assert json.loads(manage(proxy, "diff")[1]) == {
            "changed": ["peer.core.to"],
            "policy_files": [],
            "needs_restart": [],
            "run_time": {},
        }
        code, answer = manage(proxy, "reload")
        assert (code, json.loads(answer)) == (0, {"revision": 2, "changed": ["peer.core.to"], "policy_files": []})
        call(caller, other, port, "after")
        caller.send(bye(caller, core, ok, "before"), port)
        assert core.receive_until("BYE")
        assert json.loads(manage(proxy, "rollback")[1])["changed"] == ["peer.core.to"]
        call(caller, core, port, "back")
        # Further back there is nothing; by its number any of them is there.
        assert manage(proxy, "rollback") == (1, "nothing to roll back to: no other file was applied before this one\n")
        assert manage(proxy, "rollback", "7") == (1, "no revision 7; there are 1, 2, 3\n")
        assert json.loads(manage(proxy, "rollback", "2")[1])["changed"] == ["peer.core.to"]
        call(caller, other, port, "again")
        kept = json.loads(manage(proxy, "revisions")[1])["revisions"]
        assert [(one["number"], one["of"], "text" in one) for one in kept] == [(1, 0, False), (2, 0, False), (3, 1, False), (4, 2, False)]
        assert manage(proxy, "reload", str(proxy.file))[0] == 0
        call(caller, other, port, "once-more")
        # Another file holds until the next reload without one: that is of the file of the start.
        tried = proxy.folder / "tried.toml"
        tried.write_text(first)
        assert json.loads(manage(proxy, "reload", str(tried))[1])["changed"] == ["peer.core.to"]
        call(caller, core, port, "tried")
        tried.unlink()
        assert json.loads(manage(proxy, "reload")[1])["changed"] == ["peer.core.to"]
        call(caller, other, port, "own-again")


def test_sighup_reloads_and_tells_why_not(local: Local) -> None:
    with Agent() as caller, Agent() as core, Agent() as other:
        proxy, port, _ = local(core=core.port)
        text = proxy.file.read_text()
        proxy.file.write_text("nonsense")
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: any(line["event"] == "reload refused" for line in proxy.log))
        call(caller, core, port, "same")
        proxy.file.write_text(text.replace(f"sip:127.0.0.1:{core.port}", f"sip:127.0.0.1:{other.port}"))
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: any(line["event"] == "reloaded" for line in proxy.log))
        call(caller, other, port, "new")


def test_modules_that_changed_are_told_and_a_rollback_brings_back_nothing_else(local: Local, tmp_path: Path) -> None:
    module = tmp_path / "versioned.py"
    source = 'from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request("INVITE")\ndef decide(call):\n    call.note("version", "1")\n'
    module.write_text(source)
    with Agent() as core:
        proxy, _, _ = local(core=core.port, extra='[[policy]]\nmodule = "versioned"\n[tuning.policy]\ndrain_seconds = 0')
        proxy.file.write_text(proxy.file.read_text() + '[peer.more]\nkind = "gateway"\nmatch = ["192.0.2.1"]\n')
        assert manage(proxy, "reload")[0] == 0
        module.write_text("def broken(:\n")
        code, said = manage(proxy, "diff")
        assert (code, f"{module}:1: SyntaxError" in said) == (1, True), said
        module.write_text(source.replace('"1"', '"2"'))
        for words in (("diff",), ("reload",)):
            told = json.loads(manage(proxy, *words)[1])
            assert (told["changed"], told["policy_files"]) == ([], [str(module)])
        code, said = manage(proxy, "rollback")
        assert (code, f"the last reload changed policy modules only, whose text is not kept here: put {module} back" in said) == (1, True)
        assert "more" in json.loads(manage(proxy, "status")[1])["peers"]
        assert manage(proxy, "rollback", "1")[0] == 0
        assert "more" not in json.loads(manage(proxy, "status")[1])["peers"]


def test_a_compiled_module_is_replaced_by_its_changed_source_and_a_source_by_its_build(local: Local, tmp_path: Path) -> None:
    module = tmp_path / "versioned.py"
    source = 'from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request("INVITE")\ndef decide(call):\n    call.set_header("X-Version", "1")\n'
    module.write_text(source)
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "versioned"\n[tuning.policy]\ndrain_seconds = 0')

        def runs_compiled() -> bool:
            (number,) = children(proxy)
            return "/compiled/" in Path(f"/proc/{number}/maps").read_text()

        assert not runs_compiled()
        assert subprocess.run([EDGEPROXY, "policy", "compile", proxy.file], capture_output=True, check=False).returncode == 0
        assert "/compiled/" in json.loads(manage(proxy, "diff")[1])["policy_files"][0]
        assert manage(proxy, "reload")[0] == 0
        wait_for(lambda: len(children(proxy)) == 1)
        assert runs_compiled()
        assert "X-Version: 1\r\n" in call(caller, core, port, "one")[0]
        module.write_text(source.replace('"1"', '"2"'))
        assert json.loads(manage(proxy, "diff")[1])["policy_files"] == [str(module)]
        assert manage(proxy, "reload")[0] == 0
        assert "X-Version: 2\r\n" in call(caller, core, port, "two")[0]


def test_policies_are_replaced_by_a_reload_and_a_broken_one_changes_nothing(local: Local, tmp_path: Path) -> None:
    def policy(header: str) -> None:
        source = f'from edgeproxy.policy import Policy\npolicy = Policy()\n@policy.on_request("INVITE")\ndef decide(call):\n    call.set_header("X-Version", "{header}")\n'
        (tmp_path / "versioned.py").write_text(source)

    policy("one")
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[[policy]]\nmodule = "versioned"\n[tuning.policy]\ndrain_seconds = 0.2')
        assert "X-Version: one\r\n" in call(caller, core, port, "one")[0]
        (tmp_path / "versioned.py").write_text("def broken(:\n")
        code, answer = manage(proxy, "reload")
        assert (code, "versioned.py:1: SyntaxError" in answer) == (1, True)
        assert "X-Version: one\r\n" in call(caller, core, port, "still")[0]
        policy("two")
        assert manage(proxy, "reload")[0] == 0
        assert "X-Version: two\r\n" in call(caller, core, port, "two")[0]
        wait_for(lambda: len(children(proxy)) == 1)
        (process,) = children(proxy)
        assert manage(proxy, "reload")[0] == 0
        assert children(proxy) == [process], "what did not change is not started again"


def children(proxy: Proxy) -> list[str]:
    assert proxy.process
    return subprocess.run(["pgrep", "-P", str(proxy.process.pid)], capture_output=True, text=True, check=False).stdout.split()


def test_the_log_level_is_a_layer_of_its_own_and_survives_a_reload(local: Local) -> None:
    with Agent() as core:
        proxy, _, _ = local(core=core.port)
        assert json.loads(manage(proxy, "log-level", "debug")[1]) == {"level": "debug"}
        assert manage(proxy, "reload")[0] == 0
        assert json.loads(manage(proxy, "diff")[1])["run_time"] == {"log.level": "debug"}
        assert json.loads(manage(proxy, "log-level", "file")[1]) == {"level": "info"}
        assert json.loads(manage(proxy, "diff")[1])["run_time"] == {}
        assert manage(proxy, "ban", "add", "203.0.113.9")[0] == 0
        assert manage(proxy, "ban", "add", "203.0.113.8")[0] == 0
        assert manage(proxy, "ban", "remove", "203.0.113.8")[0] == 0
        assert json.loads(manage(proxy, "diff")[1])["run_time"] == {"ban": ["203.0.113.9"]}
        assert "without a zone" in manage(proxy, "ban", "add", "fe80::1%lo")[1]


def test_a_rollback_that_waits_for_a_reload_goes_back_behind_that(local: Local, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        'import time\nfrom edgeproxy.policy import Policy\ntime.sleep(1)\npolicy = Policy()\n@policy.on_request("INVITE")\ndef decide(call):\n    pass\n'
    )
    with Agent() as core:
        proxy, _, _ = local(core=core.port)
        first = proxy.file.read_text()
        proxy.file.write_text(f"# second\n{first}")
        assert manage(proxy, "reload")[0] == 0
        proxy.file.write_text(f'# third\n{first}[[policy]]\nmodule = "slow"\n')
        reload = Thread(target=manage, args=(proxy, "reload"))
        reload.start()
        wait_for(lambda: len(children(proxy)) == 1)
        assert manage(proxy, "rollback")[0] == 0
        reload.join()
        kept = json.loads(manage(proxy, "revisions")[1])["revisions"]
        assert [(revision["number"], revision["of"]) for revision in kept] == [(1, 0), (2, 0), (3, 0), (4, 2)]


def test_drain_ends_the_process(local: Local) -> None:
    with Agent() as core:
        proxy, _, _ = local(core=core.port)
        assert json.loads(manage(proxy, "drain")[1]) == {"state": "draining"}
        assert proxy.process
        assert proxy.process.wait(10) == 0
        assert not (proxy.state / "control.sock").exists()


def test_who_asks_nobody_is_told_how_to_name_the_socket(tmp_path: Path) -> None:
    done = subprocess.run([EDGEPROXY, "status", "--control", tmp_path / "none.sock"], capture_output=True, text=True, check=False)
    assert (done.returncode, "hint: --control names the control socket" in done.stderr) == (1, True)


def http(method: str, url: str, body: bytes | None = None, token: str = "") -> tuple[int, Any]:
    request = urllib.request.Request(url, method=method, data=body, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    return status, json.loads(text) if text[:1] in b"{[" else text.decode()


@pytest.fixture
def api(local: Local, tmp_path: Path) -> tuple[Proxy, str, str, str]:
    """Start a proxy with its API over TCP; return it, the URLs of API and metrics, and the token."""
    token = "0123456789abcdef0123"  # noqa: S105
    (tmp_path / "token").write_text(f"{token}\n")
    port, metrics = free_port(), free_port()
    extra = f'[api]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{tmp_path}/token"\nmetrics_listen = "127.0.0.1:{metrics}"'
    return local(extra=extra)[0], f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}", token


def test_over_tcp_nothing_goes_without_the_token(api: tuple[Proxy, str, str, str]) -> None:
    _, url, metrics, token = api
    for wrong in ("", "x", token[:-1], token + "x"):
        for path in ("/status", "/metrics", "/nothing"):
            assert http("GET", url + path, token=wrong)[0] == 401
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\r\n\r\n")
        assert raw.recv(64).startswith(b"HTTP/1.1 401")
    status, found = http("GET", f"{url}/status", token=token)
    assert (status, found["state"]) == (200, "serving")
    # What is no HTTP at all may hold the token all the same.
    for line in (f"Authorization: Bearer {token}\x01", f"Authorization : Bearer {token}"):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as raw:
            raw.sendall(f"GET /status HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
            assert b" 400 " in raw.recv(64)
    log = (api[0].folder / "edge.log").read_text()
    assert token not in log
    assert "Traceback" not in log
    (line,) = (line for line in api[0].log if line["event"].startswith("management API"))
    assert (line["level"], line["count"], line["fault"]) == ("warning", 1, "BadHttpMessage")
    request = urllib.request.Request(f"{url}/status", headers={"Authorization": f"bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
        assert response.status == 200
    assert http("GET", f"{metrics}/metrics")[0] == 200
    assert http("GET", f"{metrics}/status") == (404, {"error": "no such resource: /status"})
    assert http("POST", f"{metrics}/reload", b"{}")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("POST", "/reload", b'{"pa', 400, "Input data was truncated"),
        ("POST", "/reload", b'{"file": "x"}', 400, "unknown field `file`"),
        ("POST", "/reload", b'{"path": 1}', 400, "Expected `str | null`, got `int`"),
        ("POST", "/reload", b"[]", 400, "Expected `object`, got `array`"),
        ("POST", "/reload", b'{"text": "\xff"}', 400, ""),
        ("POST", "/reload", b'{"path": "/nowhere"}', 422, "/nowhere: cannot be read"),
        ("POST", "/reload", b'{"text": "x = 1"}', 422, "unknown key"),
        ("POST", "/reload", b" " * (4 << 20) + b"{}", 413, "4194304 bytes at most"),
        ("POST", "/rollback", b"{}", 422, "nothing to roll back to"),
        ("PUT", "/log-level", b'{"level": "loud"}', 400, "Invalid enum value 'loud'"),
        ("PUT", "/log-level", b"{}", 400, "missing required field `level`"),
        ("DELETE", "/status", None, 405, "DELETE is not for /status; allowed: GET, HEAD"),
        ("GET", "/calls?limit=0", None, 400, "Expected `int` >= 1"),
        ("GET", "/calls?limit=x", None, 400, "Expected `int`"),
        ("GET", "/calls?surplus=1", None, 400, "unknown field `surplus`"),
        ("GET", "/status?surplus=1", None, 400, "/status takes no query"),
        ("POST", "/drain?now=1", b"{}", 400, "/drain takes no query"),
        ("POST", "/drain", b'{"now": true}', 400, "unknown field `now`"),
    ],
)
def test_what_the_api_cannot_use_it_refuses_with_the_reason(  # noqa: PLR0917
    method: str, path: str, body: bytes | None, status: int, problem: str, api: tuple[Proxy, str, str, str]
) -> None:
    proxy, url, _, token = api
    found, answer = http(method, url + path, body, token)
    assert (found, problem in answer["error"]) == (status, True), answer
    assert http("GET", f"{url}/status", token=token)[1]["state"] == "serving"
    assert token not in json.dumps(proxy.log)


def test_a_call_survives_a_hundred_reloads_under_load(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra="[tuning.policy]\ndrain_seconds = 0")
        _, ok = call(caller, core, port, "long")
        text = proxy.file.read_text()
        for number in range(100):
            proxy.file.write_text(text + f'\n[peer.p{number % 7}]\nkind = "gateway"\nmatch = ["192.0.2.{number % 7 + 1}"]\n')
            proxy.signal(signal.SIGHUP)
            call(caller, core, port, f"r{number}")
            # Signals that come during a reload are one.
            wait_for(lambda: sum(line["event"] == "reloaded" for line in proxy.log) > number)  # noqa: B023 - asked within its round
        caller.send(bye(caller, core, ok, "long"), port)
        assert core.receive_until("BYE")
        assert proxy.counters()["calls_failed"] == 0
