"""Phones behind NATs of each kind register, call and are called, within dialogs too, also after they moved; UDP loss is made up for."""

import time
from collections.abc import Callable

import pytest

from tests.integration.agent import answer
from tests.integration.phone import Phone
from tests.integration.proxy import Proxy
from tests.nat.dialog import PORT, Dialog
from tests.nat.network import ENDPOINT_INDEPENDENT, PORT_RESTRICTED, PROXY, SYMMETRIC, Home


def kept_open(phone: Phone, seconds: float) -> None:
    """Answer keep-alives for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if (message := phone.receive(left)).startswith("OPTIONS"):
            phone.send(answer(message, "200 OK"), PORT, PROXY)


@pytest.mark.parametrize(
    "nat", [ENDPOINT_INDEPENDENT, PORT_RESTRICTED, SYMMETRIC], ids=["endpoint-independent", "port-restricted", "symmetric"]
)
def test_phones_behind_a_nat_call_each_other_and_hang_up_either_way(
    nat: tuple[str, ...], proxy: Proxy, home: Callable[..., Home], phone: Callable[..., Phone]
) -> None:
    first, second = home(nat), home(nat)
    alice, bob = phone("alice", first), phone("bob", second)
    assert alice.register().startswith("SIP/2.0 200")
    assert bob.register().startswith("SIP/2.0 200")
    call = Dialog(alice, bob)
    call.send("INFO", from_caller=False)
    assert call.hears("INFO", callee=False)
    call.send("BYE", from_caller=True)
    assert call.hears("BYE", callee=True)
    call = Dialog(bob, alice)
    call.send("BYE", from_caller=False)
    assert call.hears("BYE", callee=False)
    assert proxy.counters()["bindings_added"] == 2


def test_two_phones_of_one_home_call_each_other(proxy: Proxy, home: Callable[..., Home], phone: Callable[..., Phone]) -> None:
    there = home(PORT_RESTRICTED)
    # Both write the same port into Via and Contact: only the mapping tells them apart.
    alice, bob = phone("alice", there, 2), phone("bob", there, 3)
    assert alice.register().startswith("SIP/2.0 200")
    assert bob.register().startswith("SIP/2.0 200")
    call = Dialog(alice, bob)
    call.send("BYE", from_caller=False)
    assert call.hears("BYE", callee=False)
    assert proxy.counters()["contacts_marked"] > 0


@pytest.mark.parametrize("kept", [True, False])
def test_a_mapping_that_ends_early_is_kept_open(kept: bool, proxy: Proxy, home: Callable[..., Home], phone: Callable[..., Phone]) -> None:
    there, other = home(SYMMETRIC), home(PORT_RESTRICTED)
    for timeout in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
        there.router.set(f"netfilter/{timeout}", 3)
    alice, bob = phone("alice", there), phone("bob", other)
    assert alice.register().startswith("SIP/2.0 200")
    if kept:
        kept_open(alice, 8)
        assert Dialog(bob, alice).ok
    else:
        # The proof that the NAT forgets: without keep-alives of ours nothing comes through.
        proxy.file.write_text(proxy.file.read_text().replace('method = "options"', 'method = "off"'))
        proxy.stop()
        proxy.start()
        time.sleep(5)
        bob.send(bob.request("INVITE", "sip:alice@edge.example", f"Contact: {bob.contact}", to="sip:alice@edge.example"), PORT, PROXY)
        assert alice.receive_until("INVITE", 3) == ""


def test_a_dialog_follows_a_phone_that_comes_back_from_a_new_port(
    proxy: Proxy, home: Callable[..., Home], phone: Callable[..., Phone]
) -> None:
    there, other = home(SYMMETRIC), home(PORT_RESTRICTED)
    alice, bob = phone("alice", there), phone("bob", other)
    assert alice.register().startswith("SIP/2.0 200")
    call = Dialog(bob, alice)
    # It sends from another port now, and nothing reaches it by the old one; what it says of itself is the same.
    alice.close()
    with there.inside.entered():
        alice.socket = Phone("alice", PORT, host="10.0.0.2", port=5062, proxy=PROXY).socket
    assert alice.register().startswith("SIP/2.0 200")
    call.send("BYE", from_caller=True)
    assert call.hears("BYE", callee=True)


def test_a_restart_of_the_proxy_loses_neither_bindings_nor_dialogs(
    proxy: Proxy, home: Callable[..., Home], phone: Callable[..., Phone]
) -> None:
    first, second = home(PORT_RESTRICTED), home(SYMMETRIC)
    alice, bob = phone("alice", first), phone("bob", second)
    assert alice.register().startswith("SIP/2.0 200")
    assert bob.register().startswith("SIP/2.0 200")
    call = Dialog(alice, bob)
    proxy.stop()
    proxy.start()
    call.send("BYE", from_caller=False)
    assert call.hears("BYE", callee=False)
    assert Dialog(alice, bob).ok


def test_loss_between_phone_and_proxy_is_made_up_for(proxy: Proxy, home: Callable[..., Home], phone: Callable[..., Phone]) -> None:
    there, other = home(PORT_RESTRICTED), home(PORT_RESTRICTED)
    alice, bob = phone("alice", there), phone("bob", other)
    assert bob.register().startswith("SIP/2.0 200")
    there.lose(30)
    message = alice.request("REGISTER", "sip:edge.example", f"Contact: {alice.contact}")
    for _ in range(12):
        alice.send(message, PORT, PROXY)
        if alice.receive_until("SIP/2.0 200", 0.5):
            break
    else:
        pytest.fail("no answer in twelve attempts")
    bob.send(bob.request("INVITE", "sip:alice@edge.example", f"Contact: {bob.contact}", to="sip:alice@edge.example"), PORT, PROXY)
    # The proxy sends again what the phone does not answer.
    assert alice.receive_until("INVITE", 10)
    assert proxy.counters()["bindings_added"] == 2
