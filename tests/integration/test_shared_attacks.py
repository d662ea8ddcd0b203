"""Guessing at two proxies that share a store: counted together, banned at both, and let in again at both."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from tests.integration import brokers
from tests.integration.phone import Phone
from tests.integration.proxy import Proxy, free_port, manage, wait_for

TOML = """
[install]
node = "{node}"
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/8"]
[registrar]
domains = ["edge.example"]
persist = false
[authentication.attacks]
source_failures = 6
pair_failures = 100
user_failures = 4
[shared]
url = "redis://127.0.0.1:{store}/0"
lease_seconds = 2
attacks = true
[events]
log = ["E_AUTH_ATTACK", "E_BAN_ADDED", "E_BAN_REMOVED"]
"""


def _banned(proxy: Proxy) -> list[str]:
    return [ban["source"] for ban in json.loads(manage(proxy, "ban", "list", "--json")[1])["bans"]]


def test_guesses_at_two_nodes_count_together_and_bans_hold_at_both(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with brokers.redis(tmp_path) as store:
        ports = [free_port(), free_port()]
        proxies = [
            start_proxy(TOML.format(node=f"n{number}", port=port, store=store), name=f"n{number}") for number, port in enumerate(ports)
        ]
        for proxy in proxies:
            with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
                database.execute("INSERT INTO subscriber (username, domain, password) VALUES ('alice', 'edge.example', 'secret')")
            database.close()
        # Who came in at one node is known there, whatever another thinks of its address.
        with Phone("alice", ports[1], host="127.0.0.8") as known:
            assert known.register("secret").startswith("SIP/2.0 200")
            with Phone("alice", ports[0], host="127.0.0.9") as guesser:
                for number in range(4):
                    guesser.proxy_port = ports[number % 2]
                    assert guesser.register(f"wrong{number}").startswith("SIP/2.0 40")
                    time.sleep(0.6)
                # Two failures at each node: four as this user.
                told = [proxy.told("E_AUTH_ATTACK", seconds=3) for proxy in proxies]
                assert [event["scope"] for events in told for event in events] == ["user"] * sum(map(len, told))
                assert any(told)
                guesser.user = "bob"
                for number in range(2):
                    guesser.proxy_port = ports[number % 2]
                    guesser.register(f"wrong{number}")
                    time.sleep(0.6)
                for proxy in proxies:
                    assert [ban["ip"] for ban in proxy.told("E_BAN_ADDED", seconds=5)] == ["127.0.0.9"]
            # What an operator does at one node holds at both, but for a source that somebody known comes from.
            assert manage(proxies[0], "ban", "remove", "127.0.0.9")[0] == 0
            removed = proxies[1].told("E_BAN_REMOVED", seconds=5)[0]
            assert (removed["ip"], removed["reason"]) == ("127.0.0.9", "another node listens to it again")
            assert manage(proxies[0], "ban", "add", "127.0.0.7", "--seconds", "60")[0] == 0
            assert manage(proxies[0], "ban", "add", "127.0.0.8", "--seconds", "60")[0] == 0
            assert [ban["ip"] for ban in proxies[1].told("E_BAN_ADDED", 2, seconds=5)][1:] == ["127.0.0.7"]
            time.sleep(2.5)
            assert _banned(proxies[1]) == ["127.0.0.7"]
            # A store that was emptied hears of it once more, and a node that comes late hears of it there.
            with Redis(port=store) as client:
                client.flushall()
            late = start_proxy(TOML.format(node="n2", port=free_port(), store=store), name="n2")
            wait_for(lambda: "127.0.0.7" in _banned(late))
            assert manage(proxies[0], "ban", "remove", "127.0.0.7")[0] == 0
            for proxy in (*proxies, late):
                wait_for(lambda proxy=proxy: "127.0.0.7" not in _banned(proxy))
            assert known.register("secret").startswith("SIP/2.0 200")
