"""What handlers of a call keep for those that are asked later, and for its record."""

import json

import msgspec
import pytest

from edgeproxy.policy import CONTINUE, Branch, Call, PassingResponse, Policy, Reject, Verdict
from edgeproxy.policy.variables import MOST_BYTES, MOST_NAMES
from edgeproxy.testing import Response, SimulatedEdge, request
from edgeproxy.testing.edge import CONFIGURATION

CORE = "198.51.100.1:5060"
CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


def bye(answered: Response, relayed: Response) -> str:
    """The caller's BYE by the route that its INVITE left."""
    routes = "".join(f"Route: {route}\r\n" for route in answered.headers("Record-Route"))
    head = f"BYE sip:bob@{CORE} SIP/2.0\r\nVia: SIP/2.0/UDP phone.invalid:5060;branch=z9hG4bK-bye;rport\r\nMax-Forwards: 70\r\n{routes}"
    return f"{head}From: {answered.header('From')}\r\nTo: {answered.header('To')}\r\nCall-ID: {relayed.header('Call-ID')}\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n"


def hang_up(edge: SimulatedEdge, relayed: Response, answered: Response) -> dict[str, object]:
    """End an answered call and return its record."""
    edge.respond(edge.receive(bye(answered, relayed)), 200)
    (record,) = edge.records
    return dict(record)


def test_variables_live_from_hook_to_hook_and_reach_the_record() -> None:
    policy, final = Policy(), []

    @policy.on_request("INVITE")
    async def begin(call: Call) -> Verdict:
        call.variables["tariff"] = {"cents": 7, "names": ["night", "ünïcode"]}
        call.variables["gone"] = True
        failure = await call.attempt("sip:198.51.100.1")
        assert failure
        assert call.variables == {"tariff": {"cents": 7, "names": ["night", "ünïcode"]}, "tried": 1}, "what the branch did is known here"
        call.variables["tariff"]["cents"] = 9
        return call.best_response()

    @policy.on_branch("INVITE")
    def look(branch: Branch) -> Verdict:
        assert branch.variables["tariff"]["cents"] == 7
        branch.variables["tried"] = branch.number
        del branch.variables["gone"]
        return CONTINUE

    @policy.on_final()
    def end(record: dict[str, object]) -> None:
        final.append(record["variables"])

    with SimulatedEdge(policy) as edge:
        relayed = edge.receive(request("INVITE"))
        assert edge.respond(relayed, 486)[-1].status_code == 486
        (record,) = edge.records
        assert edge.failures == []
    assert record["variables"] == {"tariff": {"cents": 9, "names": ["night", "ünïcode"]}, "tried": 1}
    assert final == [record["variables"]]


def test_variables_cross_with_requests_that_open_no_call() -> None:
    policy, seen = Policy(), []

    @policy.on_request("MESSAGE")
    def begin(call: Call) -> Verdict:
        call.variables["kind"] = "text"
        return CONTINUE

    @policy.on_branch("MESSAGE")
    def look(branch: Branch) -> Verdict:
        seen.append(dict(branch.variables))
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("MESSAGE")).to == CORE
    assert seen == [{"kind": "text"}]


def test_variables_that_change_after_the_answer_reach_the_call_while_the_handler_goes_on() -> None:
    policy = Policy()
    seen: list[object] = []

    @policy.on_request("INVITE")
    async def begin(call: Call) -> Verdict:
        assert await call.attempt("sip:198.51.100.1") is None
        call.variables["late"] = 1
        await call.sleep(1_000)
        return CONTINUE

    @policy.on_in_dialog("BYE")
    def goodbye(call: Call) -> Verdict:
        seen.append(dict(call.variables))
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        relayed = edge.receive(request("INVITE"))
        answered = next(message for message in edge.respond(relayed, 200) if message.status_code == 200)
        edge.advance(2)
        record = hang_up(edge, relayed, answered)
    assert (seen, record["variables"]) == ([{"late": 1}], {"late": 1})


def test_notes_of_responses_within_dialogs_and_after_the_answer_reach_the_record() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    async def begin(call: Call) -> Verdict:
        call.variables["from"] = "request"
        assert await call.attempt("sip:198.51.100.1") is None
        call.note("after", "the answer")
        await call.sleep(5)
        call.note("later", "still")
        call.variables["seconds"] = 5
        return CONTINUE

    @policy.on_response("INVITE")
    def pass_on(response: PassingResponse) -> Verdict:
        response.note(f"response {response.status_code}", response.variables["from"])
        response.variables["codes"] = [*response.variables.get("codes", []), response.status_code]
        return CONTINUE

    @policy.on_in_dialog("BYE")
    def goodbye(call: Call) -> Verdict:
        call.note("in dialog", str(call.variables["codes"]))
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        relayed = edge.receive(request("INVITE"))
        edge.respond(relayed, 180)
        answered = next(message for message in edge.respond(relayed, 200) if message.status_code == 200)
        # A handler of an answered call has all the time it wants.
        edge._dispatcher.forget_lost(0)
        edge.advance(6)
        record = hang_up(edge, relayed, answered)
        assert edge.failures == []
    assert record["notes"] == {
        "response 180": "request",
        "response 200": "request",
        "after": "the answer",
        "later": "still",
        "in dialog": "[180, 200]",
    }
    assert record["variables"] == {"from": "request", "codes": [180, 200], "seconds": 5}


def test_a_handler_that_outlives_its_call_keeps_nothing_and_fails_nobody() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    async def begin(call: Call) -> Verdict:
        await call.attempt("sip:198.51.100.1")
        await call.sleep(60)
        call.note("too", "late")
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        relayed = edge.receive(request("INVITE"))
        answered = next(message for message in edge.respond(relayed, 200) if message.status_code == 200)
        record = hang_up(edge, relayed, answered)
        edge.advance(61)
        assert (record["notes"], edge.failures, edge.records) == ({}, [], [])


