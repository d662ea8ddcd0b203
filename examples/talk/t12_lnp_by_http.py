"""T12: the routing number of a ported number, asked over HTTP with a deadline of one second."""

import msgspec

from edgeproxy.policy import Call, LookupFailed, Policy, Reject, Verdict


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What the file says."""

    url: str
    """The service; it gets `no` and answers with a JSON object that may have `lrn`."""


policy = Policy(options=Options)


@policy.on_request("INVITE", peer="asterisk")
async def dip_then_route(call: Call, options: Options) -> Verdict:
    """Route by the number that the service names, else by the one dialled."""
    number = call.request_uri.user
    try:
        answer = await call.http_json(options.url, params={"no": number}, deadline_seconds=1)
        number = answer.get("lrn") or number
    except LookupFailed as error:
        call.note("lnp", str(error))
    async for failure in call.route(number):
        if failure.status_code in (404, 486, 603):
            break
    return call.best_response(otherwise=Reject(480, "PSTN Not Available"))
