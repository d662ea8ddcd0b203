"""Carrier routing from outside: SIPp gateways that answer, refuse, stay silent, die and come back; reload; management."""

import json
import os
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from dnslib.server import DNSServer

from edgeproxy.admin.client import ask
from edgeproxy.errors import EdgeProxyError
from tests.integration.agent import Agent, answer, invite
from tests.integration.name_server import Zone
from tests.integration.provision import provision
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage, wait_for
from tests.sipp.catalogue import FLOWS
from tests.sipp.runner import Sipp

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "talk"
TOML = """
[install]
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.0/8"]
route = "pstn"
[peer.pstn]
kind = "gateway"
gateway_types = [-1]
[route.pstn]
first_answer_seconds = 0.5
{route}
[routing.probe]
interval_seconds = 1
timeout_seconds = 0.5
[events]
log = ["E_DROUTING_STATUS"]
{extra}
"""
Start = Callable[..., Proxy]


@pytest.fixture
def routed(start_proxy: Start, tmp_path: Path) -> Callable[..., tuple[Proxy, int]]:
    def start(
        gateways: dict[str, int], rules: list[tuple[str, str, str]], *, probe_mode: int = 0, route: str = "", extra: str = ""
    ) -> tuple[Proxy, int]:
        places = {name: f"127.0.0.1:{port}" for name, port in gateways.items()}
        environment = provision(tmp_path / "rules.db", places, rules, probe_mode=probe_mode)
        port = free_port()
        return start_proxy(TOML.format(port=port, route=route, extra=extra), environment={**os.environ, **environment}), port

    return start


@pytest.fixture
def gateway(start_sipp: Callable[..., Sipp]) -> Callable[..., tuple[int, Sipp]]:
    def start(flow: str, port: int = 0) -> tuple[int, Sipp]:
        port = port or free_port()
        options = {"address": "127.0.0.1", "port": port, "remote": "127.0.0.1", "calls": 100_000}
        return port, start_sipp(FLOWS[flow].xml(flow)[1], f"gateway-{flow}", **options)

    return start


def outcome(proxy: Proxy, port: int, number: str, call_id: str, seconds: float = 4) -> str:
    """Call and return the first line of the final answer, which is acknowledged where it is a refusal."""
    with Agent() as caller:
        target = f"sip:{number}@127.0.0.1:{port}"
        caller.send(invite("INVITE", caller.port, target, call_id=call_id, branch=call_id), port)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            line = caller.receive(left).split("\r\n", 1)[0]
            if line.startswith("SIP/2.0 ") and not line.startswith("SIP/2.0 1"):
                return line.removeprefix("SIP/2.0 ")
    return ""


def attempts(proxy: Proxy, count: int) -> list[list[tuple[str, int]]]:
    return [[(attempt["gateway"], attempt["status_code"]) for attempt in record["attempts"]] for record in proxy.records(count)]


def test_calls_go_over_refusing_silent_and_dead_gateways_to_one_that_answers(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]], start_sipp: Callable[..., Sipp]
) -> None:
    good, _ = gateway("answered")
    with Agent() as silent, Agent() as refusing:
        places = {"dead": free_port(), "silent": silent.port, "refusing": refusing.port, "good": good}
        proxy, port = routed(places, [("0", "serv", "good"), ("0", "", "dead,silent,refusing,good")])
        options = {"address": "127.0.0.1", "port": free_port(), "remote": f"127.0.0.1:{port}", "calls": 1, "rate": 1}
        caller = start_sipp(FLOWS["answered"].xml("answered")[0], "caller", **options)
        request = refusing.receive_until("INVITE", 5)
        refusing.send(answer(request, "503 Service Unavailable"), port)
        assert caller.wait(10) == 0, caller.report()
    assert attempts(proxy, 1) == [[("dead", 503), ("silent", 408), ("refusing", 503), ("good", 200)]]
    record = proxy.records(1)[0]
    assert (record["outcome"], record["sent_request_uri"]) == ("answered", f"sip:service@127.0.0.1:{good}")


def test_busy_is_an_answer_and_no_other_gateway_is_asked(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]]
) -> None:
    busy, _ = gateway("busy")
    good, _ = gateway("answered")
    proxy, port = routed({"busy": busy, "good": good}, [("0", "49", "busy,good")])
    assert outcome(proxy, port, "4930", "c1").startswith("486")
    assert outcome(proxy, port, "33", "c2").startswith("404")
    assert attempts(proxy, 2) == [[("busy", 486)], []]


def test_a_gateway_that_dies_and_comes_back_is_left_out_and_taken_in_by_probe(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]]
) -> None:
    with Agent() as first, Agent() as second:
        proxy, port = routed({"a": first.port, "b": second.port}, [("0", "", "a,b")], probe_mode=2)
        first.socket.close()
        number = 0

        def goes_to() -> str:
            nonlocal number
            number += 1
            with Agent() as caller:
                caller.send(invite("INVITE", caller.port, "sip:1@x", call_id=f"c{number}", branch=f"c{number}"), port)
                for agent in (second, again):
                    if agent and agent.receive_until("INVITE", 0.3, having=f"Call-ID: c{number}\r\n"):
                        return "b" if agent is second else "a"
            return ""

        again: Agent | None = None
        assert goes_to() == "b"
        code, told = manage(proxy, "routes", "list")
        assert (code, "address refused" in told or "probe failed" in told) == (0, True), told
        again = Agent(port=first.port)
        end = time.monotonic() + 5
        while not (probe := again.receive_until("OPTIONS", 0.3)) and time.monotonic() < end:
            pass
        again.send(answer(probe, "200 OK"), port)
        time.sleep(0.1)
        assert goes_to() == "a"
        again.close()
    changes = [line["parameters"] for line in proxy.log if line["event"] == "E_DROUTING_STATUS" and line["parameters"]["gwid"] == "a"]
    assert [change["status"] for change in changes][:2] == ["inactive", "active"]
    assert changes[0]["partition"] == "default"


