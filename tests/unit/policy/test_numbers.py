"""Numbers and names that a policy gives a call."""

import pytest

from edgeproxy.policy import CONTINUE, Call, Policy, Verdict
from edgeproxy.testing import SimulatedEdge, request

CONFIGURATION = """
[install.listener.public]
address = "udp:192.0.2.1:5060"
[peer.core]
kind = "core"
match = ["198.51.100.1"]
to = ["sip:198.51.100.1"]
route = "pstn"
[peer.pstn]
kind = "gateway"
gateway_types = [-1]
[route.pstn]
"""
GATEWAYS = {"a": "203.0.113.1", "b": "203.0.113.2:5070"}
CORE = "198.51.100.1:5060"


@pytest.mark.parametrize(
    ("given", "display_name", "uri", "wanted"),
    [
        ('"Al \\"A\\" \\\\" <sip:a@b>', None, "sip:+49@edge", '"Al \\"A\\" \\\\" <sip:+49@edge>'),
        ("Alice A <sip:a@b>", None, "sip:c@d", '"Alice A" <sip:c@d>'),
        ("sip:a@b", 'Doe "J" \\', "", '"Doe \\"J\\" \\\\" <sip:a@b>'),
        ('"Al" <sip:a@b>', "", "", "<sip:a@b>"),
        ("<sip:a@b>", None, "", "<sip:a@b>"),
    ],
)
def test_from_gets_a_name_and_a_uri_and_the_caller_sees_its_own(given: str, display_name: str | None, uri: str, wanted: str) -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    def named(call: Call) -> Verdict:
        call.set_from(uri, display_name)
        return CONTINUE

    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"": "a"})
        text = request("INVITE", "sip:4930@edge").decode().replace("From: <sip:alice@example.net>", f"From: {given}")
        sent = edge.receive(text, CORE)
        assert sent.header("From").split(";tag=")[0] == wanted
        assert edge.respond(sent, 486)[-1].header("From").split(";tag=")[0] == given
        assert edge.failures == []


def test_a_routing_number_finds_the_rule_and_the_gateway_gets_what_was_dialled() -> None:
    policy = Policy()
    seen: list[str] = []

    @policy.on_request("INVITE")
    async def ported(call: Call) -> Verdict:
        call.set_routing_number("1555")
        seen.append(call.gateway)
        if call.request_uri.user == "4931":
            async for _ in call.route():
                pass
            return call.best_response()
        return CONTINUE

    with SimulatedEdge(policy, configuration=CONFIGURATION) as edge:
        edge.provision(GATEWAYS, {"49": "a", "1": "b"})
        assert [edge.receive(request("INVITE", f"sip:{number}@edge"), CORE).first_line for number in (4930, 4931)] == [
            "INVITE sip:4930@203.0.113.2:5070 SIP/2.0",
            "INVITE sip:4931@203.0.113.2:5070 SIP/2.0",
        ]
        assert edge.receive(request("INVITE", "sip:4930@edge"), "203.0.113.2:5070").to == CORE
        assert seen == ["", "", "b"]
