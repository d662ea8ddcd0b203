"""Calls with their media, through the process and real sockets: heard both ways by content, and by nobody else."""

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent import Agent, answer, bye, invite, values
from tests.integration.proxy import Proxy, free_port, manage, wait_for
from tests.integration.rtp import Talker, place, sdp

Local = Callable[..., tuple[Proxy, int, int]]
MEDIA = '[media]\nengage = "always"\n'


def described(message: str, body: str) -> str:
    """Return `message` with a session description."""
    head = message.partition("Content-Length:")[0]
    return f"{head}Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"


class Call:
    """An answered call between two agents, each with a talker; `to_callee` is where the callee sends, `to_caller` the caller."""

    def __init__(self, port: int, caller: Agent, core: Agent, near: Talker, far: Talker, call_id: str = "m1") -> None:  # noqa: PLR0917
        self.port, self.caller, self.core, self.call_id = port, caller, core, call_id
        request = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id=call_id, branch=call_id)
        caller.send(described(request, sdp(near.host, near.port)), port)
        self.request = core.receive_until("INVITE", having=call_id)
        assert self.request
        ok = answer(self.request, "200 OK").replace("Content-Length", f"Contact: <sip:b@127.0.0.1:{core.port}>\r\nContent-Length")
        core.send(described(ok, sdp(far.host, far.port)), port)
        self.ok = caller.receive_until("SIP/2.0 200", having=call_id)
        assert self.ok
        self.near, self.far = place(self.ok), place(self.request)
        # The media worker was told before the answer left; what comes before it has looked came for nobody.
        time.sleep(0.1)

    def offer(self, body: str, *, branch: str, cseq: int = 2) -> None:
        """Send an offer within the call."""
        routes = "".join(f"Route: {route}\r\n" for route in reversed(values(self.ok, "Record-Route")))
        target, tags = f"sip:b@127.0.0.1:{self.core.port}", {"to_tag": "callee", "call_id": self.call_id, "branch": branch}
        request = invite("INVITE", self.caller.port, target, **tags, extra=routes)  # type: ignore[arg-type]
        self.caller.send(described(request.replace("CSeq: 1", f"CSeq: {cseq}"), body), self.port)

    def again(self, body: str, answered: str, *, branch: str) -> tuple[str, str]:
        """Offer again within the call; return the offer and the answer as they arrive."""
        self.offer(body, branch=branch)
        offer = self.core.receive_until("INVITE", having=branch)
        assert offer
        self.core.send(described(answer(offer, "200 OK"), answered), self.port)
        reply = self.caller.receive_until("SIP/2.0 200", having=branch)
        assert reply
        return offer, reply

    def end(self) -> None:
        self.caller.send(bye(self.caller, self.core, self.ok, self.call_id), self.port)
        request = self.core.receive_until("BYE", having=self.call_id)
        assert request
        self.core.send(answer(request, "200 OK"), self.port)
        assert self.caller.receive_until("SIP/2.0 200", having="BYE")


def descriptors(proxy: Proxy) -> int:
    assert proxy.process
    return len(list(Path(f"/proc/{proxy.process.pid}/fd").iterdir()))


