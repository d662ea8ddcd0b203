"""Real rtpengines in place of our own media workers: heard both ways, several of them, and one that goes."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.agent import Agent, answer, invite
from tests.integration.proxy import free_port, manage
from tests.integration.rtp import Talker, place, sdp
from tests.integration.test_media import Call, Local, described


class Engine:
    """An rtpengine in user space on free ports."""

    def __init__(self, first: int) -> None:
        self.port = free_port()
        self._line = [
            "rtpengine",
            "--config-file=none",
            "--foreground",
            "--log-stderr",
            "--log-level=4",
            "--table=-1",
            "--num-threads=1",
            "--interface=127.0.0.1",
            f"--listen-ng=127.0.0.1:{self.port}",
            f"--port-min={first}",
            f"--port-max={first + 200}",
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.first = first

    def start(self) -> "Engine":
        self.process = subprocess.Popen(self._line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.2)
            for _ in range(50):
                probe.sendto(f"t{time.monotonic_ns()} d7:command4:pinge".encode(), ("127.0.0.1", self.port))
                try:
                    if b"pong" in probe.recv(100):
                        return self
                except OSError:
                    time.sleep(0.1)
        raise RuntimeError("rtpengine does not answer")

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def sessions(self) -> int:
        """Return how many calls it holds."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(2)
            # It answers a cookie that it has seen as it did the first time.
            probe.sendto(f"t{time.monotonic_ns()} d7:command4:list5:limiti100ee".encode(), ("127.0.0.1", self.port))
            text = probe.recv(65_535).decode()
        rest, count = text.partition("5:callsl")[2], 0
        # Each text with its length before it.
        while found := re.match(r"(\d+):", rest):
            rest, count = rest[found.end() + int(found[1]) :], count + 1
        return count

    def is_empty(self) -> bool:
        """Whether it holds no call any more, in time."""
        return self.holds(0)

    def holds(self, count: int, seconds: float = 3) -> bool:
        """Whether it comes to hold so many calls, in time."""
        end = time.monotonic() + seconds
        while self.sessions() != count:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def has(self, port: int) -> bool:
        return self.first <= port <= self.first + 200


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    del tmp_path
    made: list[Engine] = []

    def make() -> Engine:
        made.append(Engine(20_000 + 1_000 * len(made)))
        return made[-1].start()

    yield make
    for one in made:
        one.stop()


def extra(*engines: Engine, weights: tuple[int, ...] = (1, 1)) -> str:
    """Return the tables of a file that uses these engines."""
    tables = [
        f'[media.rtpengine.e{number}]\naddress = "127.0.0.1:{one.port}"\nweight = {weights[number]}\n' for number, one in enumerate(engines)
    ]
    terms = 'engage = "always"\nrtpengine_timeout_milliseconds = 100\nrtpengine_tries = 2\nrtpengine_ping_seconds = 1\n'
    return f"[media]\n{terms}{''.join(tables)}" + '[events]\nlog = ["E_RTPENGINE_STATUS"]\n'


def freeze(*engines: Engine) -> None:
    for one in engines:
        assert one.process
        one.process.send_signal(signal.SIGSTOP)
        # On another processor it may go on for a moment, and answer.
        os.waitid(os.P_PID, one.process.pid, os.WSTOPPED)


def thaw(*engines: Engine) -> None:
    for one in engines:
        assert one.process
        one.process.send_signal(signal.SIGCONT)


def hear_each_other(call: Call, near: Talker, far: Talker, by: Engine) -> bool:
    """Whether each side hears the other, and an engine is what both talk to."""
    near.say("from the caller", call.near, 5, pause=0.02)
    far.say("from the callee", call.far, 5, pause=0.02)
    heard = (far.hears_all(5), near.hears_all(5)) == (["from the caller"] * 5, ["from the callee"] * 5)
    return heard and by.has(call.near[1]) and by.has(call.far[1])


def test_both_sides_hear_each_other_over_an_rtpengine(local: Local, engine: Callable[..., Engine]) -> None:
    one = engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=extra(one))
        call = Call(port, caller, core, near, far)
        assert hear_each_other(call, near, far, one)
        offer, reply = call.again(
            sdp(near.host, near.port, direction="sendonly"), sdp(far.host, far.port, direction="recvonly"), branch="hold"
        )
        assert one.has(place(offer)[1])
        assert one.has(place(reply)[1])
        assert one.sessions() == 1
        call.end()
        record = proxy.records()[0]
        assert (record["media"][0]["caller"]["packets"], record["media"][0]["callee"]["packets"]) == (5, 5)
        assert record["media"][0]["caller"]["source"] == f"127.0.0.1:{near.port}"
        assert one.is_empty()