def test_what_a_limit_refuses_is_noted_all_the_same() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    def begin(call: Call) -> Verdict:
        call.note("asked", "for a place")
        call.limit("few", "all", 0)
        return CONTINUE

    with SimulatedEdge(
        policy, configuration=CONFIGURATION + "[limit.few]\ncounts = 'calls'\nkey = 'account'\nmost = 5\nby_policy = true\n"
    ) as edge:
        assert edge.receive(request("INVITE")).status_code >= 400
        (record,) = edge.records
    assert record["notes"] == {"asked": "for a place"}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (object(), "call.variables['it']: expected what JSON can hold, got object: Object of type object is not JSON serializable"),
        (CIRCLE, "call.variables['it']: expected what JSON can hold, got list: "),
        (b"bytes", "call.variables['it']: expected what JSON can hold, got bytes: "),
        ({1, 2}, "call.variables['it']: expected what JSON can hold, got set: "),
        ([{"a": {1: 2}}], "call.variables['it']: expected what JSON can hold, got list: the name 1 would come back as a text"),
        ({"a": (1, 2)}, "call.variables['it']: expected what JSON can hold, got dict: a tuple would come back as a list"),
        (float("nan"), "call.variables['it']: expected what JSON can hold, got float: "),
        ("half \ud800 of a pair", "call.variables['it']: expected what JSON can hold, got str: "),
        ("x" * 17_000, "call.variables: 17009 bytes as JSON, 16384 at most for a call"),
    ],
    ids=["object", "a list within itself", "bytes", "set", "number as name", "tuple", "no number", "half a pair", "too long"],
)
def test_what_json_cannot_hold_is_refused_by_name(value: object, fault: str) -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    def begin(call: Call) -> Verdict:
        call.variables["it"] = value
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        (failure,) = edge.failures
        assert fault in str(failure["error"])


@pytest.mark.parametrize("value", [json.loads("[" * 200 + "]" * 200), {str(number): 0 for number in range(257)}], ids=["deep", "many"])
def test_more_than_a_call_may_keep_is_a_failure_of_the_policy(value: object) -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    def begin(call: Call) -> Verdict:
        call.variables.update(value if isinstance(value, dict) else {"it": value})
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        (record,) = edge.records
    assert record["variables"] == {}


def test_a_note_that_is_no_text_after_the_answer_is_a_failure_of_its_policy_alone() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    async def begin(call: Call) -> Verdict:
        await call.attempt("sip:198.51.100.1")
        call.variables["it"] = object()
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        edge.respond(edge.receive(request("INVITE")), 200)
        (failure,) = edge.failures
        assert "call.variables['it']" in str(failure["error"])
        assert failure["call_id"]


def test_sleeping_for_no_time_needs_no_clock() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    async def begin(call: Call) -> Verdict:
        for _ in range(3):
            await call.sleep(0)
        return Reject(403)

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("INVITE")).status_code == 403


def test_each_module_has_options_of_its_own_and_sleep_is_simulated() -> None:
    class Options(msgspec.Struct, forbid_unknown_fields=True):
        code: int

    def refusing(seconds: float) -> Policy:
        policy = Policy(options=Options)

        @policy.on_request("INVITE")
        async def decide(call: Call, options: Options) -> Verdict:
            await call.sleep(seconds)
            return Reject(options.code) if call.request_uri.user == str(options.code) else CONTINUE

        return policy

    for number, seconds in (("403", 0.2), ("486", 0.5)):
        with SimulatedEdge(refusing(0.2), refusing(0.3), options=[{"code": 403}, {"code": 486}], deadline_seconds=2) as edge:
            assert edge.receive(request("INVITE", f"sip:{number}@example.net")).status_code == 100
            assert edge.advance(seconds - 0.01) == []
            assert [message.status_code for message in edge.advance(0.02)] == [int(number)]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        SimulatedEdge(refusing(1), refusing(1), options=[{"code": 403}])


def keeping(variables: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    """What a call's record has of variables, and what faults there were."""
    policy = Policy()

    @policy.on_request("INVITE")
    def keep(call: Call) -> Verdict:
        call.variables.update(variables)
        return Reject(486)

    with SimulatedEdge(policy) as edge:
        edge.receive(request("INVITE"))
        (record,) = edge.records
        return record["variables"], [str(failure["error"]) for failure in edge.failures]


def test_numbers_keep_all_their_digits() -> None:
    numbers = {"account": 2**70 + 1, "owed": -(2**70), "rate": 0.1, "list": [2**64]}
    assert keeping(numbers) == (numbers, [])


def test_both_sides_mean_the_same_by_too_much() -> None:
    # {"é\n":"xx..."}: six bytes of the name with its quotes, then colon, braces, and quotes of the value.
    most: dict[str, object] = {"é\n": "x" * (MOST_BYTES - 6 - 5)}
    assert len(json.dumps(most, ensure_ascii=False, separators=(",", ":")).encode()) == MOST_BYTES
    assert keeping(most) == (most, []), "the engine takes what Python takes"
    kept, faults = keeping({"é\n": "x" * (MOST_BYTES - 6 - 4)})
    assert (kept, faults) == ({}, [f"PolicyError: call.variables: {MOST_BYTES + 1} bytes as JSON, {MOST_BYTES} at most for a call"])
    names: dict[str, object] = {str(number): number for number in range(MOST_NAMES)}
    assert keeping(names) == (names, [])
    kept, faults = keeping({**names, "one more": 1})
    assert (kept, faults) == ({}, [f"PolicyError: call.variables: {MOST_NAMES + 1} names, {MOST_NAMES} at most"])
