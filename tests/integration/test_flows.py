"""Every scenario of the catalogue through the real process, over UDP and TCP in all four combinations."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import LOCAL
from tests.integration.proxy import Proxy, free_port, is_bound
from tests.sipp.catalogue import FLOWS
from tests.sipp.runner import Sipp

ROOT = Path(__file__).resolve().parents[2]
Local = Callable[..., tuple[Proxy, int, int]]


@pytest.mark.parametrize("name", sorted(set(FLOWS) - {"lossy"}))
def test_flow_over_udp(name: str, local: Local, run_flow: Callable[..., None]) -> None:
    proxy, port, core = local()
    run_flow(name, port, core)
    if name == "answered":
        records = proxy.records(5)
        assert [record["outcome"] for record in records] == ["answered"] * 5
        assert {record["ended_by"] for record in records} == {"caller"}
    if name in {"busy", "declined"}:
        assert {record["status_code"] for record in proxy.records(5)} == {486 if name == "busy" else 603}
    if name == "cancelled":
        assert {record["outcome"] for record in proxy.records(5)} == {"cancelled"}
    assert proxy.counters()["panics"] == 0


@pytest.mark.parametrize("name", ["answered", "busy", "cancelled", "reinvite", "message"])
@pytest.mark.parametrize(("caller", "callee"), [("t1", "u1"), ("u1", "t1"), ("t1", "t1")])
def test_flow_across_transports(name: str, caller: str, callee: str, local: Local, run_flow: Callable[..., None]) -> None:
    transport = ";transport=tcp" if callee == "t1" else ""
    core = free_port()
    _, port, core = local(core=core, to=f'"sip:127.0.0.1:{core}{transport}"')
    run_flow(name, port, core, caller=caller, callee=callee)


@pytest.mark.parametrize("name", ["answered", "reinvite", "cancelled", "info"])
def test_flow_with_two_workers(name: str, local: Local, run_flow: Callable[..., None]) -> None:
    proxy, port, core = local(workers=2)
    run_flow(name, port, core, calls=40, rate=100)
    counters = proxy.counters()
    assert counters["handed_over"] > 0
    assert counters["stray_responses"] == 0


@pytest.mark.slow
def test_loss_on_both_sides_is_made_good_by_retransmission(local: Local, run_flow: Callable[..., None]) -> None:
    proxy, port, core = local()
    run_flow("lossy", port, core, calls=60, rate=60, seconds=60, options=("-lost", "5"), callee_stays=True)
    counters = proxy.counters()
    assert counters["retransmissions_received"] + counters["retransmissions_sent"] > 0


def test_two_proxies_in_a_chain(local: Local, run_flow: Callable[..., None], start_proxy: Callable[..., Proxy]) -> None:
    _, inner_port, core = local()
    port = free_port()
    toml = LOCAL.format(workers=1, port=port, core=inner_port, to=f'"sip:127.0.0.1:{inner_port}"', extra="", core_extra="")
    start_proxy(toml, name="outer")
    for name in ("answered", "reinvite", "cancelled", "busy"):
        run_flow(name, port, core)


def test_calls_fail_over_from_a_core_that_refuses(local: Local, run_flow: Callable[..., None], start_sipp: Callable[..., Sipp]) -> None:
    first, second = free_port(), free_port()
    proxy, port, _ = local(core=second, to=f'"sip:127.0.0.1:{first}", "sip:127.0.0.1:{second}"')
    start_sipp(
        FLOWS["busy"].xml("refusing")[1].replace("486 Busy Here", "503 Service Unavailable"),
        "refusing",
        address="127.0.0.1",
        port=first,
        remote="127.0.0.1",
        calls=5,
    )
    run_flow("answered", port, second, calls=5)
    assert [[attempt["status_code"] for attempt in record["attempts"]] for record in proxy.records(5)] == [[503, 200]] * 5


def test_parallel_forking_keeps_the_first_to_answer(local: Local, run_flow: Callable[..., None], start_sipp: Callable[..., Sipp]) -> None:
    ringing, answering = free_port(), free_port()
    proxy, port, _ = local(
        core=answering,
        to=f'"sip:127.0.0.1:{ringing}", "sip:127.0.0.1:{answering}"',
        core_extra='forking = "parallel"',
    )
    loser = start_sipp(FLOWS["cancelled"].xml("ringing")[1], "ringing", address="127.0.0.1", port=ringing, remote="127.0.0.1", calls=5)
    run_flow("answered", port, answering, calls=5)
    assert loser.wait(10) == 0, loser.report()
    codes = [sorted(attempt["status_code"] for attempt in record["attempts"]) for record in proxy.records(5)]
    assert codes == [[200, 487]] * 5


def test_the_first_call_of_the_readme(start_proxy: Callable[..., Proxy]) -> None:
    page = (ROOT / "README.md").read_text()
    ports = {"5060": free_port(), "5070": free_port(), "5080": free_port()}

    def moved(text: str) -> str:
        return re.sub(r"\b50[678]0\b", lambda found: str(ports[found.group()]), text)

    callee, caller = ([*moved(line).split(), "-nostdin"] for line in re.findall(r"^(sipp -sn .*?) +#", page, re.MULTILINE))
    text = moved((ROOT / "examples/edge.toml").read_text()).replace('"var"', '"STATE"')
    proxy = start_proxy(text)
    with subprocess.Popen(callee, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as phone:
        try:
            end = time.monotonic() + 5
            while not is_bound(ports["5070"]) and time.monotonic() < end:
                time.sleep(0.05)
            assert subprocess.run(caller, capture_output=True, timeout=30, check=False).returncode == 0
        finally:
            phone.kill()
    (record,) = proxy.records(1)
    assert (record["outcome"], record["ended_by"]) == ("answered", "caller")
    assert proxy.counters()["malformed"] == 0