def test_a_full_gateway_is_passed_over_and_a_reload_changes_what_it_may_have(
    routed: Callable[..., tuple[Proxy, int]], tmp_path: Path
) -> None:
    with Agent() as first, Agent() as second, Agent() as caller:
        proxy, port = routed({"a": first.port, "b": second.port}, [("0", "", "a,b")])
        with sqlite3.connect(tmp_path / "rules.db") as connection:
            connection.execute("UPDATE dr_gateways SET max_calls = 1 WHERE gwid = 'a'")
        connection.close()
        assert manage(proxy, "routes", "reload")[0] == 0
        for number, agent in enumerate((first, second)):
            caller.send(invite("INVITE", caller.port, "sip:1@x", call_id=f"c{number}", branch=f"c{number}"), port)
            request = agent.receive_until("INVITE", 3, having=f"Call-ID: c{number}\r\n")
            agent.send(answer(request, "180 Ringing"), port)
        assert "1 of 1" in manage(proxy, "routes", "list")[1]
        assert "as many calls as it may have" in manage(proxy, "routes", "explain", "1")[1]
        assert 'gateway="a",kind="gateway",partition=""} 1' in manage(proxy, "metrics")[1].split("gateway_full_total{")[1].splitlines()[0]


def test_switches_are_kept_over_reload_and_restart(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]], tmp_path: Path
) -> None:
    busy, _ = gateway("busy")
    declined, _ = gateway("declined")
    proxy, port = routed({"a": busy, "b": declined}, [("0", "", "a,b")])
    assert outcome(proxy, port, "1", "c1").startswith("486")
    assert manage(proxy, "routes", "disable", "a")[0] == 0
    assert outcome(proxy, port, "1", "c2").startswith("603")
    assert manage(proxy, "routes", "reload")[0] == 0
    assert outcome(proxy, port, "1", "c3").startswith("603")
    proxy.stop()
    proxy.start()
    assert outcome(proxy, port, "1", "c4").startswith("603")
    assert "switched off" in manage(proxy, "routes", "list", "--down")[1]
    assert manage(proxy, "routes", "enable", "a")[0] == 0
    assert outcome(proxy, port, "1", "c5").startswith("486")
    assert manage(proxy, "routes", "disable", "nobody") == (1, "no gateway nobody in partition default\n")


def test_a_reload_takes_new_rules_names_bad_rows_and_a_failed_one_changes_nothing(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]], tmp_path: Path
) -> None:
    busy, _ = gateway("busy")
    proxy, port = routed({"a": busy}, [("0", "49", "a")])
    assert outcome(proxy, port, "33", "c1").startswith("404")
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        rows = [("0", "33", "a", ""), ("0", "44", "nobody", ""), ("0", "4x", "a", ""), ("0", "45", "a", "20260101"), ("x", "46", "a", "")]
        connection.executemany("INSERT INTO dr_rules (groupid, prefix, gwlist, timerec) VALUES (?, ?, ?, ?)", rows)
    connection.close()
    code, told = manage(proxy, "routes", "reload")
    report = json.loads(told)
    assert (code, report["partitions"][0]["rules"]) == (0, 2)
    faults = [(fault["table"], fault["row"], fault["column"]) for fault in report["faults"]]
    assert faults == [
        ("dr_rules", "3", "gwlist"),
        ("dr_rules", "3", "gwlist"),
        ("dr_rules", "4", "prefix"),
        ("dr_rules", "6", "groupid"),
        ("dr_rules", "5", "timerec"),
    ]
    assert outcome(proxy, port, "33", "c2").startswith("486")
    status = json.loads(manage(proxy, "status")[1])["routes"]
    assert (status["state"], status["fault_count"]) == ("ready", 5)
    assert proxy.counters()["route_rows_unusable"] == 5
    # A file that is away, or empty, is no reason to go on without rules, and none to make another one.
    database = tmp_path / "rules.db"
    database.rename(tmp_path / "away.db")
    for problem in ("no table", "no table"):
        code, told = manage(proxy, "routes", "reload")
        assert (code, problem in told) == (1, True), told
        assert outcome(proxy, port, "33", f"away-{database.exists()}").startswith("486")
        database.write_bytes(b"")
    (tmp_path / "away.db").rename(database)
    assert manage(proxy, "routes", "reload")[0] == 0
    # A file that is no database any more.
    (tmp_path / "rules.db").write_bytes(b"nothing of the kind" * 100)
    code, told = manage(proxy, "routes", "reload")
    assert (code, "database" in told) == (1, True)
    assert outcome(proxy, port, "33", "c3").startswith("486")
    status = json.loads(manage(proxy, "status")[1])["routes"]
    assert (status["state"], "database" in status["problem"]) == ("stale", True)