def test_both_sides_hear_each_other_and_an_intruder_is_heard_by_nobody(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far, Talker("127.0.0.9") as intruder:
        proxy, port, _ = local(core=core.port, extra=MEDIA + '[events]\nlog = ["E_MEDIA_INTRUSION"]\n')
        call = Call(port, caller, core, near, far)
        assert call.near[1] != call.far[1]
        # Before anybody has spoken, a stranger already sends to both ports.
        for to in (call.near, call.far):
            intruder.say("bleed", to, 20)
        near.say("from the caller", call.near, 5)
        far.say("from the callee", call.far, 5)
        intruder.say("bleed", call.near, 20)
        assert far.hears_all(5) == ["from the caller"] * 5
        assert near.hears_all(5) == ["from the callee"] * 5
        assert intruder.hears(0.3) == [], "nothing of the call goes to it"
        near.report("caller's report", call.near)
        far.report("callee's report", call.far)
        assert (far.reports(), near.reports()) == (["caller's report"], ["callee's report"])
        assert {event["ip"] for event in proxy.told("E_MEDIA_INTRUSION")} == {"127.0.0.9"}
        call.end()
        record = proxy.records()[0]
        stream = record["media"][0]
        assert (stream["caller"]["packets"], stream["callee"]["packets"], stream["caller"]["lost"]) == (5, 5, 0)
        assert (stream["caller"]["refused"], stream["callee"]["refused"]) == (40, 20)
        assert stream["caller"]["source"] == f"127.0.0.1:{near.port}"


def test_quality_is_told_in_the_record(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=MEDIA)
        call = Call(port, caller, core, near, far)
        near.say("x", call.near, 60, pause=0.02)
        # Every third one of the callee's never arrives.
        for number in range(90):
            if number % 3 == 2:
                far._sequence += 1
            else:
                far.say("y", call.far)
        call.end()
        stream = proxy.records()[0]["media"][0]
        assert stream["caller"]["lost"] == 0
        assert 28 <= stream["callee"]["lost"] <= 30
        assert stream["caller"]["mos"] > 4
        assert 1 < stream["callee"]["mos"] < 3.2
        assert stream["caller"]["jitter_milliseconds"] < 20


def test_hold_and_resume_and_a_phone_that_moves(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far, Talker() as moved:
        _, port, _ = local(core=core.port, extra=MEDIA)
        call = Call(port, caller, core, near, far)
        near.say("before", call.near)
        assert far.hears_all(1) == ["before"]
        far.say("warm", call.far)
        assert near.hears_all(1) == ["warm"]
        offer, _ = call.again(sdp(near.host, near.port, direction="sendonly"), sdp(far.host, far.port, direction="recvonly"), branch="hold")
        assert "a=sendonly" in offer
        assert place(offer) == call.far
        near.say("music", call.near, 3)
        assert far.hears_all(3) == ["music"] * 3
        # It comes back at another place, which counts from then on.
        _, reply = call.again(sdp(moved.host, moved.port), sdp(far.host, far.port), branch="resume")
        assert place(reply) == call.near
        far.say("welcome back", call.far)
        assert moved.hears_all(1) == ["welcome back"]
        near.say("still under way", call.near)
        moved.say("here now", call.near)
        near.say("not any more", call.near)
        assert far.hears_all(1) == ["here now"]
        call.end()


def test_silence_ends_the_call(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        extra = MEDIA + 'timeout_seconds = 2\n[events]\nlog = ["E_MEDIA_TIMEOUT"]\n'
        proxy, port, _ = local(core=core.port, extra=extra)
        Call(port, caller, core, near, far)
        assert "Media timeout" in core.receive_until("BYE", 8)
        assert caller.receive_until("BYE", 2)
        assert proxy.told("E_MEDIA_TIMEOUT")[0]["callid"] == "m1"
        assert proxy.records()[0]["ended_by"] == "proxy"


def test_calls_given_up_at_any_step_leave_no_port_descriptor_or_session(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=MEDIA)
        Call(port, caller, core, near, far, "first").end()
        before = descriptors(proxy)
        for number in range(300):
            call_id = f"g{number}"
            request = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id=call_id, branch=call_id)
            caller.send(described(request, sdp(near.host, near.port)), port)
            arrived = core.receive_until("INVITE", having=call_id)
            assert arrived
            core.send(answer(arrived, "180 Ringing"), port)
            assert caller.receive_until("SIP/2.0 180", having=call_id)
            if number % 3 == 0:
                core.send(described(answer(arrived, "183 Progress"), sdp(far.host, far.port)), port)
                assert caller.receive_until("SIP/2.0 183", having=call_id)
            if number % 3 == 1:
                core.send(answer(arrived, "486 Busy"), port)
                assert caller.receive_until("SIP/2.0 486", having=call_id)
            else:
                caller.send(request.replace("INVITE", "CANCEL"), port)
                cancel = core.receive_until("CANCEL", having=call_id)
                core.send(answer(cancel, "200 OK"), port)
                core.send(answer(arrived, "487 Terminated"), port)
                assert caller.receive_until("SIP/2.0 487", having=call_id)
        proxy.records(301)
        counted = proxy.counters()
        assert (counted["media_sessions_opened"], counted["media_sessions_closed"]) == (301, 301)
        assert manage(proxy, "metrics")[1].count("edgeproxy_media_port_pairs_free{") == 1
        assert descriptors(proxy) <= before + 4


def test_where_no_ports_are_left_the_call_is_refused_and_later_ones_go_on(local: Local) -> None:
    # Below what the kernel gives to sockets that ask for any port.
    first = 24_000 + os.getpid() % 500 * 8
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=MEDIA)
        text = proxy.file.read_text().replace("[install]", f"[install]\nmedia_ports = [{first}, {first + 7}]")
        proxy.stop()
        proxy.file.write_text(text)
        proxy.start()
        calls = [Call(port, caller, core, near, far, f"full{number}") for number in range(2)]
        request = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="toomany", branch="toomany")
        caller.send(described(request, sdp(near.host, near.port)), port)
        assert caller.receive_until("SIP/2.0 5", having="toomany").startswith("SIP/2.0 500")
        calls[0].end()
        # The media worker frees them a moment after the BYE is answered.
        wait_for(lambda: re.search(r"^edgeproxy_media_port_pairs_free\{.*\} 2$", manage(proxy, "metrics")[1], re.MULTILINE))
        Call(port, caller, core, near, far, "again").end()
        assert proxy.counters()["media_refused"] == 1


def test_media_begins_with_a_reload_and_what_cannot_be_bound_changes_nothing(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port)
        text = proxy.file.read_text()
        wrong = text.replace(f'address = "udp:127.0.0.1:{port}"', f'address = "udp:127.0.0.1:{port}"\nmedia_address = "192.0.2.77"')
        proxy.file.write_text(wrong + MEDIA)
        status, said = manage(proxy, "reload")
        assert status == 1
        assert "install.listener.udp.media_address" in said
        assert "not an address of this machine" in said
        assert Call(port, caller, core, near, far, "before").near == (near.host, far.port), "not relayed yet"
        proxy.file.write_text(text + MEDIA)
        assert manage(proxy, "reload")[0] == 0
        call = Call(port, caller, core, near, far, "after")
        near.say("hello", call.near)
        assert far.hears_all(1) == ["hello"]
        # A call keeps its media though the file has none any more.
        proxy.file.write_text(text)
        assert manage(proxy, "reload")[0] == 0
        near.say("still", call.near)
        assert far.hears_all(1) == ["still"]
        call.end()


