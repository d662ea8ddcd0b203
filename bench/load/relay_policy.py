"""Decides every INVITE of the load: reads Request-URI, From and one header field, sets one, and picks a target."""

from edgeproxy.policy import Call, Policy, Relay

policy = Policy()
TARGETS = {"service": ("sip:127.0.0.1:5070",)}


@policy.on_request("INVITE")
def decide(call: Call) -> Relay:
    """Send calls for the service to the callee."""
    uri = call.request_uri
    call.set_header("X-Decided", f"{call.from_uri.user} {call.header('Subject')}")
    return Relay(TARGETS[uri.user])
