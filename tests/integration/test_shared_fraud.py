"""Fraud at two proxies that share a store: what a user does at both counts together, and a bar holds at both."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import brokers
from tests.integration.agent import Agent, answer, invite
from tests.integration.proxy import Proxy, free_port, manage, wait_for

TOML = """
[install]
node = "{node}"
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = ["sip:127.0.0.1:{core}"]
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/24"]
[shared]
url = "{url}"
lease_seconds = 2
retry_seconds = 0.3
fraud = true
[fraud]
rows = false
profile = 1
[fraud.critical]
bar = true
[[fraud.rule]]
ruleid = 7
profileid = 1
prefix = "900"
total_calls_critical = 4
sequential_calls_warning = 4
[events]
log = ["E_FRD_WARNING", "E_FRD_CRITICAL", "E_FRD_BARRED", "E_CORE_SR_STATUS_CHANGED"]
"""
USER = "a@127.0.0.1"
OTHER_PREFIXES = """
[[fraud.rule]]
ruleid = 8
profileid = 1
prefix = "800"
total_calls_critical = 1
[[fraud.rule]]
ruleid = 9
profileid = 1
prefix = "700"
total_calls_critical = 1
[events]"""


def _call(phone: Agent, port: int, call_id: str, core: Agent | None = None, *, number: str = "9001") -> str:
    """Call, busy where the core gets the call; return the final response's status."""
    phone.send(invite("INVITE", phone.port, f"sip:{number}@127.0.0.1:{port}", call_id=call_id, branch=call_id), port)
    if core:
        core.send(answer(core.receive_until("INVITE", having=f"Call-ID: {call_id}"), "486 Busy"), port)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        message = phone.receive(end - time.monotonic())
        if f"Call-ID: {call_id}" in message and not message.startswith("SIP/2.0 100"):
            phone.send(invite("ACK", phone.port, f"sip:{number}@127.0.0.1:{port}", call_id=call_id, branch=call_id), port)
            return message.split()[1]
    return ""


def _kill(proxy: Proxy) -> None:
    assert proxy.process
    proxy.process.kill()
    proxy.process.wait()


def _shown(proxy: Proxy) -> tuple[int, list[tuple[str, str]]]:
    shown = json.loads(manage(proxy, "fraud", "show", "--json")[1])
    total = shown["figures"][0]["total_calls"] if shown["figures"] else 0
    return total, [(one["user"], one["node"]) for one in shown["barred"]]


def _until(proxy: Proxy, expected: tuple[int, list[tuple[str, str]]]) -> None:
    """Wait until figures and bars of a node are as expected."""
    end = time.monotonic() + 10
    while (found := _shown(proxy)) != expected and time.monotonic() < end:
        time.sleep(0.1)
    assert found == expected