def test_two_families_are_bridged(start_proxy: Callable[..., Proxy]) -> None:
    port = free_port("::1")
    with Agent("::1") as caller, Agent() as core, Talker("::1") as near, Talker() as far:
        toml = f"""
[install]
state_directory = "STATE"
[install.listener.six]
address = "udp:[::1]:{port}"
[install.listener.four]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core.port}"]
to = ["sip:127.0.0.1:{core.port}"]
[peer.phones]
kind = "trusted"
match = ["::1"]
[media]
"""
        start_proxy(toml)
        request = invite("INVITE", caller.port, "sip:b@x", call_id="six", branch="six").replace("127.0.0.1", "[::1]")
        caller.send(described(request, sdp("::1", near.port)), port, "::1")
        arrived = core.receive_until("INVITE")
        assert place(arrived)[0] == "127.0.0.1"
        core.send(described(answer(arrived, "200 OK"), sdp("127.0.0.1", far.port)), port)
        ok = caller.receive_until("SIP/2.0 200")
        assert place(ok)[0] == "::1"
        near.say("six to four", place(ok))
        far.say("four to six", place(arrived))
        assert (far.hears_all(1), near.hears_all(1)) == (["six to four"], ["four to six"])


def test_packets_carry_their_class(local: Local) -> None:
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        _, port, _ = local(core=core.port, extra=MEDIA)
        call = Call(port, caller, core, near, far)
        far.rtp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        near.say("x", call.near)
        far.rtp.settimeout(2)
        _, extras, _, _ = far.rtp.recvmsg(2_048, 64)
        assert [data[0] for _, kind, data in extras if kind == socket.IP_TOS] == [46 << 2]


@pytest.mark.parametrize("body", ["nonsense", "v=0\r\nm=audio x RTP/AVP 0\r\n", "v=0\r\nm=audio 4000 RTP/AVP 0\r\n"])
def test_a_description_that_nobody_can_read_is_refused(body: str, local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra=MEDIA)
        request = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}")
        caller.send(described(request, body), port)
        assert caller.receive_until("SIP/2.0 4").startswith("SIP/2.0 400")
        assert core.receive(0.3) == ""
        assert proxy.counters()["media_unreadable"] == 1


def test_a_phone_says_ports_of_ours_to_no_worker(start_proxy: Callable[..., Proxy]) -> None:
    port = free_port()
    with Agent("127.0.0.2") as phone, Agent() as core, Talker() as far:
        proxy = start_proxy(
            f'[install]\nstate_directory = "STATE"\nworkers = 2\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
            '[peer.phones]\nkind = "subscribers"\nmatch = ["127.0.0.2"]\nauthenticate = false\n[registrar]\ndomains = ["edge.example"]\n'
            f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n{MEDIA}'
        )

        def offers(body: str, call_id: str) -> None:
            request = invite("INVITE", phone.port, "sip:b@elsewhere.example", call_id=call_id, branch=call_id)
            phone.send(described(request, body), port)

        # By their Call-IDs they come to both workers.
        ours = []
        for turn in range(6):
            offers(sdp("127.0.0.2", 4_000), f"own{turn}")
            request = core.receive_until("INVITE", having=f"own{turn}")
            ours.append(place(request)[1])
            core.send(described(answer(request, "200 OK"), sdp(far.host, far.port)), port)
            assert phone.receive_until("SIP/2.0 200", having=f"own{turn}")
        for turn, own in enumerate(ours * 2):
            offers(sdp("127.0.0.1", own), f"forged{turn}")
            assert phone.receive_until("SIP/2.0 4", having=f"forged{turn}").startswith("SIP/2.0 400")
        assert proxy.counters()["media_unreadable"] == 12


POLICY = """
from edgeproxy.policy import CONTINUE, Policy

policy = Policy()


@policy.on_request("INVITE")
def choose(call):
    call.relay_media(call.header("X-Media") == "yes")
    return CONTINUE
"""


def test_a_policy_decides_whose_media_is_relayed(local: Local, tmp_path: Path) -> None:
    (tmp_path / "chooser.py").write_text(POLICY)
    with Agent() as caller, Agent() as core, Talker() as near:
        _, port, _ = local(core=core.port, extra=MEDIA + '[[policy]]\nmodule = "chooser"\n')
        for wish, relayed in (("yes", True), ("no", False)):
            request = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id=wish, branch=wish, extra=f"X-Media: {wish}\r\n")
            caller.send(described(request, sdp(near.host, near.port)), port)
            arrived = core.receive_until("INVITE", 10, having=f"Call-ID: {wish}")
            assert (place(arrived)[1] != near.port) == relayed, wish
