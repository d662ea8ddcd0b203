"""Real phones (baresip) whose media is relayed: each hears the other's tone, encrypted too, and again after a hold."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.baresip import Baresip
from tests.integration.proxy import Proxy, free_port, manage

TOML = """
[install]
state_directory = "STATE"
[install.listener.public]
address = "udp:127.0.0.1:{port}"
[install.listener.stream]
address = "tcp:127.0.0.1:{port}"
[peer.phones]
kind = "subscribers"
match = ["*;listener=public", "*;listener=stream"]
[registrar]
domains = ["edge.example"]
[media]
engage = "always"
"""


def registered(start_proxy: Callable[..., Proxy]) -> tuple[Proxy, int]:
    port = free_port()
    proxy = start_proxy(TOML.format(port=port))
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        rows = [(user, "edge.example", "secret") for user in ("alice", "bob")]
        database.executemany("INSERT INTO subscriber (username, domain, password) VALUES (?, ?, ?)", rows)
    database.close()
    return proxy, port


@pytest.mark.parametrize("encryption", ["", "srtp-mand"], ids=["plain", "srtp"])
def test_phones_hear_each_other_over_the_relay(encryption: str, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    proxy, port = registered(start_proxy)
    with (
        Baresip(tmp_path, "alice", port, 440, encryption=encryption) as alice,
        Baresip(tmp_path, "bob", port, 1_000, encryption=encryption) as bob,
    ):
        for phone in (alice, bob):
            assert phone.says("registered successfully") or phone.says("[1 binding]"), phone.log
        alice.tell("dial", "sip:bob@edge.example")
        assert alice.says("Call established"), alice.log
        time.sleep(4)
        alice.tell("hangup")
        record = proxy.records(1, 10)[0]
    assert record["outcome"] == "answered"
    stream = record["media"][0]
    # Fifty packets a second each way, and each phone from its own place.
    for side in ("caller", "callee"):
        assert stream[side]["packets"] > 150, stream
        assert stream[side]["lost"] == 0
        assert stream[side]["mos"] > 4
    assert stream["caller"]["source"] != stream["callee"]["source"]
    assert alice.tones().count(1_000) >= 2, alice.tones()
    assert bob.tones().count(440) >= 2, bob.tones()
    assert 440 not in alice.tones()


def test_hold_and_resume_of_a_real_phone(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    proxy, port = registered(start_proxy)
    with Baresip(tmp_path, "alice", port, 600) as alice, Baresip(tmp_path, "bob", port, 800) as bob:
        for phone in (alice, bob):
            assert phone.says("registered successfully") or phone.says("[1 binding]"), phone.log
        alice.tell("dial", "sip:bob@edge.example")
        assert alice.says("Call established"), alice.log
        time.sleep(2.5)
        alice.tell("hold")
        time.sleep(2)
        alice.tell("resume")
        time.sleep(3)
        alice.tell("hangup")
        record = proxy.records(1, 10)[0]
    assert (record["outcome"], record["ended_by"], len(record["media"])) == ("answered", "caller", 1)
    assert bob.tones().count(600) >= 2, bob.tones()
    assert alice.tones().count(800) >= 2, alice.tones()


def test_a_phone_with_two_flows_has_two_bindings_and_rings_once(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    proxy, port = registered(start_proxy)
    flows = f';outbound2="sip:127.0.0.1:{port};transport=tcp";sipnat=outbound'
    with Baresip(tmp_path, "bob", port, 1_000, flows=flows) as bob, Baresip(tmp_path, "alice", port, 440) as alice:
        assert alice.says("registered successfully") or alice.says("[1 binding]"), alice.log
        bindings: list[dict[str, Any]] = []
        end = time.monotonic() + 20
        while len(bindings) < 2 and time.monotonic() < end:
            time.sleep(0.2)
            bindings = json.loads(manage(proxy, "location", "show", "bob@edge.example", "--json")[1])["bindings"]
        assert sorted(binding["reg_id"] for binding in bindings) == [1, 2], (bindings, bob.log)
        assert len({binding["instance"] for binding in bindings}) == 1
        assert sorted(binding["socket"][:3] for binding in bindings) == ["tcp", "udp"]
        alice.tell("dial", "sip:bob@edge.example")
        assert alice.says("Call established"), alice.log
        time.sleep(1)
        alice.tell("hangup")
        record = proxy.records(1, 10)[0]
    assert (record["outcome"], len(record["attempts"])) == ("answered", 1), record
