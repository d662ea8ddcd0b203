"""SIPp as heavy customer, fraudster and flood: each is held to what it may, and nobody else notices."""

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.integration.proxy import Proxy, free_port, is_bound, wait_for
from tests.sipp.catalogue import ANSWERED, BYE, CALL, FLOWS, HANG_UP, Flow
from tests.sipp.runner import Sipp
from tests.sipp.steps import pause, request

TOML = """
[install]
state_directory = "STATE"
drain_seconds = 0
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = ["sip:127.0.0.1:{core}"]
[peer.customers]
kind = "subscribers"
match = ["127.0.0.0/24"]
[events]
log = ["E_PIKE_BLOCKED", "E_FRD_WARNING", "E_FRD_CRITICAL", "E_LIMIT_REACHED"]
{extra}
"""
HEAVY, LIGHT = "127.0.0.9", "127.0.0.10"
HOLDS = Flow([*CALL, pause(1_000), *HANG_UP], [*ANSWERED, *BYE])
SHOUTS = Flow([request("OPTIONS", 1)], [])
Customer = Callable[..., Sipp]


@pytest.fixture
def guarded(start_proxy: Callable[..., Proxy], start_sipp: Callable[..., Sipp]) -> Callable[[str], tuple[Proxy, Customer]]:
    """Start a proxy before a core that answers; return it and a way to start customers."""

    def start(extra: str) -> tuple[Proxy, Customer]:
        port, core = free_port(), free_port()
        proxy = start_proxy(TOML.format(port=port, core=core, extra=extra))
        start_sipp(HOLDS.xml("core")[1], "core", address="127.0.0.1", port=core, remote="127.0.0.1", calls=1_000_000)
        end = time.monotonic() + 5
        while not is_bound(core) and time.monotonic() < end:
            time.sleep(0.02)

        def customer(address: str, flow: Flow, calls: int, rate: int, number: str = "49301") -> Sipp:
            xml = flow.xml("customer")[0].replace("[service]", number)
            return start_sipp(xml, f"from-{address}", address=address, port=free_port(), remote=f"127.0.0.1:{port}", calls=calls, rate=rate)

        return proxy, customer

    return start


def _of(records: list[dict[str, Any]], address: str) -> list[dict[str, Any]]:
    return [record for record in records if address in record["from_uri"]]


def _most_at_once(records: list[dict[str, Any]]) -> int:
    """Return how many of these calls were up at the same time; one that begins as another ends is beside it for no time."""
    moments = []
    for record in records:
        moments += [(datetime.fromisoformat(record["started_at"]), 1), (datetime.fromisoformat(record["ended_at"]), -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("limit", "status", "least", "most"),
    # Three seconds of offers: five calls of one second at once, or fifteen a second.
    [('counts = "calls"\nmost = 5', 486, 13, 20), ('counts = "rate"\nmost = 15', 480, 45, 60)],
    ids=["calls", "rate"],
)
def test_a_heavy_customer_has_its_limit_and_another_all_of_its_calls(
    limit: str, status: int, least: int, most: int, guarded: Callable[[str], tuple[Proxy, Customer]]
) -> None:
    proxy, customer = guarded(f'[limit.own]\nkey = "{{source}}"\n{limit}\n')
    heavy = customer(HEAVY, HOLDS, calls=120, rate=40)
    light = customer(LIGHT, FLOWS["answered"], calls=9, rate=3)
    assert light.wait() == 0, light.report()
    # What is refused is none of what its scenario expects.
    assert heavy.wait() == 1
    records = proxy.records(129)
    found = _of(records, HEAVY)
    answered = [record for record in found if record["outcome"] == "answered"]
    assert (len(found), len(_of(records, LIGHT))) == (120, 9)
    assert {record["status_code"] for record in found if record["outcome"] != "answered"} == {status}
    assert least <= len(answered) <= most
    if status == 486:
        assert _most_at_once(answered) == 5
    assert {event["key"] for event in proxy.told("E_LIMIT_REACHED")} == {HEAVY}


def test_a_fraudster_is_stopped_at_the_threshold_and_a_caller_of_the_same_prefix_is_not(
    guarded: Callable[[str], tuple[Proxy, Customer]],
) -> None:
    rule = '[[fraud.rule]]\nruleid = 7\nprofileid = 1\nprefix = "900"\ntotal_calls_warning = 5\ntotal_calls_critical = 9\n'
    proxy, customer = guarded(f"[fraud]\nrows = false\nprofile = 1\n[fraud.critical]\nrefuse = true\n{rule}")
    fraudster = customer(HEAVY, FLOWS["answered"], calls=30, rate=15, number="9001234")
    honest = customer(LIGHT, FLOWS["answered"], calls=4, rate=2, number="9001234")
    assert honest.wait() == 0, honest.report()
    assert fraudster.wait() == 1
    found = _of(proxy.records(34), HEAVY)
    assert [record["status_code"] for record in found if record["outcome"] != "answered"] == [403] * 22
    told = {"param": "total-calls", "called_number": "9001234", "rule_id": 7, "profile_id": 1}
    for name, value in (("E_FRD_WARNING", 5), ("E_FRD_CRITICAL", 9)):
        (event,) = proxy.told(name)
        assert re.fullmatch(rf"sipp@{HEAVY}", str(event.pop("user")))
        assert event == {**told, "value": value, "threshold": value}


@pytest.mark.alone
def test_a_flood_is_banned_and_calls_beside_it_are_all_answered(guarded: Callable[[str], tuple[Proxy, Customer]]) -> None:
    proxy, customer = guarded("[flood]\n")
    flood = customer(HEAVY, SHOUTS, calls=9_000, rate=3_000)
    honest = customer(LIGHT, FLOWS["answered"], calls=60, rate=20)
    assert honest.wait() == 0, honest.report()
    flood.wait()
    (blocked,) = proxy.told("E_PIKE_BLOCKED")
    assert blocked["ip"] == HEAVY
    assert len(_of(proxy.records(60), LIGHT)) == 60
    # The packet after the thousandth of a unit is the one too many; most of what comes then the kernel drops, which is told once a second.
    wait_for(lambda: sum(proxy.counters()[key] for key in ("dropped_banned", "socket_drops")) > 5_000)
