"""A core that authenticates and registers itself, behind the real process: REGISTER goes there, and calls of the core find the phone."""

import json
from collections.abc import Callable

from tests.integration.agent import Agent, answer, values
from tests.integration.proxy import Proxy, free_port, manage, wait_for

TOML = """
[install]
state_directory = "STATE"
[install.listener.public]
address = "udp:127.0.0.1:{port}"
[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = ["sip:127.0.0.1:{core}"]
[peer.phones]
kind = "subscribers"
match = ["*;listener=public"]
[registrar]
domains = ["voice.example"]
mode = "path"
upstream_expires_seconds = 14400
persist = false
"""


def register(port: int, cseq: int, expires: int) -> str:
    return (
        f"REGISTER sip:voice.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKreg{cseq}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:bob@voice.example>;tag=a\r\nTo: <sip:bob@voice.example>\r\nCall-ID: edge-mode\r\nCSeq: {cseq} REGISTER\r\n"
        f"Contact: <sip:bob@127.0.0.1:{port}>\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n"
    )


def test_a_core_registers_and_calls_a_phone_by_the_way_that_it_was_given(start_proxy: Callable[..., Proxy]) -> None:
    with Agent() as phone, Agent() as core:
        port = free_port()
        proxy = start_proxy(TOML.format(port=port, core=core.port))
        phone.send(register(phone.port, 1, 600), port)
        request = core.receive_until("REGISTER")
        assert values(request, "Expires") == ["14400"]
        (path,) = values(request, "Path")
        # What it wants is more than we ask for, whatever the phone does next.
        core.send(answer(request, "423 Interval Too Brief").replace("Content-Length", "Min-Expires: 20000\r\nContent-Length"), port)
        assert phone.receive_until("SIP/2.0 423")
        wanted = (
            "the core wants registrations of 20000 s at least, and registrar.upstream_expires_seconds is 14400: nobody can register there"
        )
        wait_for(lambda: wanted in [line["event"] for line in proxy.log])
        phone.send(register(phone.port, 2, 600), port)
        request = core.receive_until("REGISTER")
        granted = f"Contact: <sip:bob@127.0.0.1:{phone.port}>;expires=14400\r\nContent-Length"
        core.send(answer(request, "200 OK").replace("Content-Length", granted), port)
        ok = phone.receive_until("SIP/2.0 200")
        assert values(ok, "Contact")[0].endswith("expires=600")
        assert values(ok, "Path") == []
        code, said = manage(proxy, "location", "show", "bob@voice.example", "--json")
        assert (code, [row["contact"] for row in json.loads(said)["bindings"]]) == (0, [f"sip:bob@127.0.0.1:{phone.port}"])
        core.send(
            f"INVITE sip:bob@127.0.0.1:{phone.port} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{core.port};branch=z9hG4bKcall\r\nMax-Forwards: 70\r\n"
            f"Route: {path}\r\nFrom: <sip:al@voice.example>;tag=c\r\nTo: <sip:bob@voice.example>\r\nCall-ID: called\r\nCSeq: 1 INVITE\r\n"
            f"Contact: <sip:al@127.0.0.1:{core.port}>\r\nContent-Length: 0\r\n\r\n",
            port,
        )
        invited = phone.receive_until("INVITE")
        assert invited.startswith(f"INVITE sip:bob@127.0.0.1:{phone.port} ")
        phone.send(answer(invited, "486 Busy Here"), port)
        assert core.receive_until("SIP/2.0 486")
