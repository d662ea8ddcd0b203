"""Try two gateways in order and say why both failed.

To try it: edgeproxy run examples/policies/attempts.toml
"""

from edgeproxy.policy import Call, Policy, Reject, Verdict

policy = Policy()
GATEWAYS = ["sip:127.0.0.1:5071", "sip:127.0.0.1:5072"]


@policy.on_request("INVITE", peer="core")
async def outbound(call: Call) -> Verdict:
    """Stop where the callee is busy or declines: another gateway reaches the same phone."""
    async for failure in call.attempts(GATEWAYS, first_answer_seconds=2.0):
        call.note(failure.target, str(failure.status_code))
        if failure.status_code in {486, 600, 603}:
            break
    return call.best_response(otherwise=Reject(480, "PSTN Not Available"))
