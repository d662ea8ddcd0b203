"""`call.route` through the simulated edge."""

from edgeproxy.policy import Call, Policy, Reject, Verdict
from edgeproxy.testing import SimulatedEdge, request

CONFIGURATION = """
[install.listener.public]
address = "udp:192.0.2.1:5060"
[peer.core]
kind = "core"
match = ["198.51.100.1"]
to = ["sip:198.51.100.1"]
[peer.pstn]
kind = "gateway"
gateway_types = [-1]
[peer.subscribers]
kind = "subscribers"
match = ["*;listener=public"]
[route.pstn]
group = 0
first_answer_seconds = 2
"""
GATEWAYS = {"a": "203.0.113.1", "b": "203.0.113.2:5070", "c": "203.0.113.3"}


def routed(*stops: int, **options: object) -> tuple[Policy, list[tuple[str, int]]]:
    policy = Policy()
    seen: list[tuple[str, int]] = []

    @policy.on_request("INVITE")
    async def route(call: Call) -> Verdict:
        async for failure in call.route(call.request_uri.user.removeprefix("9"), **options):  # type: ignore[arg-type]
            seen.append((failure.target, failure.status_code))
            if failure.status_code in stops:
                break
        return call.best_response(otherwise=Reject(480, "PSTN Not Available"))

    return policy, seen


def test_gateways_are_tried_as_long_as_the_loop_goes_on() -> None:
    policy, seen = routed(486)
    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "a,b,c"})
        first = edge.receive(request("INVITE", "sip:94930@example.net"))
        assert (first.to, first.first_line) == ("203.0.113.1:5060", "INVITE sip:4930@203.0.113.1 SIP/2.0")
        edge.advance(2.1)
        second = edge.sent[-1]
        assert second.to == "203.0.113.2:5070"
        answer = edge.respond(second, 486)[-1]
        assert answer.status_code == 486
        assert seen == [("a", 408), ("b", 486)]


def test_an_answer_ends_the_loop_and_the_record_names_the_gateway() -> None:
    policy, seen = routed()
    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "#one"}, {"one": "a,c"})
        first = edge.receive(request("INVITE", "sip:4930@example.net"))
        second = edge.respond(first, 503)[-1]
        assert second.to == "203.0.113.3:5060"
        assert edge.respond(second, 200)[-1].status_code == 200
        assert seen == [("a", 503)]


def test_without_a_rule_or_a_gateway_the_loop_ends_at_once() -> None:
    for options in ({}, {"group": 7}, {"whitelist": ("b",)}, {"whole_number": True}):
        policy, seen = routed(**options)
        with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
            edge.provision(GATEWAYS, {"49": "a"})
            number = "4930" if options else "33"
            refused = edge.receive(request("INVITE", f"sip:{number}@example.net"))
            assert (refused.status_code, refused.first_line) == (480, "SIP/2.0 480 PSTN Not Available")
        assert seen == []


def test_a_route_that_is_not_there_is_the_fault_of_the_policy() -> None:
    policy, _ = routed(route="other")
    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "a"})
        assert edge.receive(request("INVITE", "sip:4930@example.net")).status_code == 500