def test_a_call_of_before_a_restart_is_heard_on_and_led_through_the_engine_again(local: Local, engine: Callable[..., Engine]) -> None:
    one = engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=extra(one))
        call = Call(port, caller, core, near, far)
        near.say("before", call.near, 5, pause=0.02)
        assert far.hears_all(5) == ["before"] * 5
        assert proxy.process
        proxy.process.kill()
        proxy.process.wait()
        proxy.start()
        near.say("meanwhile", call.near, 5, pause=0.02)
        assert far.hears_all(5) == ["meanwhile"] * 5
        offer, reply = call.again(sdp(near.host, near.port), sdp(far.host, far.port), branch="again")
        call.near, call.far = place(reply), place(offer)
        assert hear_each_other(call, near, far, one)
        assert (one.sessions(), proxy.counters()["calls_adopted"]) == (2, 1)
        call.end()
        # The other one was the old process's, and ends by its timeout.
        assert one.holds(1)


def test_calls_are_shared_by_weight_and_go_on_with_the_one_that_is_left(local: Local, engine: Callable[..., Engine]) -> None:
    first, second = engine(), engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=extra(first, second, weights=(3, 1)))
        calls = [Call(port, caller, core, near, far, f"w{number}") for number in range(24)]
        of_first = sum(first.has(call.near[1]) for call in calls)
        assert 12 <= of_first <= 23
        second.stop()
        # Whatever falls to the one that is gone goes to the other, and is only told of.
        later = [Call(port, caller, core, near, far, f"l{number}") for number in range(12)]
        assert all(first.has(call.near[1]) for call in later)
        told = proxy.told("E_RTPENGINE_STATUS")
        assert (told[0]["status"], told[0]["set"], told[0]["socket"]) == ("inactive", "e1", f"udp:127.0.0.1:{second.port}")
        assert 'rtpengine_up{node="test",engine="e1"} 0' in manage(proxy, "metrics")[1]
        # So does a call of it with its next offer.
        moved = next(call for call in calls if not first.has(call.near[1]))
        offer, reply = moved.again(sdp(near.host, near.port), sdp(far.host, far.port), branch="moved")
        moved.far, moved.near = place(offer), place(reply)
        assert hear_each_other(moved, near, far, first)
        # It comes back by itself.
        second.start()
        assert proxy.told("E_RTPENGINE_STATUS", 2, 6)[1]["status"] == "active"
        for call in (*later, *(call for call in calls if first.has(call.near[1]))):
            call.end()
        assert first.is_empty()


@pytest.mark.alone
def test_without_any_engine_a_call_is_refused_and_signalling_goes_on(local: Local, engine: Callable[..., Engine]) -> None:
    one = engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=extra(one))
        held = Call(port, caller, core, near, far, "held")
        one.stop()
        request = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="refused", branch="refused")
        caller.send(described(request, sdp(near.host, near.port)), port)
        # What needs no media is not held up by it.
        options = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="silent", branch="silent")
        start = time.monotonic()
        caller.send(options, port)
        arrived = core.receive_until("INVITE", having="Call-ID: silent")
        assert arrived
        assert time.monotonic() - start < 0.5
        core.send(answer(arrived, "486 Busy"), port)
        assert caller.receive_until("SIP/2.0 5", having="refused").startswith("SIP/2.0 500")
        held.end()
        records = {record["call_id"]: record for record in proxy.records(3, 5)}
        assert records["held"]["media"] == []
        assert proxy.counters()["media_questions_failed"] >= 1
        one.start()
        proxy.told("E_RTPENGINE_STATUS", 2, 6)
        Call(port, caller, core, near, far, "again").end()


def test_a_reload_puts_an_engine_in_the_place_of_our_own_workers(local: Local, engine: Callable[..., Engine]) -> None:
    one = engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra='[media]\nengage = "always"\n')
        native = Call(port, caller, core, near, far, "native")
        assert not one.has(native.near[1])
        text = proxy.file.read_text()
        proxy.file.write_text(text.replace('[media]\nengage = "always"\n', extra(one)))
        assert manage(proxy, "reload")[0] == 0
        external = Call(port, caller, core, near, far, "external")
        assert one.has(external.near[1])
        # The one that began before keeps what it has, for its next offer too.
        _, reply = native.again(sdp(near.host, near.port), sdp(far.host, far.port), branch="again")
        assert place(reply) == native.near
        near.say("still here", native.near)
        assert far.hears_all(1) == ["still here"]
        native.end()
        external.end()


@pytest.mark.alone
def test_an_engine_that_was_slow_keeps_no_session_that_went_on_elsewhere(local: Local, engine: Callable[..., Engine]) -> None:
    slow, other = engine(), engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        _, port, _ = local(core=core.port, extra=extra(slow, other, weights=(100, 1)))
        moved = Call(port, caller, core, near, far, "moved")
        assert (slow.sessions(), other.sessions()) == (1, 0)
        freeze(slow)
        # A new call, and an offer within one that is there.
        fresh = Call(port, caller, core, near, far, "fresh")
        offer, reply = moved.again(sdp(near.host, near.port), sdp(far.host, far.port), branch="again")
        assert other.has(place(offer)[1])
        assert other.has(place(reply)[1])
        thaw(slow)
        assert slow.holds(0, 15)
        assert other.sessions() == 2
        moved.end()
        fresh.end()
        assert other.is_empty()
        # What is new is its again.
        last = Call(port, caller, core, near, far, "last")
        assert slow.has(last.near[1])
        last.end()
        assert slow.is_empty()


