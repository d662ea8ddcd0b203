"""What a handler sees of an attempt that failed."""

from edgeproxy.policy.call import Failure


def test_contacts_of_a_redirection_are_told_apart_from_names_and_parameters() -> None:
    lines = (
        'Contact: "Sales, <sip:no@b>" <sip:a@b;x=1>;q=0.5, sip:c@d;q=1',
        "Contact: <sip:broken, <sip:f@g>",
        "m: <mailto:x@y>, <sip:e@[::1]:5070>",
    )
    failure = Failure("core", 302, "SIP/2.0 302 Moved Temporarily\r\n" + "\r\n".join(lines) + "\r\n\r\n")
    assert [str(uri) for uri in failure.contacts] == ["sip:a@b;x=1", "sip:c@d", "mailto:x@y", "sip:e@[::1]:5070"]
    assert Failure("core", 408).contacts == []
