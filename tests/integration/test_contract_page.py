"""docs/policy-contract.md and the examples, as a reader would try them."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from tests.integration.agent import Agent, answer, call, invite, values
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "policy-contract.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_first_policy_is_written_tested_run_and_changed_as_the_page_says(tmp_path: Path) -> None:
    policy, test = blocks("python")
    (tmp_path / "office.py").write_text(policy)
    (tmp_path / "test_office.py").write_text(test)
    found = re.search(r"^```\n(python -m .*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    commands = found[1].splitlines()
    assert commands == [
        "python -m pytest test_office.py",
        "edgeproxy check edge.toml",
        "edgeproxy run edge.toml",
        "edgeproxy reload --control var/control.sock",
    ]
    done = subprocess.run([sys.executable, *commands[0].split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
    with Agent() as caller, Agent() as core:
        port = free_port()
        toml = blocks("toml")[0].replace("5060", str(port)).replace("5070", str(core.port)).replace('"var"', '"STATE"')
        proxy = Proxy(tmp_path, toml)
        assert subprocess.run([EDGEPROXY, "check", proxy.file], capture_output=True, check=False).returncode == 0
        proxy.start()
        try:
            caller.send(invite("INVITE", caller.port, "sip:+4930@x", call_id="bob", branch="bob").replace("sip:a@", "sip:bob@"), port)
            assert caller.receive_until("SIP/2.0 403 Not From Here")
            call(caller, core, port, "inside")
            (tmp_path / "office.py").write_text(policy.replace("Not From Here", "Changed"))
            assert manage(proxy, "reload")[0] == 0
            caller.send(invite("INVITE", caller.port, "sip:+4930@x", call_id="bob2", branch="bob2").replace("sip:a@", "sip:bob@"), port)
            assert caller.receive_until("SIP/2.0 403 Changed")
        finally:
            assert proxy.stop() == 0


def example(name: str, folder: Path, replacements: dict[str, str]) -> str:
    source = ROOT / "examples" / "policies" / name
    (folder / f"{name}.py").write_text(source.with_suffix(".py").read_text())
    toml = source.with_suffix(".toml").read_text().replace('"var"', '"STATE"')
    for path, text in ((folder / f"{name}.py", None), (None, toml)):
        changed = path.read_text() if path else text or ""
        for old, new in replacements.items():
            changed = changed.replace(old, new)
        if path:
            path.write_text(changed)
        else:
            toml = changed
    return toml


def test_attempts_go_from_gateway_to_gateway(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with Agent() as core, Agent() as first, Agent() as second:
        port = free_port()
        ports = {"5060": str(port), "5070": str(core.port), "5071": str(first.port), "5072": str(second.port)}
        proxy = start_proxy(example("attempts", tmp_path, ports))
        core.send(invite("INVITE", core.port, "sip:+4930@pstn", call_id="two", branch="two"), port)
        first.send(answer(first.receive_until("INVITE"), "503 Full"), port)
        second.send(answer(second.receive_until("INVITE"), "486 Busy"), port)
        assert core.receive_until("SIP/2.0 486")
        (record,) = proxy.records(1)
        assert record["notes"] == {f"sip:127.0.0.1:{first.port}": "503", f"sip:127.0.0.1:{second.port}": "486"}
        assert [attempt["status_code"] for attempt in record["attempts"]] == [503, 486]


def test_whoever_missed_a_call_gets_a_message(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with Agent() as core, Agent() as caller:
        port = free_port()
        start_proxy(example("missed", tmp_path, {"5060": str(port), "5070": str(core.port)}))
        caller.send(invite("INVITE", caller.port, "sip:bob@example.net", call_id="missed", branch="missed"), port)
        core.send(answer(core.receive_until("INVITE"), "480 Away"), port)
        message = core.receive_until("MESSAGE")
        assert message.startswith("MESSAGE sip:bob@example.net SIP/2.0\r\n")
        assert values(message, "From")[0].startswith("<sip:a@127.0.0.1>;tag=")
        assert "You missed a call at 20" in message
        core.send(answer(message, "200 OK"), port)


@pytest.mark.alone
def test_a_number_is_looked_up_with_the_trace_of_its_call(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Ported(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((parse_qs(urlparse(self.path).query)["number"][0], self.headers["traceparent"].split("-")[1]))
            body = json.dumps({"lrn": "+49301"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Ported)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Agent() as core, Agent() as gateway:
            port = free_port()
            ports = {"5060": str(port), "5070": str(core.port), "5071": str(gateway.port), "8080": str(server.server_port)}
            proxy = start_proxy(example("lookup", tmp_path, ports))
            core.send(invite("INVITE", core.port, f"sip:+4930@127.0.0.1:{gateway.port}", call_id="dip", branch="dip"), port)
            # The Request-URI names the gateway, whose address the routing number keeps.
            request = gateway.receive_until("INVITE")
            assert request.startswith("INVITE sip:+49301@127.0.0.1 SIP/2.0\r\n")
            gateway.send(answer(request, "486 Busy"), port)
            assert core.receive_until("SIP/2.0 486")
            (record,) = proxy.records(1)
            assert (asked, record["notes"]) == ([("+4930", record["trace_id"])], {"lnp": "+49301"})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