@pytest.mark.parametrize("kind", ["redis", "mongo"])
def test_calls_at_two_nodes_count_together_and_a_bar_holds_at_both(kind: str, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with getattr(brokers, kind)(tmp_path) as store, Agent("127.0.0.7") as phone, Agent() as core:
        url = f"redis://127.0.0.1:{store}/0" if kind == "redis" else f"mongodb://127.0.0.1:{store}/edge"
        ports = [free_port(), free_port()]
        proxies = [
            start_proxy(TOML.format(node=f"n{number}", port=port, core=core.port, url=url), name=f"n{number}")
            for number, port in enumerate(ports)
        ]
        assert _call(phone, ports[0], "a", core) == "486"
        assert _call(phone, ports[0], "b", core) == "486"
        assert _call(phone, ports[1], "warm", core) == "486"
        _until(proxies[1], (3, []))
        # The fourth of all is the second of this node.
        assert _call(phone, ports[1], "d") == "403"
        (critical,) = proxies[1].told("E_FRD_CRITICAL")
        assert (critical["param"], critical["value"], critical["user"]) == ("total-calls", 4, USER)
        # All of them called the same number, one node after the other.
        (warning,) = proxies[1].told("E_FRD_WARNING")
        assert (warning["param"], warning["value"]) == ("sequential-calls", 4)
        assert len(proxies[1].told("E_FRD_BARRED")) == 1
        # The call that was refused does not count; the bar of one holds at the other.
        _until(proxies[0], (3, [(USER, "n1")]))
        assert _call(phone, ports[0], "e") == "403"
        assert not any(line.get("event") == "E_FRD_BARRED" for line in proxies[0].log)
        # What an operator does at one holds at both, and what the other has told and done is no news.
        assert manage(proxies[0], "fraud", "unbar", USER)[0] == 0
        for proxy in proxies:
            _until(proxy, (3, []))
        for number in range(2):
            assert _call(phone, ports[number], f"free{number}", core) == "486"
        _until(proxies[0], (5, []))
        assert [manage(proxy, "fraud", "unbar", USER)[0] for proxy in proxies] == [1, 1]
        assert not any(line["event"] == "E_FRD_CRITICAL" for line in proxies[0].log)
        # A node that is gone takes its calls with it once it has been silent for a while.
        assert proxies[1].stop() == 0
        _until(proxies[0], (3, []))
        assert _call(phone, ports[0], "f", core) == "486"


def test_a_bar_outlives_the_node_that_said_so_and_is_lifted_again_and_again(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with brokers.redis(tmp_path) as store, Agent("127.0.0.7") as phone, Agent() as core:
        ports = [free_port(), free_port()]
        proxies = [
            start_proxy(
                TOML.format(node=f"n{number}", port=port, core=core.port, url=f"redis://127.0.0.1:{store}/0")
                .replace("rows = false", "rows = false\neach_call = true")
                .replace("[events]", OTHER_PREFIXES),
                name=f"n{number}",
            )
            for number, port in enumerate(ports)
        ]
        for call_id in ("a", "b", "c"):
            assert _call(phone, ports[1], call_id, core) == "486"
        for number in ("9001", "8001"):
            # What crosses another threshold bars anew; each word of an operator is a new one.
            assert _call(phone, ports[1], f"bad{number}", number=number) == "403"
            _until(proxies[0], (0, [(USER, "n1")]))
            assert manage(proxies[0], "fraud", "unbar", USER)[0] == 0
            for proxy in proxies:
                _until(proxy, (0 if proxy is proxies[0] else 3, []))
        # Calls beyond the threshold are told each, and bar nobody whom an operator let call.
        assert _call(phone, ports[1], "let", core) == "486"
        wait_for(lambda: len(proxies[1].told("E_FRD_CRITICAL")) == 3)
        assert _call(phone, ports[1], "worse", number="7001") == "403"
        _until(proxies[0], (0, [(USER, "n1")]))
        assert proxies[1].stop() == 0
        time.sleep(7)
        assert _call(phone, ports[0], "still") == "403"
        assert _shown(proxies[0])[1] == [(USER, "n1")]
        # Not even a start of whoever is left forgets it.
        text = proxies[0].file.read_text()
        assert proxies[0].stop() == 0
        proxies[0] = start_proxy(text, name="n0")
        _until(proxies[0], (0, [(USER, "n1")]))
        assert _call(phone, ports[0], "still2") == "403"
        # A node that was away hears what was said meanwhile, and bars nobody again.
        assert manage(proxies[0], "fraud", "unbar", USER)[0] == 0
        _until(proxies[0], (0, []))
        time.sleep(2)
        assert proxies[0].stop() == 0
        proxies[0] = start_proxy(text, name="n0")
        again = start_proxy(proxies[1].file.read_text(), name="n1")
        wait_for(lambda: _shown(again)[1] == [])
        assert _call(phone, ports[1], "back", core) == "486"
        assert _shown(proxies[0])[1] == []


def test_a_bar_outlives_the_death_of_its_node_and_an_unbar_meanwhile_stands(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with brokers.redis(tmp_path) as store, Agent("127.0.0.7") as phone, Agent() as core:
        ports = [free_port(), free_port()]
        texts = [
            TOML.format(node=f"n{number}", port=port, core=core.port, url=f"redis://127.0.0.1:{store}/0")
            for number, port in enumerate(ports)
        ]
        proxies = [start_proxy(text, name=f"n{number}") for number, text in enumerate(texts)]
        for call_id in ("a", "b", "c"):
            assert _call(phone, ports[1], call_id, core) == "486"
        assert _call(phone, ports[1], "bad") == "403"
        _until(proxies[0], (0, [(USER, "n1")]))
        # It is killed, and comes back without what it had not kept.
        _kill(proxies[1])
        proxies[1] = start_proxy(texts[1], name="n1")
        _until(proxies[1], (0, [(USER, "n1")]))
        time.sleep(3)
        assert _shown(proxies[0])[1] == [(USER, "n1")]
        assert [_call(phone, port, f"still{port}") for port in ports] == ["403", "403"]
        # It is killed once more, and its last word is still there when an operator lets the account call.
        _kill(proxies[1])
        assert manage(proxies[0], "fraud", "unbar", USER)[0] == 0
        for _ in range(9):
            assert _shown(proxies[0])[1] == []
            time.sleep(1)
        proxies[1] = start_proxy(texts[1], name="n1")
        time.sleep(2)
        assert [_shown(proxy)[1] for proxy in proxies] == [[], []]


def test_nodes_of_one_name_say_so_and_a_restart_does_not(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with brokers.redis(tmp_path) as store, Agent() as core:

        def begun(name: str) -> Proxy:
            return start_proxy(TOML.format(node="n0", port=free_port(), core=core.port, url=f"redis://127.0.0.1:{store}/0"), name=name)

        def warned(proxy: Proxy) -> list[str]:
            return [line["problem"] for line in proxy.log if line["event"] == "another node that shares figures has the same name"]

        first = begun("a")
        time.sleep(1.5)
        assert first.stop() == 0
        again = begun("b")
        time.sleep(2.5)
        assert warned(again) == []
        other = begun("c")
        wait_for(lambda: warned(again) and warned(other))
        assert set(warned(again) + warned(other)) == {"expected install.node to differ"}


def test_without_its_store_a_node_counts_alone(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    with Agent("127.0.0.7") as phone, Agent() as core:
        port = free_port()
        with brokers.redis(tmp_path) as store:
            toml = TOML.format(node="n0", port=port, core=core.port, url=f"redis://127.0.0.1:{store}/0")
            proxy = start_proxy(toml)
            assert _call(phone, port, "a", core) == "486"
        for call_id in ("b", "c"):
            assert _call(phone, port, call_id, core) == "486"
        assert _call(phone, port, "d") == "403"
        assert _shown(proxy) == (3, [(USER, "n0")])
        assert manage(proxy, "fraud", "unbar", USER)[0] == 0
        assert _shown(proxy) == (3, [])
