"""SIPp scenarios as lists of steps, so that a new flow is a few lines and not a page of XML."""

from dataclasses import dataclass

SDP = """
v=0
o=user 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
"""


@dataclass(frozen=True)
class Step:
    """One element of a scenario."""

    xml: str


def _message(lines: list[str], body: str = "", attributes: str = "") -> Step:
    content = "Content-Type: application/sdp\n" if body else ""
    text = "\n".join(lines) + f"\n{content}Content-Length: [len]\n{body}"
    return Step(f"<send{attributes}><![CDATA[\n{text}\n]]></send>")


def request(method: str, cseq: int, *, dialog: bool = False, body: str = "", extra: tuple[str, ...] = ()) -> Step:
    """Send a request: the first of a dialog, or with `dialog` one that follows its route set."""
    uri = "[next_url]" if dialog else "sip:[service]@[remote_ip]:[remote_port]"
    lines = [
        f"{method} {uri} SIP/2.0",
        "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
        *(["[routes]"] if dialog else []),
        "From: sipp <sip:sipp@[local_ip]:[local_port]>;tag=[pid]c[call_number]",
        "To: sut <sip:[service]@[remote_ip]:[remote_port]>" + ("[peer_tag_param]" if dialog else ""),
        "Call-ID: [call_id]",
        f"CSeq: {cseq} {method}",
        "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>",
        "Max-Forwards: 70",
        *extra,
    ]
    return _message(lines, body, ' retrans="500"' if method != "ACK" else "")


def cancel() -> Step:
    """Send the CANCEL of the INVITE that was answered last."""
    return _of_invite("CANCEL", "To: sut <sip:[service]@[remote_ip]:[remote_port]>")


def refusal_ack() -> Step:
    """Send the ACK of a refusal that was the last answer."""
    return _of_invite("ACK", "[last_To:]")


def _of_invite(method: str, to: str) -> Step:
    """Send what has the branch of its INVITE."""
    lines = [
        f"{method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0",
        "[last_Via:]",
        "From: sipp <sip:sipp@[local_ip]:[local_port]>;tag=[pid]c[call_number]",
        to,
        "Call-ID: [call_id]",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
    ]
    return _message(lines)


def response(status: str, *, body: str = "", extra: tuple[str, ...] = (), retransmit: bool = False, lost: bool = True) -> Step:
    """Send a response to the last request received; where `lost` is not set it gets through whatever SIPp's -lost says."""
    lines = [
        f"SIP/2.0 {status}",
        "[last_Via:]",
        "[last_Record-Route:]",
        "[last_From:]",
        "[last_To:]" + ("" if status.startswith("100") else ";tag=[pid]s[call_number]"),
        "[last_Call-ID:]",
        "[last_CSeq:]",
        "Contact: <sip:sut@[local_ip]:[local_port];transport=[transport]>",
        *extra,
    ]
    return _message(lines, body, (' retrans="500"' if retransmit else "") + ("" if lost else ' lost="0"'))


def answer(status: str = "200 OK", *, body: str = "", extra: tuple[str, ...] = ()) -> Step:
    """Send a response to an in-dialog request, whose To has its tag."""
    lines = [
        f"SIP/2.0 {status}",
        "[last_Via:]",
        "[last_Record-Route:]",
        "[last_From:]",
        "[last_To:]",
        "[last_Call-ID:]",
        "[last_CSeq:]",
        "Contact: <sip:sut@[local_ip]:[local_port];transport=[transport]>",
        *extra,
    ]
    return _message(lines, body)


def receive(what: str | int, *, optional: bool = False, route_set: bool = False, timeout: int = 8_000) -> Step:
    """Wait for a request by method or a response by code."""
    kind = "response" if isinstance(what, int) else "request"
    attributes = f'{kind}="{what}"' + (' optional="true"' if optional else f' timeout="{timeout}"')
    kept = ' rrs="true"' if route_set else ""
    return Step(f"<recv {attributes}{kept}/>")


def pause(milliseconds: int) -> Step:
    """Wait."""
    return Step(f'<pause milliseconds="{milliseconds}"/>')


def linger(milliseconds: int) -> Step:
    """Answer what is retransmitted after the last step, for so long."""
    return Step(f'<timewait milliseconds="{milliseconds}"/>')


def receive_and_keep(method: str) -> Step:
    """Wait for a request that came over one proxy and keep its two Via fields and its CSeq for `answer_kept`."""
    headers = (("Via:", 1), ("Via:", 2), ("CSeq:", 1))
    kept = "".join(
        f'<ereg regexp=".*" search_in="hdr" header="{header}" occurrence="{occurrence}" check_it="true" assign_to="{variable}"/>'
        for variable, (header, occurrence) in enumerate(headers, 1)
    )
    return Step(f'<recv request="{method}"><action>{kept}</action></recv>')


def answer_kept(status: str, body: str) -> Step:
    """Send the final response to the request kept, whatever came after it."""
    lines = [
        f"SIP/2.0 {status}",
        "Via:[$1]",
        "Via:[$2]",
        "[last_From:]",
        "[last_To:]",
        "[last_Call-ID:]",
        "CSeq:[$3]",
        "Contact: <sip:sut@[local_ip]:[local_port];transport=[transport]>",
    ]
    return _message(lines, body, ' retrans="500"')


def render(steps: list[Step], name: str) -> str:
    """Return the scenario as SIPp reads it."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="{name}">\n' + "\n".join(s.xml for s in steps) + "\n</scenario>\n"
