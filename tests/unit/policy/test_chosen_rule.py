"""Handlers that rules name (`dr_rules.routeid`)."""

import asyncio

import pytest

from edgeproxy.errors import PolicyError
from edgeproxy.policy import CONTINUE, Call, ChosenRule, Policy, Reject, Verdict
from edgeproxy.testing import SimulatedEdge, request
from tests.unit.policy.test_numbers import CONFIGURATION, CORE

GATEWAYS = {"a": "203.0.113.1", "b": "203.0.113.2", "c": "203.0.113.3"}


def policy_with() -> tuple[Policy, list[tuple[str, int, str, str]]]:
    policy = Policy()
    asked: list[tuple[str, int, str, str]] = []

    @policy.on_route("premium")
    async def premium(rule: ChosenRule) -> Verdict:
        asked.append((rule.handler, rule.rule, rule.attrs, rule.request_uri.user))
        await asyncio.sleep(0)
        if rule.request_uri.user.startswith("4999"):
            return Reject(403, "No Premium")
        rule.set_header("X-Rate", "9")
        rule.note("rate", "9")
        return CONTINUE

    @policy.on_route("broken")
    def broken(_: ChosenRule) -> Verdict:
        raise ValueError("broken")

    return policy, asked


def test_the_handler_of_a_rule_is_asked_once_and_edits_refuses_or_fails() -> None:
    policy, asked = policy_with()
    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "a,b", "1": "a", "2": "c"}, handlers={"49": "premium", "1": "broken"})
        first = edge.receive(request("INVITE", "sip:4930@x"), CORE)
        assert (first.first_line, first.header("X-Rate")) == ("INVITE sip:4930@203.0.113.1 SIP/2.0", "9")
        second = next(sent for sent in edge.respond(first, 503) if sent.first_line.startswith("INVITE"))
        assert (second.to, second.header("X-Rate")) == ("203.0.113.2:5060", "9")
        edge.respond(second, 486)
        assert asked == [("premium", 1, "of 49", "4930")]
        assert edge.records[0]["notes"] == {"rate": "9"}
        assert edge.receive(request("INVITE", "sip:49991@x"), CORE).first_line == "SIP/2.0 403 No Premium"
        assert edge.receive(request("INVITE", "sip:12@x"), CORE).status_code == 500
        assert len(edge.failures) == 1
        plain = edge.receive(request("INVITE", "sip:22@x"), CORE)
        assert (plain.to, plain.header("X-Rate")) == ("203.0.113.3:5060", None)
        assert edge.receive(request("MESSAGE", "sip:4931@x"), CORE).header("X-Rate") == "9"


def test_a_number_that_the_handler_of_a_rule_sets_is_that_of_the_gateways() -> None:
    policy = Policy()

    @policy.on_route("premium")
    def premium(rule: ChosenRule) -> Verdict:
        rule.set_request_uri("sip:+777;npdi@other.example;user=phone")
        return CONTINUE

    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "a,b"}, handlers={"49": "premium"})
        first = edge.receive(request("INVITE", "sip:4930@x"), CORE)
        assert first.first_line == "INVITE sip:777;npdi@203.0.113.1;user=phone SIP/2.0"
        second = next(sent for sent in edge.respond(first, 503) if sent.first_line.startswith("INVITE"))
        assert second.first_line == "INVITE sip:777;npdi@203.0.113.2;user=phone SIP/2.0"


def test_a_call_for_help_goes_on_where_the_handler_of_its_rule_fails() -> None:
    policy, _ = policy_with()
    with SimulatedEdge(policy, configuration=CONFIGURATION + '\n[emergency]\nnumbers = ["112"]\n') as edge:
        edge.provision(GATEWAYS, {"1": "a"}, handlers={"1": "broken"})
        assert edge.receive(request("INVITE", "sip:113@x"), CORE).status_code == 500
        assert edge.receive(request("INVITE", "sip:112@x"), CORE).to == "203.0.113.1:5060"
        assert len(edge.failures) == 2


def test_what_the_handler_of_a_rule_changed_goes_out_with_all_gateways_of_a_loop() -> None:
    policy, _ = policy_with()

    @policy.on_request("INVITE")
    async def route(call: Call) -> Verdict:
        call.set_header("X-Try", "0")
        count = 0
        async for _ in call.route():
            count += 1
            call.set_header("X-Try", str(count))
        return call.best_response(otherwise=Reject(480))

    @policy.on_route("withheld")
    def withheld(rule: ChosenRule) -> Verdict:
        rule.remove_header("P-Asserted-Identity")
        rule.set_from("sip:anonymous@anonymous.invalid", "Anonymous")
        return CONTINUE

    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "a,b,c"}, handlers={"49": "withheld"})
        sent = edge.receive(request("INVITE", "sip:4930@x", headers={"P-Asserted-Identity": "<sip:+4912@core>"}), CORE)
        for count in range(3):
            assert sent.header("From").startswith('"Anonymous" <sip:anonymous@anonymous.invalid>')
            assert (sent.header("X-Try"), sent.header("P-Asserted-Identity")) == (str(count), None)
            sent = next((next_ for next_ in edge.respond(sent, 503) if next_.first_line.startswith("INVITE")), sent)


def test_a_rule_reached_by_fall_back_asks_its_own_handler_and_a_running_handler_goes_on() -> None:
    policy, asked = policy_with()
    seen: list[int] = []

    @policy.on_request("INVITE")
    async def route(call: Call) -> Verdict:
        call.set_header("X-First", "1")
        seen.extend([failure.status_code async for failure in call.route(fall_back=True)])
        return call.best_response(otherwise=Reject(480))

    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"493": "c", "49": "a"}, handlers={"49": "premium"})
        first = edge.receive(request("INVITE", "sip:4930@x"), CORE)
        assert (first.to, first.header("X-Rate")) == ("203.0.113.3:5060", None)
        second = next(sent for sent in edge.respond(first, 503) if sent.first_line.startswith("INVITE"))
        assert (second.to, second.header("X-Rate"), second.header("X-First")) == ("203.0.113.1:5060", "9", "1")
        assert edge.respond(second, 486)[-1].status_code == 486
        assert (seen, [name for name, *_ in asked]) == ([503, 486], ["premium"])


def test_a_caller_who_gives_up_while_a_handler_thinks_is_gone() -> None:
    policy = Policy()

    @policy.on_route("slow")
    async def slow(_: ChosenRule) -> Verdict:
        await asyncio.sleep(60)
        return CONTINUE

    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"": "a"}, handlers={"": "slow"})
        invite = request("INVITE", "sip:1@x", call_id="gone").decode()
        edge.receive(invite, CORE)
        cancel = invite.replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL")
        edge.receive(cancel, CORE)
        assert {sent.status_code for sent in edge.sent} >= {200, 487}
        # And one whose handler does not come to an end gets what the configuration says.
        edge.receive(request("INVITE", "sip:1@x", call_id="late"), CORE)
        assert edge.advance(1.1)[-1].status_code == 500


def test_names_that_no_rule_can_have_are_refused() -> None:
    with pytest.raises(PolicyError, match="expected a name"):
        Policy().on_route("a b")
