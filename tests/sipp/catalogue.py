"""Our scenarios: what the caller does and what the callee does, by name."""

from dataclasses import dataclass

from tests.sipp.steps import (
    SDP,
    Step,
    answer,
    answer_kept,
    cancel,
    linger,
    pause,
    receive,
    receive_and_keep,
    refusal_ack,
    render,
    request,
    response,
)


@dataclass(frozen=True)
class Flow:
    """One scenario; a callee without steps does not answer at all."""

    caller: list[Step]
    callee: list[Step]

    def xml(self, name: str) -> tuple[str, str]:
        """Return caller's and callee's scenario as SIPp reads them."""
        return render(self.caller, f"{name}-caller"), render(self.callee, f"{name}-callee")


RING = [receive(100, optional=True), receive(180, optional=True), receive(183, optional=True)]
ANSWERED = [receive("INVITE"), response("180 Ringing"), response("200 OK", body=SDP, retransmit=True), receive("ACK")]
BYE = [receive("BYE"), answer()]
CALL = [request("INVITE", 1, body=SDP), *RING, receive(200, route_set=True), request("ACK", 1, dialog=True)]
HANG_UP = [request("BYE", 9, dialog=True), receive(200)]


def _in_dialog(method: str, **options: str) -> Flow:
    return Flow(
        [*CALL, request(method, 2, dialog=True, **options), receive(200), *HANG_UP],
        [*ANSWERED, receive(method), answer(body=options.get("body", "")), *BYE],
    )


def _single(method: str, *extra: str) -> Flow:
    return Flow([request(method, 1, extra=extra), receive(200)], [receive(method), response("200 OK")])


def _refused(status: str) -> Flow:
    return Flow(
        [request("INVITE", 1, body=SDP), *RING, receive(int(status[:3])), refusal_ack()],
        [receive("INVITE"), response(status, retransmit=True), receive("ACK")],
    )


FLOWS = {
    "answered": Flow([*CALL, pause(50), *HANG_UP], [*ANSWERED, *BYE]),
    # Under loss both sides must answer what the other repeats after the last step.
    # SIPp takes an INVITE for a new one, and gives the call up, where every answer to the first was lost on the way out.
    "lossy": Flow(
        [*CALL, pause(50), *HANG_UP, linger(1_000)],
        [receive("INVITE"), response("180 Ringing", lost=False), *ANSWERED[2:], *BYE, linger(8_000)],
    ),
    "prack": Flow(
        [
            request("INVITE", 1, body=SDP, extra=("Supported: 100rel",)),
            receive(100, optional=True),
            receive(183, route_set=True),
            request("PRACK", 2, dialog=True, extra=("RAck: 1 1 INVITE",)),
            receive(200),
            receive(200),
            request("ACK", 1, dialog=True),
            *HANG_UP,
        ],
        [
            receive_and_keep("INVITE"),
            response("183 Session Progress", body=SDP, extra=("Require: 100rel", "RSeq: 1"), retransmit=True),
            receive("PRACK"),
            answer(),
            answer_kept("200 OK", SDP),
            receive("ACK"),
            *BYE,
        ],
    ),
    "busy": _refused("486 Busy Here"),
    "declined": _refused("603 Decline"),
    "cancelled": Flow(
        [
            request("INVITE", 1, body=SDP),
            receive(100, optional=True),
            receive(180),
            cancel(),
            receive(200),
            receive(487),
            refusal_ack(),
        ],
        [
            receive("INVITE"),
            response("180 Ringing"),
            receive("CANCEL"),
            answer(),
            Step(
                '<send retrans="500"><![CDATA[\nSIP/2.0 487 Request Terminated\n[last_Via:]\n[last_From:]\n[last_To:];tag=[pid]s[call_number]\n'
                "[last_Call-ID:]\nCSeq: 1 INVITE\nContent-Length: 0\n\n]]></send>"
            ),
            receive("ACK"),
        ],
    ),
    "reinvite": Flow(
        [
            *CALL,
            request("INVITE", 2, dialog=True, body=SDP),
            *RING,
            receive(200),
            request("ACK", 2, dialog=True),
            *HANG_UP,
        ],
        [*ANSWERED, receive("INVITE"), answer(body=SDP), receive("ACK"), *BYE],
    ),
    "update": _in_dialog("UPDATE", body=SDP),
    "info": _in_dialog("INFO"),
    "refer": _in_dialog("REFER"),
    "message": _single("MESSAGE"),
    "options": _single("OPTIONS"),
    "register": _single("REGISTER", "Expires: 600"),
    "subscribe": _single("SUBSCRIBE", "Event: presence", "Expires: 600"),
    "publish": _single("PUBLISH", "Event: presence", "Expires: 600"),
}
