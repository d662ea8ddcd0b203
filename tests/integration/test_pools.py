"""A core of three machines, real SIPp each: shares, a machine that is killed under load, drain and return."""

import asyncio
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.storage import upgrade
from tests.integration.agent import Agent, invite
from tests.integration.proxy import Proxy, free_port, manage
from tests.sipp.catalogue import FLOWS
from tests.sipp.runner import Sipp

TOML = """
[install]
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = [{match}]
to = [{to}]
first_answer_seconds = 0.5
[peer.core.pool]
balance = "{balance}"
probe = false
[peer.callers]
kind = "trusted"
match = ["127.0.0.0/8"]
"""


@pytest.fixture
def machines(start_proxy: Callable[..., Proxy], start_sipp: Callable[..., Sipp]) -> Callable[..., tuple[Proxy, int, dict[int, Sipp]]]:
    def start(balance: str, rate: int = 1_000_000) -> tuple[Proxy, int, dict[int, Sipp]]:
        port, places = free_port(), [free_port() for _ in range(3)]
        started = {
            place: start_sipp(
                FLOWS["answered"].xml("answered")[1], f"machine-{place}", address="127.0.0.1", port=place, remote="127.0.0.1", calls=rate
            )
            for place in places
        }
        match = ", ".join(f'"127.0.0.1:{place}"' for place in places)
        to = ", ".join(f'"sip:127.0.0.1:{place}"' for place in places)
        return start_proxy(TOML.format(port=port, balance=balance, match=match, to=to)), port, started

    return start


def calls(start_sipp: Callable[..., Sipp], port: int, count: int, rate: int) -> Sipp:
    xml = FLOWS["answered"].xml("answered")[0]
    return start_sipp(xml, "caller", address="127.0.0.1", port=free_port(), remote=f"127.0.0.1:{port}", calls=count, rate=rate)


def test_calls_are_shared_and_a_killed_machine_costs_no_new_call(
    machines: Callable[..., tuple[Proxy, int, dict[int, Sipp]]], start_sipp: Callable[..., Sipp]
) -> None:
    proxy, port, started = machines("weight")
    caller = calls(start_sipp, port, 300, 60)
    time.sleep(2.5)
    # What it has answered is over at once: only calls that begin later could be lost.
    victim = next(iter(started.values()))
    victim.stop()
    caller.wait(40)
    records = proxy.records(300, 20)
    unanswered = [record for record in records if record["outcome"] != "answered"]
    assert (len(records), unanswered) == (300, [])
    shares = Counter(record["attempts"][-1]["gateway"] for record in records)
    assert len(shares) == 3
    assert min(shares.values()) > 20
    assert f"sip:127.0.0.1:{next(iter(started))}" in manage(proxy, "peers", "show")[1]


def test_a_drained_machine_gets_no_calls_until_it_is_enabled_also_over_a_restart(
    machines: Callable[..., tuple[Proxy, int, dict[int, Sipp]]], start_sipp: Callable[..., Sipp]
) -> None:
    proxy, port, started = machines("order")
    first, second = (f"sip:127.0.0.1:{place}" for place in list(started)[:2])
    calls(start_sipp, port, 1, 1).wait(10)
    assert manage(proxy, "peers", "drain", "core", first)[0] == 0
    calls(start_sipp, port, 1, 1).wait(10)
    proxy.stop()
    proxy.start()
    calls(start_sipp, port, 1, 1).wait(10)
    told = manage(proxy, "peers", "show")[1].splitlines()
    assert "switched off" in next(line for line in told if first in line)
    assert manage(proxy, "peers", "enable", "core", first)[0] == 0
    calls(start_sipp, port, 1, 1).wait(10)
    assert [record["attempts"][-1]["gateway"] for record in proxy.records(4)] == [first, second, second, first]
    assert manage(proxy, "peers", "drain", "core", "sip:nobody") == (1, "peer core is no pool with a machine sip:nobody\n")


def test_machines_and_addresses_of_the_database_serve_and_are_read_anew(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    file, port, inside = tmp_path / "peers.db", free_port(), free_port()
    asyncio.run(upgrade(f"sqlite:///{file}"))
    toml = f"""
[install]
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[install.listener.inside]
address = "udp:127.0.0.1:{inside}"
[peer.core]
kind = "core"
[peer.core.pool]
dispatcher = 3
balance = "order"
[peer.callers]
kind = "trusted"
match_group = 1
"""
    with Agent() as first, Agent() as second, Agent() as caller, Agent() as stranger:

        def row(statement: str, *values: int | str) -> None:
            with sqlite3.connect(file) as connection:
                connection.execute(statement, values)
            connection.close()

        row("INSERT INTO dispatcher (setid, destination) VALUES (3, ?)", f"sip:127.0.0.1:{first.port}")
        row("INSERT INTO address (grp, ip, port) VALUES (1, '127.0.0.1', ?)", caller.port)
        proxy = start_proxy(toml, environment={**os.environ, "EDGEPROXY_DATABASE": f"sqlite:///{file}"})
        caller.send(invite("INVITE", caller.port, "sip:1@x", call_id="d1", branch="d1"), port)
        assert f"\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};" in first.receive_until("INVITE sip:1@x", 3)
        stranger.send(invite("INVITE", stranger.port, "sip:2@x", call_id="d2", branch="d2"), port)
        assert stranger.receive_until("SIP/2.0 403", 3)
        row(
            "INSERT INTO dispatcher (setid, destination, priority, socket) VALUES (3, ?, 5, ?)",
            f"sip:127.0.0.1:{second.port}",
            f"udp:127.0.0.1:{inside}",
        )
        row("INSERT INTO address (grp, ip, port) VALUES (1, '127.0.0.1', ?)", stranger.port)
        row("INSERT INTO address (grp, ip, proto) VALUES (1, '127.0.0.9', 'ws')")
        assert manage(proxy, "routes", "reload")[0] == 0
        stranger.send(invite("INVITE", stranger.port, "sip:3@x", call_id="d3", branch="d3"), port)
        assert f"\r\nVia: SIP/2.0/UDP 127.0.0.1:{inside};" in second.receive_until("INVITE sip:3@x", 3)
        assert json.loads(manage(proxy, "status")[1])["peer_faults"] == ["address 3 proto expected any, udp or tcp, got: ws"]
        # Nobody is left: what served before goes on.
        assert json.loads(manage(proxy, "diff")[1])["changed"] == []
        row("DELETE FROM dispatcher")
        for words in (("diff",), ("routes", "reload")):
            code, text = manage(proxy, *words)
            assert (code, "no machine of its pool" in text) == (1, True)
        routes = json.loads(manage(proxy, "status")[1])["routes"]
        assert (routes["state"], "no machine of its pool" in routes["problem"]) == ("stale", True)
        assert [line["level"] for line in proxy.log if line["event"] == "routes not loaded"] == ["error"]
        assert re.search(r"^edgeproxy_route_load_failures_total\{.*\} 1(\.0)?$", manage(proxy, "metrics")[1], re.MULTILINE)
        caller.send(invite("INVITE", caller.port, "sip:4@x", call_id="d4", branch="d4"), port)
        assert second.receive_until("INVITE sip:4@x", 3)
        row("INSERT INTO dispatcher (setid, destination) VALUES (3, ?)", f"sip:127.0.0.1:{first.port}")
        assert manage(proxy, "routes", "reload")[0] == 0
        routes = json.loads(manage(proxy, "status")[1])["routes"]
        assert (routes["state"], routes["problem"]) == ("none", "")
