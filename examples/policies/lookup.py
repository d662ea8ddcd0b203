"""Ask an HTTP service where a number was ported to, and route as dialled where it does not answer.

To try it: edgeproxy run examples/policies/lookup.toml
"""

import msgspec

from edgeproxy.policy import CONTINUE, Call, LookupFailed, Policy, Verdict


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """Where to ask."""

    url: str


policy = Policy(options=Options)


@policy.on_request("INVITE", peer="core")
async def dip(call: Call, options: Options) -> Verdict:
    """Replace the number by its routing number; the target stays what the file says."""
    number = call.request_uri.user
    try:
        answer = await call.http_json(options.url, params={"number": number}, deadline_seconds=0.5)
    except LookupFailed:
        call.note("lnp", "failed")
        return CONTINUE
    if routing_number := answer.get("lrn"):
        call.set_request_uri(f"sip:{routing_number}@{call.request_uri.host}")
        call.note("lnp", str(routing_number))
    return CONTINUE