def test_a_load_of_rules_leaves_the_processor_to_calls(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]]
) -> None:
    busy, _ = gateway("busy")
    proxy, _ = routed({"a": busy}, [("0", "49", "a")])
    assert manage(proxy, "routes", "reload")[0] == 0
    nice: dict[str, set[int]] = {}
    for task in Path(f"/proc/{proxy.process.pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        nice.setdefault(name, set()).add(int(rest.split()[16]))
    # The threads of the server's loop, those among them that began before there was a worker.
    assert (nice["worker-0"], nice["edgeproxy"]) == ({0}, {10})


def test_bad_rows_can_refuse_the_start(start_proxy: Start, tmp_path: Path) -> None:
    environment = provision(tmp_path / "rules.db", {"a": "127.0.0.1"}, [("0", "x", "a")])
    toml = TOML.format(port=free_port(), route="", extra='[routing]\nbad_rows = "refuse"')
    fault = "dr_rules, row 1, column prefix: expected digits and `extra_prefix_characters`, got: x"
    with pytest.raises(RuntimeError, match=fault):
        start_proxy(toml, environment={**os.environ, **environment})
    done = subprocess.run(
        [EDGEPROXY, "check", tmp_path / "edge.toml"], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, fault in done.stderr) == (1, True), done.stderr
    with pytest.raises(RuntimeError, match=r"routes|database .*no table"):
        start_proxy(toml, environment={**os.environ, "EDGEPROXY_DATABASE": "postgresql://127.0.0.1:1/x"})


def test_partitions_that_mean_nothing_are_named_and_one_that_is_not_to_be_had_fails_the_load(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]], tmp_path: Path
) -> None:
    busy, _ = gateway("busy")
    proxy, port = routed({"a": busy}, [("0", "49", "a")], extra="[routing]\npartitions = true")
    database = tmp_path / "rules.db"

    def partition(*row: object) -> tuple[int, str]:
        with sqlite3.connect(database) as connection:
            connection.execute("INSERT INTO dr_partitions (id, partition_name, db_url, drr_table) VALUES (?, ?, ?, ?)", row)
        connection.close()
        return manage(proxy, "routes", "reload")

    code, told = partition(1, "odd", "what", None)
    assert (code, [tuple(fault.values())[:3] for fault in json.loads(told)["faults"]]) == (0, [("dr_partitions", "1", "db_url")])
    code, told = partition(2, "second", "", "nowhere")
    assert (code, "partition second of dr_partitions: " in told, "nowhere" in told) == (1, True, True), told
    code, told = partition(3, "third", f"sqlite:///{tmp_path}/none.db", None)
    assert (code, (tmp_path / "none.db").exists()) == (1, False)
    assert outcome(proxy, port, "49", "c1").startswith("486")
    # Gateways of two partitions may have one name: lists and records tell them apart.
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM dr_partitions WHERE id > 1")
        connection.execute("INSERT INTO dr_partitions (id, partition_name, db_url) VALUES (4, 'east', '')")
    connection.close()
    proxy.file.write_text(proxy.file.read_text().replace("[route.pstn]", '[route.pstn]\npartition = "east"', 1))
    assert manage(proxy, "reload")[0] == 0
    assert outcome(proxy, port, "49", "c2").startswith("486")
    attempts = [(attempt["partition"], attempt["gateway"]) for record in proxy.records(2) for attempt in record["attempts"]]
    assert attempts == [("", "a"), ("east", "a")]
    statistics = manage(proxy, "routes", "stats")[1].splitlines()
    assert sorted(line.split()[:4] for line in statistics[1:]) == [["a", "gateway", "1", "0"], ["a", "gateway", "east", "1"]]


def test_explanations_and_statistics(routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]]) -> None:
    busy, _ = gateway("busy")
    proxy, port = routed(
        {"a": busy, "b": free_port()},
        [("0", "49", "b,a"), ("0", "", "a"), ("7", "49", "a")],
        extra='[api]\nmetrics_listen = "127.0.0.1:METRICS"'.replace("METRICS", str(metrics := free_port())),
    )
    assert outcome(proxy, port, "4930", "c1").startswith("486")
    code, told = manage(proxy, "routes", "explain", "")
    assert (code, "number" in told and "length >= 1" in told) == (1, True), told
    told = manage(proxy, "routes", "explain", "+4930")[1].splitlines()
    assert told == [
        "route pstn: number 4930 in group 0",
        "  -> rule 1, prefix 49, priority 0: the longest prefix with a rule that holds, of the highest priority",
        f"       - gateway b: sip:4930@127.0.0.1:{told[2].split(':')[3].split(' ')[0]} (down: address refused)",
        f"       + gateway a: sip:4930@127.0.0.1:{busy} (usable)",
        "     rule 2, default rule, priority 0: another rule comes first, and the search may not fall back",
    ]
    assert "4294967295" in manage(proxy, "routes", "explain", "4930", "--group", "99999999999")[1]
    assert "rule 3, prefix 49" in manage(proxy, "routes", "explain", "4930", "--group", "7", "--at", "2026-12-24T18:00:00+01:00")[1]
    assert "route pstn" in manage(proxy, "routes", "explain", "4930", "--from", "core")[1]
    for written in ("sip:+49-30:secret@edge;user=phone", "+4930;npdi;rn=1", "tel:+4930;phone-context=x", "4930:secret"):
        assert manage(proxy, "routes", "explain", written)[1].splitlines()[0] == told[0], written
    assert manage(proxy, "routes", "explain", "4930", "--from", "core", "--route", "pstn")[0] == 0
    assert manage(proxy, "routes", "explain", "4930", "--from", "nobody", "--route", "pstn") == (1, "no such peer: nobody\n")
    for wrong, problem in (
        (("--route", "nobody"), "no such route: nobody; there are pstn"),
        (("--from", "pstn"), "no such peer, or one without a route: pstn"),
        (("--at", "0001-01-01T00:00:00"), "at: expected for example 2026-12-24T18:00:00+01:00, got: 0001-01-01T00:00:00"),
        (("--at", "noon"), "at: expected for example 2026-12-24T18:00:00+01:00, got: noon"),
    ):
        assert manage(proxy, "routes", "explain", "4930", *wrong) == (1, f"{problem}\n")
    statistics = manage(proxy, "routes", "stats")[1].splitlines()
    assert [line.split()[:3] for line in statistics[1:]] == [["a", "gateway", "1"], ["b", "gateway", "1"]]
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as page:
        text = page.read().decode()
    assert 'edgeproxy_gateway_refused_total{node="edge1",gateway="a",kind="gateway",partition="",class="4xx"} 1' in text
    assert 'edgeproxy_gateway_unreachable_total{node="edge1",gateway="b",kind="gateway",partition=""} 1' in text
    assert 'edgeproxy_gateway_usable{node="edge1",gateway="b",kind="gateway",partition=""} 0' in text


