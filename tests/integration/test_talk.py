"""The talk's snippets as our examples do them."""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration import brokers
from tests.integration.agent import Agent, answer, invite, values
from tests.integration.phone import Phone
from tests.integration.proxy import Proxy, free_port, manage
from tests.integration.rtp import Talker, place, sdp

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "talk"


def test_t1_converts_tcp_to_udp_and_back(start_proxy: Callable[..., Proxy], run_flow: Callable[..., None]) -> None:
    port, core = free_port(), free_port()
    toml = (EXAMPLES / "t1-protocol-conversion.toml").read_text().replace("5060", str(port)).replace("5070", str(core))
    proxy = start_proxy(toml.replace("[install.listener.public]", '[install]\nstate_directory = "STATE"\n[install.listener.public]', 1))
    for name in ("answered", "reinvite", "cancelled"):
        run_flow(name, port, core, caller="t1", callee="u1")
    assert {record["from_peer"] for record in proxy.records(15)} == {"phones"}
    # What the script lets through: a forged To tag with a Route of the sender's own choice.
    with Agent() as stranger, Agent() as gateway:
        route = f"Route: <sip:127.0.0.1:{port};lr>, <sip:127.0.0.1:{gateway.port};lr>\r\n"
        stranger.send(invite("INVITE", stranger.port, "sip:+1900@gateway", to_tag="forged", extra=route), port)
        assert stranger.receive().startswith("SIP/2.0 403")
        assert gateway.receive(0.5) == ""


def _users(start_proxy: Callable[..., Proxy], name: str) -> tuple[Proxy, int]:
    port = free_port()
    toml = (EXAMPLES / name).read_text().replace("127.0.0.1:5060", f"127.0.0.1:{port}").replace('"var"', '"STATE"')
    proxy = start_proxy(toml)
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute("INSERT INTO subscriber (username, password) VALUES ('alice', 'secret')")
    database.close()
    return proxy, port


def test_t2_reaches_a_phone_behind_a_nat_where_it_really_is(start_proxy: Callable[..., Proxy]) -> None:
    proxy, port = _users(start_proxy, "t2-nat.toml")
    with Phone("alice", port) as alice, Phone("bob", port) as bob:
        inside = "<sip:alice@10.1.2.3:5070>"
        assert alice.register(contact=inside).startswith("SIP/2.0 200")
        shown = json.loads(manage(proxy, "location", "show", "--json")[1])["bindings"][0]
        assert (shown["received"], shown["natted"]) == (f"sip:127.0.0.1:{alice.port}", True)
        bob.send(bob.request("INVITE", "sip:alice@edge.example", f"Contact: {bob.contact}", to="sip:alice@edge.example"), port)
        call = alice.receive_until("INVITE")
        assert call.startswith("INVITE sip:alice@10.1.2.3:5070 SIP/2.0")
        alice.send(answer(call, "200 OK").replace("Content-Length", f"Contact: {inside}\r\nContent-Length"), port)
        ok = bob.receive_until("SIP/2.0 200")
        remote = values(ok, "Contact")[0].strip("<>")
        tag = values(ok, "To")[0].split(";tag=")[1]
        bye = bob.request("BYE", remote, f"Route: {values(ok, 'Record-Route')[0]}", to="sip:alice@edge.example")
        bob.send(bye.replace("To: <sip:alice@edge.example>", f"To: <sip:alice@edge.example>;tag={tag}"), port)
        assert alice.receive_until("BYE").startswith("BYE sip:alice@10.1.2.3:5070 SIP/2.0")


def test_t3_leads_the_media_of_phones_behind_a_nat(start_proxy: Callable[..., Proxy]) -> None:
    _, port = _users(start_proxy, "t3-media.toml")
    with Phone("alice", port) as alice, Phone("bob", port) as bob, Talker() as near, Talker() as far:
        assert alice.register(contact="<sip:alice@10.1.2.3:5070>").startswith("SIP/2.0 200")
        lines = (f"Contact: {bob.contact}", "Content-Type: application/sdp")
        uri = "sip:alice@edge.example"
        bob.send(bob.request("INVITE", uri, *lines, to=uri, body=sdp("192.168.1.9", near.port)), port)
        call = alice.receive_until("INVITE")
        # What each phone says of itself is an address inside.
        head = answer(call, "200 OK").partition("Content-Length")[0]
        body = sdp("10.1.2.3", far.port)
        alice.send(f"{head}Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}", port)
        ok = bob.receive_until("SIP/2.0 200")
        # The media worker learns of the answer beside the 200: what is said before that may be lost.
        near.say("to alice", place(ok), count=10, pause=0.05)
        far.say("to bob", place(call), count=10, pause=0.05)
        assert (set(far.hears_all(1)), set(near.hears_all(1))) == ({"to alice"}, {"to bob"})


def test_t5_stops_who_guesses_and_nobody_else(start_proxy: Callable[..., Proxy]) -> None:
    proxy, port = _users(start_proxy, "t5-dictionary-attacks.toml")
    with Phone("alice", port, host="127.0.0.9") as guesser, Phone("alice", port) as alice:
        assert [guesser.register(f"guess {number}")[8:11] for number in range(21)] == ["401"] * 20 + ["403"]
        assert alice.register("secret").startswith("SIP/2.0 200")
    told = proxy.told("E_AUTH_ATTACK")
    assert [(event["scope"], event["ip"], event["user"], event["failures"]) for event in told] == [("pair", "127.0.0.9", "alice", 20)]


