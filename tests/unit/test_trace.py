"""How a trace is drawn and masked."""

from edgeproxy.admin.trace import Ladder, Step, masked


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