def test_quality_reorders_a_rule_and_operators_see_and_change_it(
    routed: Callable[..., tuple[Proxy, int]], gateway: Callable[..., tuple[int, Sipp]], tmp_path: Path
) -> None:
    busy, _ = gateway("busy")
    declined, _ = gateway("declined")
    extra = '[routing.quality]\norder = "best_first"\nasr_samples = 3\ncritical = "drop"\nprobation_share = 0'
    proxy, port = routed({"a": busy, "b": declined}, [("0", "49", "a,b")], extra=extra)
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        connection.execute("INSERT INTO qr_profiles (id, profile_name, crit_threshold_asr) VALUES (4, 'usual', 0.5)")
        connection.execute("UPDATE dr_rules SET sort_alg = 'Q', sort_profile = 4")
    connection.close()
    assert manage(proxy, "routes", "reload")[0] == 0
    answers = [outcome(proxy, port, "4930", f"c{number}")[:3] for number in range(4)]
    assert answers == ["486", "486", "486", "603"]
    pair = json.loads(manage(proxy, "routes", "quality", "show", "--json")[1])["pairs"][0]
    assert (pair["rule"], pair["gateway"], pair["grade"]) == (1, "a", "critical")
    # Rules that come anew know of it.
    assert manage(proxy, "routes", "reload")[0] == 0
    assert outcome(proxy, port, "4930", "c10").startswith("603")
    assert manage(proxy, "routes", "quality", "reset", "1", "a")[0] == 0
    assert outcome(proxy, port, "4930", "c11").startswith("486")
    assert manage(proxy, "routes", "quality", "disable", "1", "a")[0] == 0
    assert outcome(proxy, port, "4930", "c12").startswith("603")
    assert "switched off" in manage(proxy, "routes", "quality", "show")[1]
    assert manage(proxy, "routes", "quality", "enable", "1", "a")[0] == 0
    assert outcome(proxy, port, "4930", "c13").startswith("486")
    assert "4294967295" in manage(proxy, "routes", "quality", "reset", "99999999999", "a")[1]
    for rule in (-1, 1 << 32, 10**20):
        with pytest.raises(EdgeProxyError, match=r"\$\.rule"):
            ask(proxy.state / "control.sock", "PUT", "/routes/quality", {"rule": rule, "gateway": "a"})
    assert manage(proxy, "routes", "quality", "reset", "9", "a") == (1, "gateway a has had no calls by rule 9 of partition default\n")


def talk(  # noqa: PLR0917
    start_proxy: Start, tmp_path: Path, name: str, core: int, rules: list[tuple[str, str, str]], gateways: dict[str, int]
) -> tuple[Proxy, int]:
    port = free_port()
    toml = (
        (EXAMPLES / name)
        .read_text()
        .replace("5060", str(port))
        .replace("5070", str(core))
        .replace('state_directory = "var"', 'state_directory = "STATE"')
    )
    for module in EXAMPLES.glob("*.py"):
        (tmp_path / module.name).write_text(module.read_text().replace("edgeproxy", "edgeproxy"))
    environment = provision(tmp_path / "rules.db", {gateway: f"127.0.0.1:{there}" for gateway, there in gateways.items()}, rules)
    return start_proxy(toml, environment={**os.environ, **environment}), port


def test_t14_and_t15_go_on_after_every_five_and_six(start_proxy: Start, gateway: Callable[..., tuple[int, Sipp]], tmp_path: Path) -> None:
    declined, _ = gateway("declined")
    busy, _ = gateway("busy")
    with Agent() as asterisk:
        proxy, port = talk(
            start_proxy,
            tmp_path,
            "t14-t15-outbound.toml",
            asterisk.port,
            [("0", "1", "a=1,b=0"), ("0", "2", "a")],
            {"a": declined, "b": busy},
        )
        for number, wanted in (("1", "486"), ("2", "500 PSTN Not Available")):
            asterisk.send(invite("INVITE", asterisk.port, f"sip:{number}@x", call_id=number, branch=number), port)
            assert asterisk.receive_until(f"SIP/2.0 {wanted}")
    assert attempts(proxy, 2) == [[("a", 603), ("b", 486)], [("a", 603)]]


