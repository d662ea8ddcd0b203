"""Banned sources in the kernel of a namespace of our own: what is dropped there, what passes, and that nothing of it stays."""

import json
import subprocess
import time
from pathlib import Path

from tests.integration.agent import Agent, invite
from tests.integration.proxy import Proxy, manage, wait_for
from tests.nat.network import command

TOML = """
[install]
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:5060"
[install.listener.tcp]
address = "tcp:127.0.0.1:5060"
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/8", "::1"]
[registrar]
domains = ["edge.example"]
persist = false
[flood]
packets = 50
block_seconds = 30
malformed_points = 0
[flood.kernel]
enabled = true
udp_packets_per_minute = 300
check_seconds = 1
"""


def elements(name: str) -> list[str]:
    """Return the sources in a set of our table."""
    done = subprocess.run(["nft", "-j", "list", "set", "inet", "edgeproxy", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return []
    found = next(one["set"] for one in json.loads(done.stdout)["nftables"] if "set" in one)
    return [element["elem"]["val"] if isinstance(element, dict) else element for element in found.get("elem", [])]


def dropped() -> int:
    """Return how many packets our rules dropped."""
    said = subprocess.run(["nft", "-j", "list", "table", "inet", "edgeproxy"], capture_output=True, text=True, check=True).stdout
    rules = [one["rule"]["expr"] for one in json.loads(said)["nftables"] if "rule" in one]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


def until(wanted: str, name: str) -> bool:
    """Wait until a source is in a set."""
    for _ in range(60):
        if wanted in elements(name):
            return True
        time.sleep(0.1)
    return False


def test_the_kernel_drops_what_is_banned_and_keeps_nothing(tmp_path: Path) -> None:
    command("ip", "link", "set", "lo", "up")
    command("nft", "add", "table", "inet", "others")
    proxy = Proxy(tmp_path, TOML).start()
    try:
        with Agent("127.0.0.50") as attacker, Agent("127.0.0.51") as neighbour:
            for number in range(60):
                attacker.send(f"garbage {number}", 5060)
            assert until("127.0.0.50", "udp4"), "its address may be forged"
            before = proxy.counters()["dropped_banned"]
            for number in range(1_000):
                attacker.send(f"garbage {number}", 5060)
            assert dropped() > 900
            assert 0 < proxy.counters()["dropped_banned"] - before <= 20, "a few are let through"
            neighbour.send(invite("OPTIONS", neighbour.port, "sip:127.0.0.1", call_id="n"), 5060)
            assert neighbour.receive().startswith("SIP/2.0 ")
        # An operator's ban is for everything, and IPv6 has a set of its own.
        assert manage(proxy, "ban", "add", "127.0.0.60")[0] == 0
        assert manage(proxy, "ban", "add", "2001:db8::7")[0] == 0
        assert until("127.0.0.60", "all4")
        assert until("2001:db8::7", "all6")
        assert manage(proxy, "ban", "remove", "127.0.0.60")[0] == 0
        for _ in range(60):
            if not elements("all4"):
                break
            time.sleep(0.1)
        assert elements("all4") == []
        # Somebody flushes all rules: ours are made anew.
        command("nft", "delete", "table", "inet", "edgeproxy")
        assert until("127.0.0.50", "udp4")
        assert "edgeproxy_kernel_ban_failures_total" in manage(proxy, "metrics")[1]
    finally:
        assert proxy.stop() == 0
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert tables.split("\n") == ["table inet others", ""]


def listed(table: str) -> str:
    return subprocess.run(["nft", "list", "table", "inet", table], capture_output=True, text=True, check=True).stdout


def test_a_table_that_somebody_else_makes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    command("ip", "link", "set", "lo", "up")
    proxy = Proxy(tmp_path, TOML).start()
    try:
        assert manage(proxy, "ban", "add", "127.0.0.60")[0] == 0
        assert until("127.0.0.60", "all4")
        script = (
            "flush ruleset\nadd table inet edgeproxy\nadd chain inet edgeproxy input\nadd rule inet edgeproxy input tcp dport 22 accept\n"
        )
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
        before = listed("edgeproxy")
        wait_for(lambda: any("somebody else's" in line.get("error", "") for line in proxy.log))
        assert listed("edgeproxy") == before
    finally:
        assert proxy.stop() == 0
    assert listed("edgeproxy") == before
    command("nft", "delete", "table", "inet", "edgeproxy")


def test_of_two_proxies_with_one_table_the_one_that_lost_it_says_so(tmp_path: Path) -> None:
    command("ip", "link", "set", "lo", "up")
    first = Proxy(tmp_path, TOML, name="first").start()
    second = Proxy(tmp_path, TOML.replace(":5060", ":5070"), name="second").start()
    try:
        wait_for(lambda: any("another proxy has the table" in line.get("error", "") for line in first.log))
        assert "dport 5070" in listed("edgeproxy")
        assert second.stop() == 0
        # It takes its own again.
        assert manage(first, "ban", "add", "127.0.0.60")[0] == 0
        assert until("127.0.0.60", "all4")
        assert "dport 5060" in listed("edgeproxy")
    finally:
        assert first.stop() == 0
        second.stop()


def test_a_table_of_somebody_else_is_left_alone_and_one_left_behind_is_taken_over(tmp_path: Path) -> None:
    command("ip", "link", "set", "lo", "up")
    command("nft", "add", "table", "inet", "filter")
    command("nft", "add", "chain", "inet", "filter", "input")
    before = subprocess.run(["nft", "list", "table", "inet", "filter"], capture_output=True, text=True, check=True).stdout
    proxy = Proxy(tmp_path, TOML.replace("enabled = true", 'enabled = true\ntable = "filter"')).start()
    try:
        wait_for(lambda: any("somebody else's" in line.get("error", "") for line in proxy.log))
    finally:
        assert proxy.stop() == 0
    assert subprocess.run(["nft", "list", "table", "inet", "filter"], capture_output=True, text=True, check=True).stdout == before
    proxy = Proxy(tmp_path, TOML, name="ours").start()
    assert manage(proxy, "ban", "add", "127.0.0.60")[0] == 0
    assert until("127.0.0.60", "all4")
    assert proxy.process
    proxy.process.kill()
    proxy.process.wait(5)
    proxy.start()
    try:
        assert manage(proxy, "ban", "add", "127.0.0.61")[0] == 0
        assert until("127.0.0.61", "all4")
    finally:
        assert proxy.stop() == 0
    assert "table inet edgeproxy" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
