"""Media of phones behind NATs of each kind: heard both ways by content, after a move too, and by nobody who guesses ports."""

from collections.abc import Callable, Iterator

import pytest

from tests.integration.agent import answer
from tests.integration.phone import Phone
from tests.integration.proxy import Proxy
from tests.integration.rtp import Talker, place, sdp
from tests.nat.dialog import PORT, Dialog
from tests.nat.network import ENDPOINT_INDEPENDENT, PORT_RESTRICTED, PROXY, SYMMETRIC, Home

Homes = Callable[..., Home]
Phones = Callable[..., Phone]
Talkers = Callable[..., Talker]


@pytest.fixture
def talker() -> Iterator[Talkers]:
    made: list[Talker] = []

    def make(where: Home, host: int = 2, port: int = 0) -> Talker:
        with where.inside.entered():
            made.append(Talker(f"10.0.0.{host}", port))
        return made[-1]

    yield make
    for one in made:
        one.close()


def connected(caller: Phone, callee: Phone, near: Talker, far: Talker) -> tuple[Dialog, tuple[str, int], tuple[str, int]]:
    """Return an answered call, and where caller and callee are told to send their media."""
    call = Dialog(caller, callee, sdp(near.host, near.port), sdp(far.host, far.port))
    return call, place(call.ok), place(call.invite)


def heard_both_ways(near: Talker, far: Talker, to_us: tuple[tuple[str, int], tuple[str, int]], text: str) -> None:
    """Let each side speak first once, since only then its NAT lets anything in; then both hear each other."""
    near.say("open", to_us[0])
    far.say("open", to_us[1])
    near.hears(0.3)
    far.hears(0.3)
    all_heard(near, far, to_us[0], f"{text} from near")
    all_heard(far, near, to_us[1], f"{text} from far")


def all_heard(sayer: Talker, hearer: Talker, to_us: tuple[str, int], text: str) -> None:
    """Say something three times. A kernel that is short of memory drops a datagram now and then: what is missing is said once more."""
    sayer.say(text, to_us, 3)
    heard = hearer.hears_all(3)
    if (missing := 3 - len(heard)) > 0:
        sayer.say(text, to_us, missing)
        heard += hearer.hears_all(missing)
    assert heard == [text] * 3


@pytest.mark.parametrize(
    "nat", [ENDPOINT_INDEPENDENT, PORT_RESTRICTED, SYMMETRIC], ids=["endpoint-independent", "port-restricted", "symmetric"]
)
def test_phones_behind_a_nat_hear_each_other(nat: tuple[str, ...], proxy: Proxy, home: Homes, phone: Phones, talker: Talkers) -> None:
    first, second = home(nat), home(nat)
    alice, bob, near, far = phone("alice", first), phone("bob", second), talker(first), talker(second)
    assert alice.register().startswith("SIP/2.0 200")
    assert bob.register().startswith("SIP/2.0 200")
    call, to_near, to_far = connected(alice, bob, near, far)
    assert to_near[0] == to_far[0] == PROXY
    heard_both_ways(near, far, (to_near, to_far), "hello")
    call.send("BYE", from_caller=True)
    assert call.hears("BYE", callee=True)
    stream = proxy.records()[0]["media"][0]
    assert stream["caller"]["source"].startswith(f"{first.address}:")
    assert stream["callee"]["source"].startswith(f"{second.address}:")
    assert (stream["caller"]["packets"], stream["callee"]["packets"]) == (4, 4)


@pytest.mark.usefixtures("proxy")
def test_two_phones_of_one_home_hear_each_other(home: Homes, phone: Phones, talker: Talkers) -> None:
    there = home(SYMMETRIC)
    # The very same port inside for both: only what comes out of the NAT tells them apart.
    alice, bob, near, far = phone("alice", there, 2), phone("bob", there, 3), talker(there, 2, 7_000), talker(there, 3, 7_000)
    assert bob.register().startswith("SIP/2.0 200")
    _, to_near, to_far = connected(alice, bob, near, far)
    heard_both_ways(near, far, (to_near, to_far), "neighbour")


@pytest.mark.usefixtures("proxy")
def test_media_follows_a_nat_that_forgot_its_mapping(home: Homes, phone: Phones, talker: Talkers) -> None:
    there, other = home(SYMMETRIC), home(PORT_RESTRICTED)
    for timeout in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
        there.router.set(f"netfilter/{timeout}", 3)
    alice, bob, near, far = phone("alice", there), phone("bob", other), talker(there), talker(other)
    assert bob.register().startswith("SIP/2.0 200")
    _, to_near, to_far = connected(alice, bob, near, far)
    heard_both_ways(near, far, (to_near, to_far), "before")
    # Longer than the mapping lives: what comes next comes from another port.
    near.hears(5)
    all_heard(near, far, to_near, "after")
    all_heard(far, near, to_far, "and back")


def test_who_guesses_ports_hears_nothing_and_is_not_heard(proxy: Proxy, home: Homes, phone: Phones, talker: Talkers) -> None:
    first, second, third = home(PORT_RESTRICTED), home(SYMMETRIC), home(PORT_RESTRICTED)
    alice, bob, near, far, stranger = phone("alice", first), phone("bob", second), talker(first), talker(second), talker(third)
    assert bob.register().startswith("SIP/2.0 200")
    _, to_near, to_far = connected(alice, bob, near, far)
    for to in (to_near, to_far):
        stranger.say("bleed", to, 15)
    heard_both_ways(near, far, (to_near, to_far), "private")
    for to in (to_near, to_far):
        stranger.say("bleed", to, 15)
    near.say("again", to_near)
    assert far.hears_all(1) == ["again"]
    assert near.hears(0.5) == []
    assert stranger.hears(0.5) == []
    assert proxy.counters()["events_lost"] == 0


@pytest.mark.usefixtures("proxy")
def test_hold_resume_and_loss(home: Homes, phone: Phones, talker: Talkers) -> None:
    there, other = home(SYMMETRIC), home(PORT_RESTRICTED)
    alice, bob, near, far = phone("alice", there), phone("bob", other), talker(there), talker(other)
    assert bob.register().startswith("SIP/2.0 200")
    call, to_near, to_far = connected(alice, bob, near, far)
    heard_both_ways(near, far, (to_near, to_far), "talk")
    for direction, answered in (("sendonly", "recvonly"), ("sendrecv", "sendrecv")):
        call.send("INVITE", from_caller=True, body=sdp(near.host, near.port, direction=direction))
        offer = bob.receive_until("INVITE", having=f"a={direction}")
        assert place(offer) == to_far
        body = sdp(far.host, far.port, direction=answered)
        head = answer(offer, "200 OK").partition("Content-Length")[0]
        bob.send(f"{head}Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}", PORT, PROXY)
        assert place(alice.receive_until("SIP/2.0 200", having=f"a={answered}")) == to_near
    heard_both_ways(near, far, (to_near, to_far), "resumed")
    there.lose(30)
    near.say("lossy", to_near, 100)
    got = far.hears()
    assert 30 < len(got) < 100
    assert set(got) == {"lossy"}