def test_t16_lets_known_numbers_in(start_proxy: Start, tmp_path: Path) -> None:
    with Agent() as asterisk, Agent() as carrier:
        proxy, port = talk(start_proxy, tmp_path, "t16-inbound.toml", asterisk.port, [("1", "4930", "")], {"a": carrier.port})
        carrier.send(invite("INVITE", carrier.port, "sip:4930@x", call_id="c1", branch="c1"), port)
        assert asterisk.receive_until("INVITE sip:4930@x")
        carrier.send(invite("INVITE", carrier.port, "sip:49301@x", call_id="c2", branch="c2"), port)
        assert carrier.receive_until("SIP/2.0 404 Unknown DID")
    assert proxy.counters()["route_misses"] == 1


def test_a_carrier_that_is_a_name_only_is_known_by_where_its_srv_records_lead(start_proxy: Start, tmp_path: Path) -> None:
    with Agent() as asterisk, Agent() as carrier, Agent() as stranger:
        port, dns_port = free_port(), free_port()
        server = DNSServer(Zone([carrier.port]), port=dns_port, address="127.0.0.1")
        server.start_thread()
        environment = provision(tmp_path / "routes.db", {"a": "core.test"}, [("0", "4930", "a")])
        try:
            start_proxy(
                f'[install]\nstate_directory = "STATE"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n[dns]\nservers = ["127.0.0.1:{dns_port}"]\n'
                f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{asterisk.port}"]\nto = ["sip:127.0.0.1:{asterisk.port}"]\n'
                '[peer.pstn]\nkind = "gateway"\ngateway_types = [-1]\n[route.out]\n',
                environment={**os.environ, **environment},
            )
            carrier.send(invite("INVITE", carrier.port, "sip:1@x", call_id="srv", branch="srv"), port)
            assert asterisk.receive_until("INVITE sip:1@x", 3)
            stranger.send(invite("INVITE", stranger.port, "sip:2@x", call_id="none", branch="none"), port)
            assert stranger.receive_until("SIP/2.0 403", 3)
        finally:
            server.stop()
            server.server.server_close()


