"""How a trace is drawn and masked."""

import time

import pytest

from edgeproxy.admin.masking import masked
from edgeproxy.admin.trace import Ladder, Repeats, Step


def step(kind: str, microseconds: int, text: str, **fields: object) -> Step:
    return Step(time="T", microseconds=microseconds, kind=kind, call_id="c1", text=text, transport="udp", **fields)  # type: ignore[arg-type]


def test_a_ladder_has_the_caller_on_the_left() -> None:
    ladder = Ladder()
    lines = [
        line
        for one in (
            step("received", 1_000_000, "INVITE sip:bob@x SIP/2.0", remote="192.0.2.7:5060"),
            step("decision", 1_000_100, "identify: INVITE from peer phones"),
            step("sent", 1_000_200, "INVITE sip:bob@x SIP/2.0", remote="10.0.0.1:5060"),
            step("sent", 1_500_200, "INVITE sip:bob@x SIP/2.0", remote="10.0.0.1:5060", repeated=True),
            step("received", 1_600_000, "SIP/2.0 200 OK", remote="10.0.0.1:5060"),
            step("sent", 1_600_010, "SIP/2.0 200 OK", remote="192.0.2.7:5060"),
        )
        for line in ladder.lines(one)
    ]
    assert [line.strip() for line in lines if "call c1" in line] == ["T  call c1"]
    left = "INVITE sip:bob@x -->"
    assert lines[3] == f"    +0.000000 {left:>44} |"
    assert lines[4].endswith("* identify: INVITE from peer phones")
    assert lines[5].endswith("| --> INVITE sip:bob@x   udp 10.0.0.1:5060")
    assert lines[6].startswith("    +0.500200")
    assert lines[6].endswith("| --> INVITE sip:bob@x (again)   udp 10.0.0.1:5060")
    assert lines[7].endswith("| <-- 200 OK   udp 10.0.0.1:5060")
    assert lines[8] == f"    +0.600010 {'<-- 200 OK':44} |"


def test_masked_text_names_nobody() -> None:
    message = 'INVITE sip:+4930123@x SIP/2.0\r\nFrom: "Alice A." <sip:alice@x>;tag=1\r\nTo: <tel:+4930123>\r\nContact: <sip:10.0.0.1>\r\nDiversion: Bob Miller <sip:bob@x>\r\n'
    shown = masked(message)
    assert not any(name in shown for name in ("4930123", "alice", "Alice", "bob", "Miller"))
    assert "sip:***@x" in shown
    assert ";tag=1" in shown


@pytest.mark.parametrize(
    "secret",
    [
        "INVITE sip:ali,ce@x SIP/2.0\r\n",
        "INVITE sip:ali;ce?x@x SIP/2.0\r\n",
        'From: "Al \\"ali\\" ce" <sip:x@x>\r\n',
        "Contact: <sip:x@x>;q=1, Ali Ce <sip:y@y>\r\n",
        "From: Ali\r\n Ce\r\n <sip:x@x>;tag=1\r\n",
        "Reply-To: Ali Ce <sip:x@x>\r\n",
        "b: Ali Ce <sip:x@x>\r\n",
        "History-Info: Ali Ce <sip:x@x>;index=1\r\n",
        "P-Called-Party-ID: Ali Ce <sip:x@x>\r\n",
        'Authorization: Digest username="ali ce", realm="x"\r\n',
        "Proxy-Authorization: Digest realm=x, username=alice\r\n",
        "Subject: ali ce calls\r\n",
        "policy: route alice after 12 us",
        "\r\n\r\nINVITE sip:b@x SIP/2.0\r\nFrom: Ali Ce <sip:x@x>\r\n",
        "Refer-To: <sip:b@x?From=alice%40x&Subject=alice>\r\n",
        "To: <tel:7042;phone-context=alice>\r\n",
        "Contact: sip:b@x,sip:ali@y,sip:ce@z\r\n",
        "Identity: eyalicejhbGci.OiJF;info=<https://x>\r\n",
        "X-Account: alice\r\n",
        "P-Charging-Vector: icid-value=alice\r\n",
    ],
)
def test_whatever_may_tell_a_name_is_masked(secret: str) -> None:
    text = secret if secret.startswith("policy") else f"{secret}CSeq: 1 INVITE\r\n\r\no=alice 1\r\n"
    # Datagrams may have bare line feeds.
    for shown in (masked(text).lower(), masked(text.replace("\r\n", "\n")).lower()):
        assert not any(part in shown for part in ("ali", "ce@", "ce <", '"ce'))
        assert "***" in shown


def test_what_is_cut_short_is_masked_as_the_whole() -> None:
    assert masked("INVITE sip:b@x SIP/2.0\r\nX-Account: alice\r\nCSeq: 1 IN") == "INVITE sip:***@x SIP/2.0\r\nX-Account: ***\r\nCSeq: 1 IN"
    assert masked("identify: INVITE from peer phones") == "identify: INVITE from peer phones"


def test_whatever_is_masked_takes_time_by_its_length_alone() -> None:
    begun = time.monotonic()
    for unit in ("a:", '\\"', "sip:", "sip:a@", "sip:?", '"', "<", ",", "\r\n ", "tel:", 'username="', "o=", "=", "@", "\n"):
        for before in ("Contact: ", 'X: "', "Authorization: ", "", "To: <"):
            masked(before + unit * (64_000 // len(unit)))
    assert time.monotonic() - begun < 10


def test_sdp_is_masked_and_what_nobody_is_named_in_stays() -> None:
    head = 'SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nWWW-Authenticate: Digest realm="x", nonce="abc"\r\nContent-Type: application/sdp\r\n'
    body = "v=0\r\no=alice 1 2 IN IP4 192.0.2.7\r\ns=Alice calls\r\ni=about alice\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendrecv\r\n"
    shown = masked(f"{head}\r\n{body}")
    assert shown == f"{head}\r\n" + body.replace("o=alice", "o=***").replace("s=Alice calls", "s=***").replace("i=about alice", "i=***")
    assert masked("v=0\r\n\r\no=- 1 2 IN IP4 x\r\ns=-\r\n").endswith("o=*** 1 2 IN IP4 x\r\ns=-\r\n")


def test_retransmissions_are_known_over_several_answers() -> None:
    repeats = Repeats()
    first, again = (step("received", at, "INVITE sip:bob@x SIP/2.0", remote="192.0.2.7:5060", branch="z9hG4bK1") for at in (1, 2))
    other = step("received", 3, "INVITE sip:bob@x SIP/2.0", remote="192.0.2.7:5060", branch="z9hG4bK2")
    decision = step("decision", 4, "identify: INVITE from peer phones")
    assert [repeats.marked(one).repeated for one in (first, again, other, decision, decision)] == [False, True, False, False, False]
