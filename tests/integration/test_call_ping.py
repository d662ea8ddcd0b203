"""Pings within calls of real phones: they live through them, and are found out when they are gone."""

import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.baresip import Baresip
from tests.integration.proxy import Proxy, free_port

TOML = """
[install]
state_directory = "STATE"
[install.listener.public]
address = "udp:127.0.0.1:{port}"
[peer.phones]
kind = "subscribers"
match = ["*;listener=public"]
[registrar]
domains = ["edge.example"]
[media]
engage = "always"
[tuning.timers]
t1_milliseconds = 50
[call_ping]
interval_seconds = 5
method = "{method}"
[limit.calls]
counts = "calls"
key = "{{account}}"
most = 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["OPTIONS", "INVITE"])
def test_real_phones_live_through_pings_and_one_that_was_killed_ends_the_call(
    method: str, start_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    port = free_port()
    proxy = start_proxy(TOML.format(port=port, method=method))
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        rows = [(user, "edge.example", "secret") for user in ("alice", "bob")]
        database.executemany("INSERT INTO subscriber (username, domain, password) VALUES (?, ?, ?)", rows)
    database.close()
    with Baresip(tmp_path, "alice", port, 440) as alice, Baresip(tmp_path, "bob", port, 1_000) as bob:
        for phone in (alice, bob):
            assert phone.says("registered successfully") or phone.says("[1 binding]"), phone.log
        alice.tell("dial", "sip:bob@edge.example")
        assert alice.says("Call established"), alice.log
        time.sleep(11)
        # What a phone sends in its dialog after that has numbers that the other one takes.
        alice.tell("hold")
        time.sleep(1)
        alice.tell("resume")
        time.sleep(1)
        counters = proxy.counters()
        assert counters["call_pings_sent"] >= 4
        assert (counters["calls"], counters["call_pings_failed"]) == (1, 0), (alice.log, bob.log)
        alice.tell("hangup")
        record = proxy.records(1, 10)[0]
        assert (record["outcome"], record["ended_by"]) == ("answered", "caller")
        # A phone that loses its power says no BYE.
        alice.tell("dial", "sip:bob@edge.example")
        end = time.monotonic() + 10
        while proxy.counters()["calls_answered"] < 2:
            assert time.monotonic() < end, alice.log
            time.sleep(0.2)
        bob.process.send_signal(signal.SIGSTOP)
        try:
            records = proxy.records(2, 15)
        finally:
            bob.process.send_signal(signal.SIGCONT)
        assert (records[1]["outcome"], records[1]["ended_by"]) == ("answered", "proxy")
        time.sleep(1.2)
        counters = proxy.counters()
        assert (counters["calls"], counters["call_pings_failed"]) == (0, 1)
    # Nothing was repaired by an error: neither side refused a number.
    assert proxy.counters()["malformed"] == 0