class _Lrn(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = "no=4930" in self.path
        self.send_response(200 if known else 500)
        self.end_headers()
        self.wfile.write(b'{"lrn": "777"}' if known else b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_t12_routes_by_the_number_of_the_service_or_as_dialled(start_proxy: Start, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lrn)
    Thread(target=server.serve_forever, daemon=True).start()
    module = EXAMPLES / "t12-lnp-by-http.toml"
    with Agent() as asterisk, Agent() as ported, Agent() as plain:
        port = free_port()
        toml = module.read_text().replace("5060", str(port)).replace("5070", str(asterisk.port)).replace("8080", str(server.server_port))
        (tmp_path / "t12_lnp_by_http.py").write_text((EXAMPLES / "t12_lnp_by_http.py").read_text())
        places = {"ported": f"127.0.0.1:{ported.port}", "plain": f"127.0.0.1:{plain.port}"}
        environment = provision(tmp_path / "rules.db", places, [("0", "777", "ported"), ("0", "4", "plain")])
        proxy = start_proxy(toml.replace('state_directory = "var"', 'state_directory = "STATE"'), environment={**os.environ, **environment})
        asterisk.send(invite("INVITE", asterisk.port, "sip:4930@x", call_id="c1", branch="c1"), port)
        assert ported.receive_until("INVITE sip:777@127.0.0.1")
        asterisk.send(invite("INVITE", asterisk.port, "sip:4931@x", call_id="c2", branch="c2"), port)
        request = plain.receive_until("INVITE sip:4931@127.0.0.1")
        plain.send(answer(request, "486 Busy Here"), port)
        assert asterisk.receive_until("SIP/2.0 486")
    record = next(record for record in proxy.records(1) if record["call_id"] == "c2")
    assert "status 500" in record["notes"]["lnp"]
    server.shutdown()
    server.server_close()


def test_t13_asks_a_redirect_server_first(start_proxy: Start, tmp_path: Path) -> None:
    with Agent() as asterisk, Agent() as lrn, Agent() as ported, Agent() as plain:
        port = free_port()
        text = (EXAMPLES / "t13-lrn-by-redirect.toml").read_text()
        toml = text.replace("5060", str(port)).replace("5070", str(asterisk.port)).replace("8080", str(lrn.port))
        places = {"ported": f"127.0.0.1:{ported.port}", "plain": f"127.0.0.1:{plain.port}"}
        environment = provision(tmp_path / "rules.db", places, [("0", "777", "ported"), ("0", "4", "plain")])
        proxy = start_proxy(toml.replace('state_directory = "var"', 'state_directory = "STATE"'), environment={**os.environ, **environment})
        asterisk.send(invite("INVITE", asterisk.port, "sip:4930@x", call_id="c1", branch="c1"), port)
        moved = answer(lrn.receive_until("INVITE sip:4930@x"), "302 Moved").replace(
            "Content-Length", "Contact: <sip:4930;npdi;rn=777@x>\r\nContent-Length", 1
        )
        lrn.send(moved, port)
        assert ported.receive_until("INVITE sip:4930;npdi;rn=777@127.0.0.1")
        # Silent for two seconds: as dialled, and nothing of the service goes to the caller.
        began = time.monotonic()
        asterisk.send(invite("INVITE", asterisk.port, "sip:4931@x", call_id="c2", branch="c2"), port)
        request = plain.receive_until("INVITE sip:4931@127.0.0.1", 5)
        assert 1.5 < time.monotonic() - began < 4
        plain.send(answer(request, "486 Busy Here"), port)
        assert asterisk.receive_until("SIP/2.0 486")
        wait_for(lambda: json.loads(manage(proxy, "status")[1])["lookups"] == {"lrn": {"found": 1, "slow": 1}})
    record = next(record for record in proxy.records(1) if record["call_id"] == "c2")
    assert "no answer within" in record["notes"]["lookup.lrn"]


@pytest.mark.alone
def test_a_lookup_that_hangs_delays_those_alone_that_wait_for_it_until_it_is_out(start_proxy: Start, tmp_path: Path) -> None:
    extra = """
lookups = ["lnp"]
[peer.others]
kind = "trusted"
match = ["127.0.0.1:OTHER"]
route = "pstn"
[lookup.lnp]
url = "http://127.0.0.1:HANGS/{{number}}"
deadline_seconds = 0.5
breaker_failures = 3
breaker_seconds = 1
"""
    with Agent() as gateway, Agent() as caller, Agent() as other, socket.create_server(("127.0.0.1", 0)) as hangs:
        environment = provision(tmp_path / "rules.db", {"a": f"127.0.0.1:{gateway.port}"}, [("0", "", "a")])
        port = free_port()
        lookup = extra.replace("OTHER", str(other.port)).replace("HANGS", str(hangs.getsockname()[1])).replace("{{", "{").replace("}}", "}")
        toml = TOML.format(port=port, route="", extra="").replace('route = "pstn"\n', f'route = "pstn"\n{lookup}', 1)
        proxy = start_proxy(toml, environment={**os.environ, **environment})

        def seconds(agent: Agent, number: int) -> float:
            began = time.monotonic()
            agent.send(invite("INVITE", agent.port, f"sip:{number}@x", call_id=f"h{number}", branch=f"h{number}"), port)
            gateway.receive_until(f"INVITE sip:{number}@", 4)
            return time.monotonic() - began

        assert seconds(caller, 1) > 0.45
        for number in (2, 3):
            caller.send(invite("INVITE", caller.port, f"sip:{number}@x", call_id=f"h{number}", branch=f"h{number}"), port)
        assert seconds(other, 50) < 0.4
        gateway.receive_until("INVITE sip:3@", 4)
        # It is out: nobody waits until one question has tried it again.
        assert max(seconds(caller, number) for number in (4, 5)) < 0.4
        counts = [
            f'edgeproxy_lookups_total{{node="edge1",lookup="lnp",outcome="{outcome}"}} {count}'
            for outcome, count in (("slow", 3), ("out", 2))
        ]
        wait_for(lambda: all(count in manage(proxy, "metrics")[1] for count in counts))


def test_a_rule_asks_the_handler_that_it_names_and_a_name_that_nobody_has_is_a_fault(start_proxy: Start, tmp_path: Path) -> None:
    (tmp_path / "premium.py").write_text(
        "from edgeproxy.policy import Policy, Reject\n"
        "policy = Policy()\n"
        "@policy.on_route('premium')\n"
        "def premium(rule):\n"
        "    return Reject(403, f'Not {rule.attrs}')\n"
    )
    with Agent() as gateway:
        environment = provision(
            tmp_path / "rules.db", {"a": f"127.0.0.1:{gateway.port}"}, [("0", "49", "a"), ("0", "1", "a"), ("0", "2", "a")]
        )
        with sqlite3.connect(tmp_path / "rules.db") as connection:
            connection.execute("UPDATE dr_rules SET routeid = 'premium', attrs = 'this' WHERE prefix = '49'")
            connection.execute("UPDATE dr_rules SET routeid = 'nobody' WHERE prefix = '1'")
        connection.close()
        port = free_port()
        toml = TOML.format(port=port, route="", extra='[[policy]]\nmodule = "premium"\n')
        proxy = start_proxy(toml, environment={**os.environ, **environment})
        assert outcome(proxy, port, "4930", "r1") == "403 Not this"
        assert outcome(proxy, port, "12", "r2").startswith("404")
        faults = json.loads(manage(proxy, "status")[1])["routes"]["faults"]
        assert [(fault["table"], fault["row"], fault["problem"]) for fault in faults] == [("dr_rules", "2", "no such handler: nobody")]
        # Without the module its name is one that nobody has.
        proxy.file.write_text(proxy.file.read_text().replace('[[policy]]\nmodule = "premium"\n', ""))
        assert manage(proxy, "reload")[0] == 0
        assert outcome(proxy, port, "4930", "r3").startswith("404")
        assert json.loads(manage(proxy, "status")[1])["routes"]["fault_count"] == 2


def test_numbers_have_one_form_within_and_another_at_the_gateway(start_proxy: Start, tmp_path: Path) -> None:
    extra = """
[peer.core.numbers_in]
set = "german"
[peer.pstn.numbers_out]
set = "out"
scheme = "tel"
fields = ["from"]
[numbers.german]
dialplan = 7
rules = [{ prefix = "00", strip = 2, add = "+" }]
[numbers.out]
rules = [{ prefix = "", add = "" }]
"""
    with Agent() as gateway, Agent() as caller:
        environment = provision(tmp_path / "rules.db", {"a": f"127.0.0.1:{gateway.port}"}, [("0", "49", "a")])
        with sqlite3.connect(tmp_path / "rules.db") as connection:
            connection.execute("INSERT INTO dialplan (id, dpid, match_op, match_exp, repl_exp) VALUES (5, 7, 1, '^0([1-9].*)', '+49\\1')")
        connection.close()
        port = free_port()
        proxy = start_proxy(TOML.format(port=port, route="", extra=extra), environment={**os.environ, **environment})
        request = invite("INVITE", caller.port, "sip:030-123@x", call_id="n1", branch="n1").replace("From: <sip:a@", "From: <sip:040@", 1)
        own = next(line for line in request.split("\r\n") if line.startswith("From:"))
        caller.send(request, port)
        sent = gateway.receive_until("INVITE", 3)
        assert sent.startswith(f"INVITE sip:4930123@127.0.0.1:{gateway.port} SIP/2.0\r\n")
        assert "\r\nFrom: <tel:+4940>;" in sent
        gateway.send(answer(sent, "486 Busy Here"), port)
        assert f"\r\n{own}\r\n" in caller.receive_until("SIP/2.0 486", 3)
        explained = manage(proxy, "routes", "explain", "030123", "--from", "core")[1]
        assert "number 4930123 in group 0\n  made so by rule row 5 of dialplan" in explained
        assert "number 4930 in group 0\n  no " not in manage(proxy, "routes", "explain", "4930", "--from", "core")[1], (
            "no rule, and not refused"
        )
        proxy.file.write_text(
            proxy.file.read_text().replace("dialplan = 7\n", 'dialplan = 7\nrefuse = { status_code = 484, reason_phrase = "Not Here" }\n')
        )
        assert manage(proxy, "reload")[0] == 0
        assert outcome(proxy, port, "4930", "n2") == "484 Not Here"
        refused = "route pstn: number 4930 in group 0\n  no number rule of peer core is for it: it is refused with 484 Not Here\n"
        assert manage(proxy, "routes", "explain", "4930", "--from", "core") == (0, refused)


def test_explanations_show_numbers_as_gateways_get_them(start_proxy: Start, tmp_path: Path) -> None:
    extra = """
[peer.pstn.numbers_out]
set = "plus"
[gateway.b.numbers_out]
set = "local"
[numbers.plus]
rules = [{ prefix = "+", add = "" }, { prefix = "", add = "+" }]
[numbers.local]
rules = [{ prefix = "+49", strip = 3, add = "0" }, { prefix = "49", strip = 2, add = "0" }]
"""
    with Agent() as first, Agent() as second:
        places = {"a": f"127.0.0.1:{first.port}", "b": f"127.0.0.1:{second.port}"}
        environment = provision(tmp_path / "rules.db", places, [("0", "49", "a"), ("0", "491", "b")])
        port = free_port()
        proxy = start_proxy(TOML.format(port=port, route="", extra=extra), environment={**os.environ, **environment})
        for number, gateway, wanted in (
            ("+4930", first, "+4930"),
            ("4930", first, "+4930"),
            ("+49151", second, "0151"),
            ("49151", second, "0151"),
        ):
            told = manage(proxy, "routes", "explain", number, "--from", "core")[1]
            assert f": sip:{wanted}@127.0.0.1:{gateway.port} (usable)" in told, told
            with Agent() as caller:
                caller.send(invite("INVITE", caller.port, f"sip:{number}@x", call_id=f"c{number}", branch=f"c{number}"), port)
                sent = gateway.receive_until("INVITE", 3)
                assert sent.startswith(f"INVITE sip:{wanted}@127.0.0.1:{gateway.port} SIP/2.0\r\n")
                gateway.send(answer(sent, "486 Busy Here"), port)
                caller.receive_until("SIP/2.0 486", 3)


def test_a_gateway_that_no_listener_leads_to_is_told_and_passed_over(
    start_proxy: Start, gateway: Callable[..., tuple[int, Sipp]], tmp_path: Path
) -> None:
    busy, _ = gateway("busy")
    places = {"a": f"127.0.0.1:{free_port()};transport=tcp", "b": "[::1]:5060", "c": f"127.0.0.1:{busy}"}
    environment = provision(tmp_path / "rules.db", places, [("0", "49", "a,b,c"), ("0", "1", "#lost")])
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        connection.execute("INSERT INTO dr_carriers (carrierid, gwlist) VALUES ('lost', 'a,b')")
        connection.execute("INSERT INTO dr_carriers (carrierid, gwlist) VALUES ('found', 'a,c')")
    connection.close()
    port = free_port()
    proxy = start_proxy(TOML.format(port=port, route="", extra=""), environment={**os.environ, **environment})
    faults = json.loads(manage(proxy, "status")[1])["routes"]["faults"]
    assert [tuple(fault.values()) for fault in faults] == [
        ("dr_gateways", "a", "address", "no listener sends over tcp to IPv4; no call comes to it"),
        ("dr_gateways", "b", "address", "no listener sends over udp to IPv6; no call comes to it"),
    ]
    told = manage(proxy, "routes", "explain", "4930")[1]
    assert [line.rsplit("(", 1)[1] for line in told.splitlines() if " gateway " in line] == [
        "no listener sends over tcp to IPv4)",
        "no listener sends over udp to IPv6)",
        "usable)",
    ]
    usable = {row["id"]: row["usable"] for row in json.loads(manage(proxy, "routes", "list", "--json")[1])["gateways"]}
    assert usable == {"a": False, "b": False, "c": True, "lost": False, "found": True}
    states = [line.split()[:3] for line in manage(proxy, "routes", "list")[1].splitlines()[1:]]
    assert [state for name, *state in states if name in {"c", "lost", "found"}] == [["gateway", "up"], ["carrier", "no"], ["carrier", "up"]]
    assert outcome(proxy, port, "4930", "c1").startswith("486")
    attempts = [(attempt["gateway"], attempt["status_code"]) for attempt in proxy.records(1)[0]["attempts"]]
    assert attempts == [("a", 503), ("b", 503), ("c", 486)]
    # A listener that comes with a reload leads there.
    proxy.file.write_text(
        proxy.file.read_text().replace("[peer.core]", f'[install.listener.tcp]\naddress = "tcp:127.0.0.1:{port}"\n[peer.core]', 1)
    )
    assert manage(proxy, "reload")[0] == 0
    assert "gateway a: sip:4930@127.0.0.1:" in (told := manage(proxy, "routes", "explain", "4930")[1])
    assert "(no listener sends over tcp" not in told


def test_explanations_for_callers_with_a_group_and_for_routes_that_only_check(
    routed: Callable[..., tuple[Proxy, int]], tmp_path: Path
) -> None:
    proxy, _ = routed(
        {"a": free_port()},
        [("0,0,0", "49", "a"), ("7", "49", "a")],
        extra='[route.whose]\ncaller_groups = "user_and_domain"\n[route.user]\ncaller_groups = "user"\n[route.checked]\ncheck_only = true\n',
    )
    with sqlite3.connect(tmp_path / "rules.db") as connection:
        connection.execute("INSERT INTO dr_groups (username, domain, groupid) VALUES ('alice', 'a.example', 7)")
        connection.execute("INSERT INTO dr_groups (username, domain, groupid) VALUES ('bob', '', 7)")
    connection.close()
    assert manage(proxy, "routes", "reload")[0] == 0

    def explain(*words: str) -> list[str]:
        return manage(proxy, "routes", "explain", "4930", *words)[1].splitlines()

    told = explain("--route", "whose")
    assert told[:2] == [
        "route whose: number 4930 in group 0",
        "  callers in dr_groups have groups of their own (caller_groups is user_and_domain): --caller tells for one",
    ]
    assert len(told) == 4, "a group that is named twice holds once"
    assert explain("--route", "whose", "--caller", "alice@A.example")[:2] == [
        "route whose: number 4930 in group 7",
        "  -> rule 2, prefix 49, priority 0: the longest prefix with a rule that holds, of the highest priority",
    ]
    assert explain("--route", "whose", "--caller", "carol@a.example")[0] == "route whose: number 4930 in group 0"
    assert explain("--route", "whose", "--caller", "alice") == ["caller: expected user@domain, got: alice"]
    assert explain("--route", "user", "--caller", "bob")[0] == "route user: number 4930 in group 7"
    assert explain("--caller", "bob") == ["caller: the group of route pstn is the same for every caller (caller_groups is off)"]
    assert explain("--route", "checked")[1] == (
        "  the route only checks that there is a rule (check_only): the call then goes where it would go without it"
    )


def test_a_pattern_that_cannot_be_used_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    text = '[install]\nstate_directory = "STATE"\n[install.listener.a]\naddress = "udp:127.0.0.1:5099"\n[numbers.x]\nrules = [{ pattern = "(?=1)" }]\n'
    file.write_text(text.replace("STATE", str(tmp_path)))
    done = subprocess.run([EDGEPROXY, "check", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{file}:6: numbers.x.rules.0.pattern: expected a regular expression, got: (?=1)" in done.stderr
    assert "look-around" in done.stderr
    file.write_text(file.read_text().replace('pattern = "(?=1)"', "pattern = '^0(.*)$', replace = '+\\1\\2'"))
    done = subprocess.run([EDGEPROXY, "check", str(file)], capture_output=True, text=True, check=False)
    assert f"{file}:6: numbers.x.rules.0.replace: `pattern` has no group 2, got: +\\1\\2" in done.stderr


def test_what_a_route_names_and_the_database_has_not_is_told(routed: Callable[..., tuple[Proxy, int]]) -> None:
    route = 'whitelist = ["a", "b", "#a", "#one"]\n[route.other]\npartition = "elsewhere"'
    proxy, _ = routed({"a": free_port()}, [("0", "49", "a")], route=route)

    def faults() -> list[tuple[str, ...]]:
        report = json.loads(manage(proxy, "status")[1])["routes"]
        assert report["fault_count"] == len(report["faults"])
        return [tuple(fault.values()) for fault in report["faults"]]

    assert faults() == [
        ("[route]", "pstn", "whitelist", "no such gateway or #carrier: b"),
        ("[route]", "pstn", "whitelist", "no such gateway or #carrier: #a"),
        ("[route]", "pstn", "whitelist", "no such gateway or #carrier: #one"),
        ("[route]", "other", "partition", "no such partition: elsewhere; calls get its answer `not_found`"),
    ]
    proxy.file.write_text(proxy.file.read_text().replace('"b", "#a", "#one"', '"c"').replace('"elsewhere"', '""'))
    assert manage(proxy, "reload")[0] == 0
    assert faults() == [("[route]", "pstn", "whitelist", "no such gateway or #carrier: c")]