def test_an_offer_that_moves_and_is_refused_leaves_the_call_where_it_is_heard(local: Local, engine: Callable[..., Engine]) -> None:
    slow, other = engine(), engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        _, port, _ = local(core=core.port, extra=extra(slow, other, weights=(100, 1)))
        call = Call(port, caller, core, near, far, "refused")
        freeze(slow)
        call.offer(sdp(near.host, near.port), branch="again")
        offer = core.receive_until("INVITE", having="again")
        assert offer
        assert other.has(place(offer)[1])
        thaw(slow)
        # It is asked whether it is there every second.
        time.sleep(1.5)
        assert hear_each_other(call, near, far, slow)
        core.send(answer(offer, "488 Not Acceptable Here"), port)
        assert caller.receive_until("SIP/2.0 488")
        assert hear_each_other(call, near, far, slow)
        assert (slow.holds(1), other.is_empty()) == (True, True)
        call.end()
        assert slow.is_empty()


def test_a_description_that_nobody_can_read_is_not_the_fault_of_an_engine(local: Local, engine: Callable[..., Engine]) -> None:
    one = engine()
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra=extra(one))
        caller.send(described(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}"), "nonsense"), port)
        assert caller.receive_until("SIP/2.0 4").startswith("SIP/2.0 400")
        assert (proxy.counters()["media_unreadable"], proxy.counters()["media_questions_failed"]) == (1, 0)


def test_two_offers_of_one_call_that_move_at_once_leave_one_session(local: Local, engine: Callable[..., Engine]) -> None:
    slow, other = engine(), engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        _, port, _ = local(core=core.port, extra=extra(slow, other, weights=(100, 1)))
        call = Call(port, caller, core, near, far, "twice")
        freeze(slow)
        for cseq, branch in ((2, "first"), (3, "second")):
            call.offer(sdp(near.host, near.port), branch=branch, cseq=cseq)
        offers = [core.receive_until("INVITE", having=f"CSeq: {cseq} ") for cseq in (2, 3)]
        assert [other.has(place(offer)[1]) for offer in offers] == [True, True]
        for offer in offers:
            core.send(described(answer(offer, "200 OK"), sdp(far.host, far.port)), port)
        thaw(slow)
        assert slow.holds(0, 5)
        # Whoever asks engines is still there.
        fresh = Call(port, caller, core, near, far, "fresh")
        assert slow.has(fresh.near[1])
        fresh.end()


def test_an_offer_that_no_engine_takes_leaves_the_call_where_it_is(local: Local, engine: Callable[..., Engine]) -> None:
    one, other = engine(), engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=extra(one, other, weights=(100, 1)))
        call = Call(port, caller, core, near, far, "stays")
        freeze(one, other)
        call.offer(sdp(near.host, near.port), branch="nobody")
        assert caller.receive_until("SIP/2.0 5", having="nobody").startswith("SIP/2.0 500")
        thaw(one, other)
        proxy.told("E_RTPENGINE_STATUS", 4, 6)
        assert (one.sessions(), other.holds(0)) == (1, True)
        assert hear_each_other(call, near, far, one)
        call.end()
        assert one.is_empty()


def test_a_call_that_ends_while_its_offer_moves_leaves_nothing(local: Local, engine: Callable[..., Engine]) -> None:
    one, other = engine(), engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far:
        proxy, port, _ = local(core=core.port, extra=extra(one, other, weights=(100, 1)))
        call = Call(port, caller, core, near, far, "over")
        freeze(one, other)
        call.offer(sdp(near.host, near.port), branch="moves")
        # The first has two tries of a tenth of a second, then it is with the other one.
        time.sleep(0.3)
        call.end()
        thaw(one, other)
        assert (one.holds(0, 5), other.holds(0, 5)) == (True, True)
        proxy.told("E_RTPENGINE_STATUS", 2, 6)
        assert other.is_empty()


def test_of_two_that_ring_behind_us_the_one_that_answers_is_heard(local: Local, engine: Callable[..., Engine]) -> None:
    one = engine()
    with Agent() as caller, Agent() as core, Talker() as near, Talker() as far, Talker() as loser:
        _, port, _ = local(core=core.port, extra=extra(one))
        caller.send(
            described(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", branch="forked"), sdp(near.host, near.port)), port
        )
        request = core.receive_until("INVITE")
        assert request
        for tag, talker in (("callee", far), ("other", loser)):
            early = answer(request, "183 Session Progress", tag=tag).replace(
                "Content-Length", "Require: 100rel\r\nRSeq: 1\r\nContent-Length"
            )
            core.send(described(early, sdp(talker.host, talker.port)), port)
            heard = caller.receive_until("SIP/2.0 183", having=f"tag={tag}")
            assert heard
        # The answer stood in its 183.
        core.send(answer(request, "200 OK", tag="callee"), port)
        assert caller.receive_until("SIP/2.0 200")
        near.say("from the caller", place(heard), 5, pause=0.02)
        far.say("from the callee", place(request), 5, pause=0.02)
        assert (far.hears_all(5), near.hears_all(5)) == (["from the caller"] * 5, ["from the callee"] * 5)
        assert loser.hears(0.2) == []
