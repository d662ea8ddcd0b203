"""Ending a call by command: both sides are told, whatever state it is in."""

from collections.abc import Callable

from tests.integration.agent import Agent, answer, call, invite, values
from tests.integration.proxy import Proxy, manage

Local = Callable[..., tuple[Proxy, int, int]]


def test_both_sides_of_an_answered_call_get_a_bye(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, workers=2)
        upstream = f"Record-Route: <sip:127.0.0.1:{caller.port};lr;up>\r\n"
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="ended", branch="ended", extra=upstream), port)
        request = core.receive_until("INVITE")
        contact = f"Contact: <sip:callee@127.0.0.1:{core.port};x=1>\r\nContent-Length"
        # The callee's own proxy stands on top.
        down = f"Record-Route: <sip:127.0.0.1:{core.port};lr;down>\r\nRecord-Route"
        ok = answer(request, "200 OK").replace("Content-Length", contact).replace("Record-Route", down, 1)
        core.send(ok, port)
        assert caller.receive_until("SIP/2.0 200")
        code, text = manage(proxy, "end-call", "ended")
        assert (code, '"ended": 1' in text) == (0, True)
        to_callee, to_caller = core.receive_until("BYE"), caller.receive_until("BYE")
        assert to_callee.startswith(f"BYE sip:callee@127.0.0.1:{core.port};x=1 SIP/2.0\r\n")
        assert to_caller.startswith(f"BYE sip:a@127.0.0.1:{caller.port} SIP/2.0\r\n")
        assert values(to_callee, "From") == ["<sip:a@127.0.0.1>;tag=a"]
        assert values(to_callee, "To") == ["<sip:b@127.0.0.1>;tag=callee"]
        assert values(to_caller, "From") == ["<sip:b@127.0.0.1>;tag=callee"]
        assert values(to_callee, "CSeq") == ["2 BYE"]
        assert values(to_callee, "Route") == [f"<sip:127.0.0.1:{core.port};lr;down>"]
        assert values(to_caller, "Route") == [f"<sip:127.0.0.1:{caller.port};lr;up>"]
        assert len(values(to_callee, "Via")) == 1
        core.send(answer(to_callee, "200 OK"), port)
        caller.send(answer(to_caller, "200 OK"), port)
        (record,) = proxy.records()
        assert (record["outcome"], record["ended_by"]) == ("answered", "proxy")
        # Answered, so nothing is sent again.
        assert not core.receive_until("BYE", 0.8)
        assert manage(proxy, "end-call", "ended") == (1, "no live call ended\n")


def test_a_call_that_rings_is_cancelled_and_the_caller_told(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="rings", branch="rings"), port)
        request = core.receive_until("INVITE")
        core.send(answer(request, "180 Ringing"), port)
        assert caller.receive_until("SIP/2.0 180")
        assert manage(proxy, "end-call", "rings")[0] == 0
        cancel = core.receive_until("CANCEL")
        core.send(answer(cancel, "200 OK"), port)
        core.send(answer(request, "487 Request Terminated"), port)
        assert caller.receive_until("SIP/2.0 480")
        (record,) = proxy.records()
        assert (record["outcome"], record["status_code"]) == ("failed", 480)


def test_a_call_of_which_too_little_is_known_goes_on(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        # The 2xx of this helper has no Contact.
        call(caller, core, port, "unknown")
        code, text = manage(proxy, "end-call", "unknown")
        assert (code, "1 of 1 calls cannot be ended" in text) == (1, True)
        assert '"unknown"' in manage(proxy, "calls", "unknown")[1]


def test_who_moved_within_the_dialog_is_told_at_its_new_place(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="moved", branch="moved"), port)
        contact = f"Contact: <sip:first@127.0.0.1:{core.port}>\r\nContent-Length"
        core.send(answer(core.receive_until("INVITE"), "200 OK").replace("Content-Length", contact), port)
        ok = caller.receive_until("SIP/2.0 200")
        routes = "".join(f"Route: {route}\r\n" for route in reversed(values(ok, "Record-Route")))
        again = invite(
            "INVITE", caller.port, f"sip:first@127.0.0.1:{core.port}", to_tag="callee", call_id="moved", branch="again", extra=routes
        )
        caller.send(again.replace("CSeq: 1", "CSeq: 41").replace("<sip:a@127.0.0.1:", "<sip:elsewhere@127.0.0.1:"), port)
        request = core.receive_until("INVITE", having="CSeq: 41")
        core.send(answer(request, "200 OK").replace("Content-Length", contact.replace("first", "second")), port)
        assert caller.receive_until("SIP/2.0 200", having="CSeq: 41")
        assert manage(proxy, "end-call", "moved")[0] == 0
        to_callee, to_caller = core.receive_until("BYE"), caller.receive_until("BYE")
        assert to_callee.startswith("BYE sip:second@")
        assert to_caller.startswith("BYE sip:elsewhere@")
        assert values(to_callee, "CSeq") == ["42 BYE"]