def test_t6_refuses_contacts_that_are_gateways(start_proxy: Callable[..., Proxy]) -> None:
    proxy, port = _users(start_proxy, "t6-register-poisoning.toml")
    with Phone("alice", port) as alice:
        for contact in ("<sip:alice@192.0.2.40>", "<sip:alice@192.0.2.40:9;transport=tcp>", f"<sip:alice@localhost:{port}>"):
            assert alice.register("secret", contact=contact).startswith("SIP/2.0 476 Contact Unacceptable"), contact
        assert alice.register("secret").startswith("SIP/2.0 200")
    assert len(proxy.told("E_REGISTER_POISONING", 3)) == 3


def _example(start_proxy: Callable[..., Proxy], name: str, core: Agent) -> tuple[Proxy, int]:
    port = free_port()
    toml = (EXAMPLES / name).read_text().replace("127.0.0.1:5060", f"127.0.0.1:{port}").replace("5070", str(core.port))
    return start_proxy(toml.replace('"var"', '"STATE"')), port


def test_t4_blocks_who_floods_and_never_the_core(start_proxy: Callable[..., Proxy]) -> None:
    with Agent() as core, Agent("127.0.0.9") as attacker, Agent("127.0.0.8") as phone:
        proxy, port = _example(start_proxy, "t4-floods.toml", core)
        for number in range(60):
            attacker.send("\r\n\r\n", port)
            core.send("\r\n\r\n", port)
            if number < 50:
                phone.send("\r\n\r\n", port)
        for _ in range(60):
            listed = json.loads(manage(proxy, "ban", "list", "--json")[1])["bans"]
            if listed:
                break
        assert [(ban["source"], ban["reason"]) for ban in listed] == [("127.0.0.9", "flood: 60 packets in 2 s")]
        phone.send(invite("INVITE", phone.port, "sip:49301@edge.example"), port)
        assert core.receive_until("INVITE")


def _ring(core: Agent, port: int) -> None:
    """Let it ring at the core until its socket is closed."""
    with contextlib.suppress(OSError):
        while request := core.receive(30):
            if request.startswith("INVITE"):
                core.send(answer(request, "180 Ringing"), port)


def test_t7_t8_limit_what_an_account_may_have(start_proxy: Callable[..., Proxy]) -> None:
    with Agent() as core:
        proxy, port = _example(start_proxy, "t7-t8-limits.toml", core)
        with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
            database.execute("INSERT INTO subscriber (username, password) VALUES ('alice', 'secret'), ('bob', 'secret')")
            database.execute("INSERT INTO usr_preferences (username, attribute, value) VALUES ('bob', 'account_max_concurrent', '1')")
        database.close()
        threading.Thread(target=_ring, args=(core, port), daemon=True).start()
        for user, wanted in (("alice", ["180", "180", "486"]), ("bob", ["180", "486"])):
            with Phone(user, port) as phone:
                for code in wanted:
                    reply = phone.invite("sip:49301@edge.example", "secret")
                    assert reply[8:11] == code
                    assert code == "180" or "Limit Reached" in reply


def test_t9_limits_calls_over_two_nodes_by_a_store(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    text = (EXAMPLES / "t9-shared-limits.toml").read_text().replace('"var"', '"STATE"')
    with brokers.mongo(tmp_path) as store, Agent() as core, Agent() as phone:
        text = text.replace("27017", str(store)).replace("127.0.0.1:5070", f"127.0.0.1:{core.port}")
        ports = [free_port(), free_port()]
        proxies = []
        for number, port in enumerate(ports):
            toml = text.replace("127.0.0.1:5060", f"127.0.0.1:{port}").replace('node = "edge1"', f'node = "edge{number}"')
            proxies.append(start_proxy(toml, name=f"edge{number}"))
        end = time.monotonic() + 15
        while any(not (s := json.loads(manage(proxy, "status")[1])["shared"])["up"] or s["grants_in_seconds"] for proxy in proxies):
            assert time.monotonic() < end
            time.sleep(0.2)
        time.sleep(0.3)
        for number in range(3):
            port = ports[number % 2]
            phone.send(invite("INVITE", phone.port, "sip:49301@edge.example", call_id=f"c{number}", branch=f"c{number}"), port)
            if number < 2:
                core.send(answer(core.receive_until("INVITE", having=f"Call-ID: c{number}"), "180 Ringing"), port)
                assert phone.receive_until("SIP/2.0 180", having=f"Call-ID: c{number}")
        refused = phone.receive_until("SIP/2.0 486", having="Call-ID: c2")
        assert refused.startswith("SIP/2.0 486 Limit Reached")


def test_the_fraud_slide_refuses_what_is_critical(start_proxy: Callable[..., Proxy]) -> None:
    with Agent() as core, Agent("127.0.0.9") as phone:
        proxy, port = _example(start_proxy, "fraud.toml", core)
        for number in range(4):
            phone.send(invite("INVITE", phone.port, f"sip:900{number}@edge.example", call_id=f"c{number}", branch=f"c{number}"), port)
            if number < 1:
                core.send(answer(core.receive_until("INVITE", having=f"Call-ID: c{number}"), "486 Busy"), port)
        reply = phone.receive_until("SIP/2.0 403")
        assert "Call-ID: c2" in reply, "two at once are critical"
    assert {(event["param"], event["threshold"]) for event in proxy.told("E_FRD_CRITICAL")} == {("concurrent-calls", 2)}
