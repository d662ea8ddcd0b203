"""Hooks by opt-in, and requests of a policy's own, through the simulated edge."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from edgeproxy.events import Event
from edgeproxy.policy import (
    CONTINUE,
    DROP,
    Answer,
    Branch,
    Call,
    CallEnded,
    PassingResponse,
    Policy,
    PolicyError,
    Reject,
    Relay,
    Reply,
    Verdict,
)
from edgeproxy.policy.parts import Part
from edgeproxy.testing import Response, SimulatedEdge, request

GATEWAY, CORE = "203.0.113.1:5060", "198.51.100.1:5060"
TWO_CORES = """
[install.listener.public]
address = "udp:192.0.2.1:5060"
[peer.core]
kind = "core"
match = ["198.51.100.0/24"]
to = ["sip:198.51.100.1", "sip:198.51.100.2"]
[peer.subscribers]
kind = "subscribers"
match = ["*;listener=public"]
"""


def finals(sent: list[Response]) -> list[int]:
    return [message.status_code for message in sent if message.status_code >= 200]


def hooked(hook: str, handler: Callable[..., object], *methods: str) -> Policy:
    policy = Policy()
    getattr(policy, hook)(*methods)(handler)
    return policy


def test_each_branch_is_looked_at_and_edited_for_itself() -> None:
    seen: list[tuple[int, str]] = []

    def look(branch: Branch) -> Verdict:
        seen.append((branch.number, branch.target))
        branch.set_header("X-Branch", str(branch.number))
        branch.note(f"branch {branch.number}", branch.target)
        return CONTINUE

    with SimulatedEdge(hooked("on_branch", look, "INVITE"), configuration=TWO_CORES) as edge:
        first = edge.receive(request("INVITE", headers={"P-Asserted-Identity": "<sip:forged@x>"}))
        assert (first.to, first.headers("X-Branch"), first.header("P-Asserted-Identity")) == (CORE, ["1"], None)
        second = edge.respond(first, 503)[-1]
        assert (second.to, second.headers("X-Branch")) == ("198.51.100.2:5060", ["2"])
        assert finals(edge.respond(second, 486)) == [486]
        (record,) = edge.records
    assert seen == [(1, f"udp:{CORE}"), (2, "udp:198.51.100.2:5060")]
    assert record["notes"] == {"branch 1": f"udp:{CORE}", "branch 2": "udp:198.51.100.2:5060"}


def test_a_branch_that_is_refused_is_passed_over() -> None:
    def look(branch: Branch) -> Verdict:
        return Reject(503) if branch.target == f"udp:{CORE}" else CONTINUE

    with SimulatedEdge(hooked("on_branch", look), configuration=TWO_CORES) as edge:
        assert edge.receive(request("INVITE")).to == "198.51.100.2:5060"
    with SimulatedEdge(hooked("on_branch", lambda branch: Reject(480))) as edge:
        assert edge.receive(request("INVITE")).status_code == 480


@pytest.mark.parametrize("made", [Relay(peer="gateway"), 42, Reply(200)])
def test_what_is_no_verdict_for_a_branch_ends_in_that_of_the_file(made: object) -> None:
    with SimulatedEdge(hooked("on_branch", lambda branch: made)) as edge:
        assert edge.receive(request("INVITE")).status_code == 500


def test_a_branch_that_hangs_ends_by_the_deadline() -> None:
    async def hang(branch: Branch) -> None:
        await asyncio.sleep(3_600)

    with SimulatedEdge(hooked("on_branch", hang), deadline_seconds=0.05) as edge:
        edge.receive(request("INVITE"))
        assert finals(edge.advance(0.3)) == [500]
        edge.wait(2)


def test_a_response_is_edited_or_kept_back_and_a_final_one_always_arrives() -> None:
    def look(response: PassingResponse) -> Verdict:
        assert response.target == f"udp:{CORE}"
        assert response.method == "INVITE"
        response.remove_header("Server")
        response.set_header("X-Seen", str(response.status_code))
        return DROP if response.status_code == 183 else CONTINUE

    with SimulatedEdge(hooked("on_response", look, "INVITE")) as edge:
        out = edge.receive(request("INVITE"))
        assert edge.respond(out, 183) == []
        (ringing,) = edge.respond(out, 180)
        assert (ringing.status_code, ringing.headers("X-Seen")) == (180, ["180"])
        (ok,) = edge.respond(out, 200)
        assert (ok.status_code, ok.headers("X-Seen")) == (200, ["200"])
        # The callee repeats its 2xx until it gets the ACK.
        (again,) = edge.respond(out, 200)
        assert again.headers("X-Seen") == ["200"]
    with SimulatedEdge(hooked("on_response", lambda response: DROP)) as edge:
        assert finals(edge.respond(edge.receive(request("INVITE")), 486)) == [486]


def test_a_response_passes_whatever_its_handler_does() -> None:
    def fail(response: PassingResponse) -> Verdict:
        raise ValueError("on purpose")

    async def hang(response: PassingResponse) -> None:
        await asyncio.sleep(3_600)

    for handler in (fail, lambda response: Reject(403), lambda response: 42):
        with SimulatedEdge(hooked("on_response", handler)) as edge:
            assert finals(edge.respond(edge.receive(request("INVITE")), 486)) == [486]
    with SimulatedEdge(hooked("on_response", hang), deadline_seconds=0.05) as edge:
        assert edge.respond(edge.receive(request("INVITE")), 200) == []
        assert finals(edge.advance(1)) == [200]
        edge.wait(2)


def within(edge: SimulatedEdge, method: str) -> bytes:
    """Set a call up and return a request within its dialog."""
    out = edge.receive(request("INVITE", call_id="dialog"))
    (ok,) = edge.respond(out, 200)
    text = request(method, "sip:bob@198.51.100.1", call_id="dialog").decode()
    head, _, rest = text.partition("\r\nFrom:")
    rest = rest.partition("\r\nCall-ID")[2]
    routes = "".join(f"\r\nRoute: {route}" for route in ok.headers("Record-Route"))
    return f"{head}{routes}\r\nFrom: {ok.header('From')}\r\nTo: {ok.header('To')}\r\nCall-ID{rest.replace('CSeq: 1 ', 'CSeq: 2 ')}".encode()


def test_requests_within_a_dialog_are_decided_where_somebody_asked_for_it() -> None:
    def look(call: Call) -> Verdict:
        call.set_header("X-Seen", call.method)
        return Reject(403) if call.method == "REFER" else CONTINUE

    with SimulatedEdge(hooked("on_in_dialog", look, "REFER", "INFO")) as edge:
        info = edge.receive(within(edge, "INFO"))
        assert (info.method, info.to, info.header("X-Seen")) == ("INFO", CORE, "INFO")
    with SimulatedEdge(hooked("on_in_dialog", look, "REFER", "INFO")) as edge:
        assert edge.receive(within(edge, "REFER")).status_code == 403
    with SimulatedEdge(hooked("on_in_dialog", look, "REFER")) as edge:
        out = edge.receive(within(edge, "INFO"))
        assert (out.method, out.header("X-Seen")) == ("INFO", None)
    with SimulatedEdge(hooked("on_in_dialog", lambda call: Relay(peer="gateway"))) as edge:
        assert edge.receive(within(edge, "INFO")).status_code == 500


def test_the_failure_of_all_attempts_is_decided_once() -> None:
    seen: list[int] = []

    def decide(call: Call) -> Verdict:
        seen.append(call.failed_with)
        return Relay(peer="gateway")

    with SimulatedEdge(hooked("on_failure", decide, "INVITE")) as edge:
        out = edge.receive(request("INVITE"))
        again = edge.respond(out, 486)[-1]
        assert again.to == GATEWAY
        assert finals(edge.respond(again, 480)) == [480]
    assert seen == [486]


def test_a_failure_that_is_left_alone_or_answered_or_lost() -> None:
    with SimulatedEdge(hooked("on_failure", lambda call: CONTINUE)) as edge:
        assert finals(edge.respond(edge.receive(request("INVITE")), 486)) == [486]
    with SimulatedEdge(hooked("on_failure", lambda call: Reject(480, "Nobody There"))) as edge:
        (final,) = [message for message in edge.respond(edge.receive(request("INVITE")), 486) if message.status_code]
        assert final.first_line == "SIP/2.0 480 Nobody There"
    with SimulatedEdge(hooked("on_failure", lambda call: 42)) as edge:
        assert finals(edge.respond(edge.receive(request("INVITE")), 486)) == [486]


def test_a_failure_handler_may_try_targets_itself() -> None:
    async def decide(call: Call) -> Verdict:
        async for failure in call.attempts(["sip:203.0.113.5", "sip:203.0.113.6"]):
            call.note(failure.target, str(failure.status_code))
        return call.best_response()

    with SimulatedEdge(hooked("on_failure", decide)) as edge:
        first = edge.respond(edge.receive(request("INVITE")), 486)[-1]
        assert first.to == "203.0.113.5:5060"
        second = edge.respond(first, 503)[-1]
        assert second.to == "203.0.113.6:5060"
        assert finals(edge.respond(second, 200)) == [200]


def test_a_policy_sends_requests_of_its_own() -> None:
    policy, answers = Policy(), []

    @policy.on_request("MESSAGE")
    async def forward(call: Call) -> Verdict:
        answer = await policy.send_request(
            "OPTIONS", "sip:gw@203.0.113.1", from_uri="sip:edge@example.net", headers={"Accept": "application/sdp"}, body="hi"
        )
        answers.append(answer)
        return Reply(answer.status_code)

    with SimulatedEdge(policy) as edge:
        out = edge.receive(request("MESSAGE"))
        assert (out.first_line, out.to) == ("OPTIONS sip:gw@203.0.113.1 SIP/2.0", GATEWAY)
        assert len(out.headers("Via")) == 1
        assert out.headers("Via")[0].startswith("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK")
        assert (out.header("Accept"), out.header("Record-Route"), out.header("Max-Forwards")) == ("application/sdp", None, "69")
        assert out.text.endswith("Content-Length: 2\r\n\r\nhi")
        assert finals(edge.respond(out, 200, "Very Well")) == [200]
        assert edge.records == []
    (answer,) = answers
    assert (answer.status_code, answer.reason_phrase, answer.header("CSeq"), answer.header("Via")) == (200, "Very Well", "1 OPTIONS", None)


@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_a_request_that_nobody_answers_ends_with_408(seconds: float) -> None:
    policy, answers = Policy(), []

    @policy.on_request("INVITE")
    async def ask(call: Call) -> Verdict:
        answers.append(await policy.send_request("OPTIONS", "sip:203.0.113.1", from_uri="sip:edge@x", deadline_seconds=seconds))
        return CONTINUE

    with SimulatedEdge(policy, deadline_seconds=60) as edge:
        edge.receive(request("INVITE"))
        again = edge.advance(0.9)
        assert [message.method for message in again] == ["OPTIONS"], "it is sent again"
        edge.advance(33)
    assert answers == [Answer(408)]


@pytest.mark.parametrize(
    ("method", "uri", "words", "problem"),
    [
        ("INVITE", "sip:a@b", {}, "cannot send 'INVITE'"),
        ("MESSAGE", "sip:a@b", {"headers": {"X": "a\r\nVia: b"}}, "expected printable text on one line"),
        ("MESSAGE", "sip:a b", {}, "not a URI"),
        ("MESSAGE", "sip:a@b", {"headers": {"Via: a": "b"}}, "not a header field that a policy may set: 'Via: a'"),
        ("MESSAGE", "sip:a@b", {"headers": {"v": "b"}}, "not a header field that a policy may set: 'v'"),
        ("MESSAGE", "http://a", {}, "no target"),
        ("MESSAGE", "sip:a@b", {"peer": "nobody"}, "no such peer"),
        ("MESSAGE", "sip:192.0.2.1", {"to": ["sip:192.0.2.1:5060"]}, "names this proxy itself"),
    ],
)
def test_what_cannot_be_sent_is_said(method: str, uri: str, words: dict[str, object], problem: str) -> None:
    policy, errors = Policy(), []

    @policy.on_request("MESSAGE")
    async def ask(call: Call) -> Verdict:
        try:
            await policy.send_request(method, uri, from_uri="sip:edge@x", **words)  # type: ignore[arg-type]
        except PolicyError as error:
            errors.append(str(error))
        return Reject(403)

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("MESSAGE")).status_code == 403
    assert problem in errors[0]


FORKING = TWO_CORES.replace("to = [", 'forking = "parallel"\nto = [')


def failing_at(number: int) -> Policy:
    def look(branch: Branch) -> Verdict:
        if branch.number == number:
            raise ValueError("on purpose")
        return CONTINUE

    return hooked("on_branch", look, "INVITE")


def test_a_branch_whose_policy_fails_leaves_those_that_ring_alone() -> None:
    with SimulatedEdge(failing_at(2), configuration=FORKING) as edge:
        out = edge.receive(request("INVITE"))
        assert [message.to for message in edge.sent if message.method == "INVITE"] == [CORE]
        assert finals(edge.respond(out, 200)) == [200]
        assert edge.records == []
    with SimulatedEdge(failing_at(2), configuration=FORKING) as edge:
        assert finals(edge.respond(edge.receive(request("INVITE")), 486)) == [486]
        (record,) = edge.records
        assert (record["outcome"], record["status_code"]) == ("failed", 486)


def test_a_branch_tells_which_gateway_it_is_and_what_rows_say_of_it() -> None:
    told = []

    def look(branch: Branch) -> Verdict:
        told.append((branch.target, branch.to_gateway, branch.attrs, branch.carrier_attrs))
        return CONTINUE

    policy = hooked("on_branch", look)

    @policy.on_request("INVITE")
    async def route(call: Call) -> Verdict:
        async for _ in call.route("4930"):
            pass
        return call.best_response(otherwise=Reject(480))

    with SimulatedEdge(
        policy, configuration=f'{TWO_CORES}[peer.pstn]\nkind = "gateway"\ngateway_types = [-1]\n[route.pstn]\ngroup = 0\n'
    ) as edge:
        edge.provision({"a": "203.0.113.1", "b": "203.0.113.2"}, {"49": "a,#c"}, carriers={"c": "b"})
        edge.respond(edge.receive(request("INVITE")), 503)
    with SimulatedEdge(hooked("on_branch", look), configuration=TWO_CORES) as edge:
        edge.receive(request("INVITE"))
    assert told == [
        ("udp:203.0.113.1:5060", "a", "of a", ""),
        ("udp:203.0.113.2:5060", "b", "of b", "of c"),
        (f"udp:{CORE}", "", "", ""),
    ]


def test_no_branch_is_begun_after_a_global_refusal() -> None:
    async def look(branch: Branch) -> Verdict:
        if branch.number == 2:
            await asyncio.sleep(0.05)
        return CONTINUE

    with SimulatedEdge(hooked("on_branch", look), configuration=FORKING) as edge:
        out = edge.receive(request("INVITE"))
        assert finals(edge.respond(out, 603)) == [603]
        edge.wait(2)
        assert [message.to for message in edge.sent if message.method == "INVITE"] == [CORE]


def test_a_response_that_is_held_is_no_silence() -> None:
    async def hang(response: PassingResponse) -> None:
        await asyncio.sleep(3_600)

    slow = TWO_CORES.replace("to = [", "first_answer_seconds = 4\nto = [")
    with SimulatedEdge(hooked("on_response", hang), configuration=slow, deadline_seconds=2) as edge:
        out = edge.receive(request("INVITE"))
        edge.advance(3)
        count = len(edge.sent)
        assert edge.respond(out, 180) == []
        later = edge.advance(4)
        assert [message.status_code for message in later] == [180], "neither sent again nor to the other core"
        assert len(edge.sent) == count + 1
        edge.respond(out, 200)
        assert finals(edge.advance(3)) == [200]
        edge.wait(3)


def test_a_bye_goes_on_whatever_becomes_of_its_policy() -> None:
    def fail(call: Call) -> Verdict:
        raise ValueError("on purpose")

    with SimulatedEdge(hooked("on_in_dialog", fail)) as edge:
        out = edge.receive(within(edge, "BYE"))
        assert (out.method, out.to) == ("BYE", CORE)
        edge.respond(out, 200)
        (record,) = edge.records
        assert record["ended_by"] == "caller"
    with SimulatedEdge(hooked("on_in_dialog", fail)) as edge:
        assert edge.receive(within(edge, "INFO")).status_code == 500


def test_terms_of_one_hook_are_not_those_of_another() -> None:
    policy, quick = Policy(), Policy()

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        await call.attempt("sip:203.0.113.5")
        return call.best_response()

    quick.on_branch()(lambda branch: CONTINUE)
    with SimulatedEdge(policy, quick) as edge:
        out = edge.receive(request("INVITE"))
        assert out.to == "203.0.113.5:5060"
        assert finals(edge.respond(out, 486)) == [486]


def test_nobody_there_is_503_for_a_request_of_a_policys_own() -> None:
    policy, answers = Policy(), []

    @policy.on_request("INVITE")
    async def ask(call: Call) -> Verdict:
        answers.append(await policy.send_request("OPTIONS", "sip:nowhere.example.net", from_uri="sip:edge@x"))
        answers.append(await policy.send_request("OPTIONS", "sip:203.0.113.1", from_uri="sip:edge@x"))
        return Reject(403)

    with SimulatedEdge(policy) as edge:
        out = edge.receive(request("INVITE"))
        edge.respond(out, 503)
    assert [answer.status_code for answer in answers] == [503, 503]


def looking(ended: list[int]) -> Callable[[Part], Coroutine[None, None, Verdict]]:
    """A handler that looks for long, and notes by what it was ended."""

    async def look(part: Part) -> Verdict:
        part.set_header("X-Looked", "at")
        try:
            await part.sleep(60)
        except CallEnded as error:
            ended.append(error.status_code)
            raise
        return CONTINUE

    return look


def cancel(invite: str) -> str:
    """The CANCEL of an INVITE."""
    return "\r\n".join(line for line in invite.split("\r\n") if not line.startswith("Contact")).replace("INVITE", "CANCEL")


def test_a_caller_that_gives_up_ends_the_look_at_an_attempt() -> None:
    ended: list[int] = []
    with SimulatedEdge(hooked("on_branch", looking(ended), "INVITE"), deadline_seconds=30) as edge:
        invite = request("INVITE").decode()
        assert edge.receive(invite).status_code == 100
        sent = edge.receive(cancel(invite))
        assert sent.status_code == 487
        assert ended == [487]
        assert edge.failures == []


@pytest.mark.parametrize("status_code", [183, 200])
def test_a_caller_that_gives_up_ends_the_look_at_a_response_which_goes_on_as_it_came(status_code: int) -> None:
    ended: list[int] = []
    with SimulatedEdge(hooked("on_response", looking(ended), "INVITE"), deadline_seconds=30) as edge:
        invite = request("INVITE").decode()
        relayed = edge.receive(invite)
        assert edge.respond(relayed, status_code) == []
        count = len(edge.sent)
        edge.receive(cancel(invite))
        sent = [(message.method or message.status_code, message.header("X-Looked")) for message in edge.sent[count:]]
        assert ended == [487]
        # Who was answered before has the call: nothing is left to cancel.
        after = [("CANCEL", None)] if status_code == 183 else []
        assert sent == [(200, None), (status_code, None), *after]
        assert edge.failures == []


def test_events_reach_their_handlers_on_simulated_time() -> None:
    policy, told = Policy(), []

    @policy.on_event("E_DLG_STATE_CHANGED", "X_OWN")
    async def hear(event: Event) -> None:
        told.append(event.parameters())

    with SimulatedEdge(policy) as edge:
        relayed = edge.receive(request("INVITE"))
        edge.respond(relayed, 486)
        edge.raise_event("X_OWN", colour="red")
        with pytest.raises(ValueError, match="no such event: E_NONE"):
            edge.raise_event("E_NONE")
        assert edge.failures == []
    assert [event.get("new_state", event.get("colour")) for event in told] == [1, 5, "red"]


def test_media_cannot_be_relayed_without_a_relay() -> None:
    def relays(call: Call) -> Verdict:
        call.relay_media(call.request_uri.user == "yes")
        return CONTINUE

    with SimulatedEdge(hooked("on_request", relays, "INVITE")) as edge:
        assert edge.receive(request("INVITE", "sip:no@example.net")).method == "INVITE"
        assert edge.receive(request("INVITE", "sip:yes@example.net")).status_code == 500
        assert [failure["error"] for failure in edge.failures] == [
            "a verdict cannot be carried out: media is relayed only where the configuration has [media]"
        ]


def test_a_wish_for_media_is_yes_or_no() -> None:
    def relays(call: Call) -> Verdict:
        call.relay_media("please")  # type: ignore[arg-type]
        return CONTINUE

    with SimulatedEdge(hooked("on_request", relays, "INVITE")) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        assert [str(failure["error"]).splitlines()[-1] for failure in edge.failures] == [
            "PolicyError: relay_media: expected True or False, got: 'please'"
        ]


def test_how_many_a_limit_takes_is_a_number() -> None:
    for most in ("2", -1, True, 1 << 32):

        def limits(call: Call, most: object = most) -> Verdict:
            call.limit("few", "alice", most=most)  # type: ignore[arg-type]
            return CONTINUE

        with SimulatedEdge(hooked("on_request", limits, "INVITE")) as edge:
            assert edge.receive(request("INVITE")).status_code == 500
            assert [str(failure["error"]).splitlines()[-1] for failure in edge.failures] == [
                f"PolicyError: limit few: expected most to be an integer from 0 to 4294967295, got: {most!r}"
            ]


def test_the_end_of_a_look_at_an_attempt_comes_on_simulated_time() -> None:
    ended: list[int] = []
    with SimulatedEdge(hooked("on_branch", looking(ended), "INVITE"), deadline_seconds=30) as edge:
        edge.receive(request("INVITE"))
        edge.advance(29.9)
        assert ended == []
        edge.advance(0.2)
        assert ended == [0]
        assert edge.sent[-1].status_code == 500
