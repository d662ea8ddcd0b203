"""Lookups of the file through the simulated edge: HTTP, SQL, a redirect server; what becomes of values and of failures."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.policy.lookup import routing_number, was_asked, with_routing_number
from edgeproxy.sip import Uri
from edgeproxy.testing import Response, SimulatedEdge, request

CONFIGURATION = """
[install]
DATABASE
[install.listener.public]
address = "udp:192.0.2.1:5060"
[peer.core]
kind = "core"
match = ["198.51.100.1"]
to = ["sip:198.51.100.1"]
route = "pstn"
lookups = ["it"]
[peer.plain]
kind = "trusted"
match = ["198.51.100.2"]
route = "pstn"
[peer.pstn]
kind = "gateway"
gateway_types = [-1]
[route.pstn]
[lookup.it]
"""
CORE = "198.51.100.1:5060"
GATEWAYS = {"a": "203.0.113.1", "b": "203.0.113.2"}


class Service(ThreadingHTTPServer):
    """Answers by path; keeps what was asked."""

    daemon_threads = True
    answers: dict[str, tuple[int, str]]
    asked: list[tuple[str, dict[str, str]]]


@pytest.fixture
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server = self.server
            assert isinstance(server, Service)
            server.asked.append((self.path, dict(self.headers)))
            status, body = server.answers.get(self.path, (404, ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with Service(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = {}, []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call(
    edge: SimulatedEdge, uri: str = "sip:+4930@edge", *, source: str = CORE, headers: dict[str, str] | None = None, name: str = ""
) -> Response:
    text = request("INVITE", uri, user="+4912", headers=headers).decode()
    count = len(edge.sent)
    edge.receive(text.replace("From: <", f"From: {name}<"), source)
    edge.wait(5)
    return next(sent for sent in edge.sent[count:] if sent.status_code != 100)


def edge_with(lookup: str, database: str = "") -> SimulatedEdge:
    edge = SimulatedEdge(configuration=CONFIGURATION.replace("DATABASE", f'database = "{database}"' if database else "") + lookup)
    edge.provision(GATEWAYS, {"49": "a", "1": "b"})
    return edge


@pytest.mark.parametrize(
    ("answer", "status", "body", "line", "note"),
    [
        ("json", 200, json.dumps({"d": {"lrn": "+1555"}}), "INVITE sip:4930;npdi;rn=+1555@203.0.113.2 SIP/2.0", "+1555"),
        ("json", 200, json.dumps({"d": {"lrn": 1555}}), "INVITE sip:4930;npdi;rn=1555@203.0.113.2 SIP/2.0", "1555"),
        ("json", 200, json.dumps({"d": {"lrn": None}}), "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("json", 200, json.dumps({"d": {}}), "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("json", 404, "nobody", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("json", 204, "", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("json", 200, " \r\n", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("text", 200, "+1 (555) 1-2.3", "INVITE sip:4930;npdi;rn=+1555123@203.0.113.2 SIP/2.0", "+1555123"),
        ("text", 200, "%2B1555", "INVITE sip:4930;npdi;rn=+1555@203.0.113.2 SIP/2.0", "+1555"),
        ("text", 204, "", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("text", 200, " 1555\r\n", "INVITE sip:4930;npdi;rn=1555@203.0.113.2 SIP/2.0", "1555"),
        ("text", 200, "", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        ("text", 200, "1;lr>\r\nX: y", "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: no number: 1;lr>\r\nX: y"),
        ("json", 200, "{", "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: Input data was truncated"),
        ("json", 200, "[1]", "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: expected a JSON object, got: list"),
        (
            "json",
            200,
            json.dumps({"d": {"lrn": [1]}}),
            "INVITE sip:4930@203.0.113.1 SIP/2.0",
            "failed: expected a text or a number, got: list",
        ),
        (
            "json",
            200,
            json.dumps({"d": {"lrn": True}}),
            "INVITE sip:4930@203.0.113.1 SIP/2.0",
            "failed: expected a text or a number, got: bool",
        ),
        ("json", 200, json.dumps({"d": {"lrn": -4999}}), "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: no number: -4999"),
        ("json", 500, "{}", "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: status 500"),
    ],
)
def test_what_an_http_service_says_goes_into_the_request_uri_and_the_record(  # noqa: PLR0917
    service: Service, answer: str, status: int, body: str, line: str, note: str
) -> None:
    service.answers["/dip?n=4930"] = (status, body)
    url = f"http://127.0.0.1:{service.server_port}/dip?n={{number}}"
    with edge_with(f'url = "{url}"\nanswer = "{answer}"\nfield = "d.lrn"\nheaders = {{ Authorization = "Bearer s3cret" }}\n') as edge:
        sent = call(edge)
        assert sent.first_line == line
        edge.respond(sent, 486)
        assert dict(edge.records[0]["notes"])["lookup.it"] == note
        assert service.asked[0][1]["Authorization"] == "Bearer s3cret"
        assert service.asked[0][1]["traceparent"].startswith("00-")
        # Somebody has asked already; and peers without the lookup never wait for it.
        count = len(service.asked)
        assert call(edge, "sip:+4931;npdi@edge").first_line == "INVITE sip:4931;npdi@203.0.113.1 SIP/2.0"
        # What the sender says of it is not looked at unless the route says so.
        assert call(edge, "tel:+4931;npdi;rn=1").to == "203.0.113.1:5060"
        assert call(edge, source="198.51.100.2:5060").first_line == "INVITE sip:4930@203.0.113.1 SIP/2.0"
        assert len(service.asked) == count


def test_a_failure_refuses_the_call_where_that_is_wished_and_a_service_that_is_out_is_not_asked(service: Service) -> None:
    service.answers["/4930"] = (503, "")
    url = f"http://127.0.0.1:{service.server_port}/{{number}}"
    more = 'refuse = { status_code = 480, reason_phrase = "No Dip" }\nbreaker_failures = 2\n'
    with edge_with(f'url = "{url}"\nanswer = "text"\n{more}') as edge:
        assert [call(edge).first_line for _ in range(4)] == ["SIP/2.0 480 No Dip"] * 4
        assert len(service.asked) == 2
        assert "it is out" in dict(edge.records[3]["notes"])["lookup.it"]


def test_without_a_database_the_call_goes_on() -> None:
    with edge_with('statement = "SELECT NULL WHERE :number = 1"\nresult = "routing_number"\n') as edge:
        assert call(edge).first_line == "INVITE sip:4930@203.0.113.1 SIP/2.0"


@pytest.mark.parametrize("uri", ["sip:alice@edge", "sip:@edge", f"sip:{'1' * 40}@edge"])
def test_what_is_no_telephone_number_is_not_asked_about(service: Service, uri: str) -> None:
    with edge_with(f'url = "http://127.0.0.1:{service.server_port}/{{number}}"\n') as edge:
        edge.receive(request("INVITE", uri), CORE)
        edge.wait(2)
        assert (service.asked, edge.failures) == ([], [])


def test_numbers_are_asked_about_in_one_form_and_a_caller_s_own_rn_counts_for_nothing(service: Service) -> None:
    service.answers["/4930"] = (200, "1555")
    with edge_with(f'url = "http://127.0.0.1:{service.server_port}/{{number}}"\nanswer = "text"\n') as edge:
        for uri in ("sip:%2B49-3(0)@edge", "sip:+4930;rn=49@edge"):
            assert call(edge, uri).to == "203.0.113.2:5060"
        assert [path for path, _ in service.asked] == ["/4930"]


def test_only_the_peer_of_that_name_waits_and_identities_of_strangers_are_not_made_ours(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "n.db") as connection:
        connection.execute("CREATE TABLE names (number TEXT, name TEXT)")
        connection.execute("INSERT INTO names VALUES ('4912', 'Doe')")
    connection.close()
    named = 'statement = "SELECT name FROM names WHERE number = :number"\nresult = "caller_name"\ninto = ["from", "p_asserted_identity"]\n'
    database = f'database = "sqlite:///{tmp_path / "n.db"}"'
    text = CONFIGURATION.replace("DATABASE", database).replace('lookups = ["it"]', 'lookups = ["it"]\ntrust_identity = false')
    other = '[peer.second]\nkind = "core"\nmatch = ["198.51.100.3"]\nroute = "pstn"\n'
    with SimulatedEdge(configuration=text + named + other) as edge:
        edge.provision(GATEWAYS, {"49": "a"})
        sent = call(edge, headers={"P-Asserted-Identity": "<sip:+49110@police>"})
        assert (sent.header("From").startswith('"Doe" '), sent.header("P-Asserted-Identity")) == (True, None)
        # It is of the kind whose name the first peer has.
        assert call(edge, source="198.51.100.3:5060").header("From").startswith("<sip:+4912@")


def test_a_from_that_nobody_can_read_and_an_answer_that_breaks_its_reader_refuse_nobody(service: Service) -> None:
    service.answers["/4930"] = (200, "[" * 100_000)
    with edge_with(f'url = "http://127.0.0.1:{service.server_port}/{{number}}"\nbreaker_failures = 1\n') as edge:
        assert [call(edge).to for _ in range(2)] == ["203.0.113.1:5060"] * 2
        assert (len(service.asked), edge.failures) == (1, [])
    with edge_with('statement = "SELECT :number"\nresult = "caller_name"\n') as edge:
        text = request("INVITE", "sip:+4930@edge").decode().replace("From: <sip:alice@", "From: <sip:jos\u00e9@")
        assert edge.receive(text, CORE).to == "203.0.113.1:5060"


def test_a_url_s_secrets_are_told_nobody_and_redirections_are_not_followed(service: Service) -> None:
    service.answers["/4930"] = (302, "")
    with edge_with(f'url = "http://user:s3cret@127.0.0.1:{service.server_port}/{{number}}"\nanswer = "text"\n') as edge:
        edge.respond(call(edge), 486)
        assert edge.records[0]["notes"] == {"lookup.it": "failed: status 302"}
    with edge_with('url = "http://user:s3cret@127.0.0.1:1/s3cret/{number}"\n') as edge:
        edge.respond(call(edge), 486)
        assert "s3cret" not in str(edge.records[0]["notes"])


def test_sql_tells_numbers_and_names(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "n.db") as connection:
        connection.execute("CREATE TABLE names (number TEXT, name TEXT)")
        connection.execute("CREATE TABLE ported (number TEXT, lrn TEXT)")
        connection.execute("INSERT INTO names VALUES ('+4912', 'Doe, \"J\" and a long name')")
        connection.execute("INSERT INTO ported VALUES ('+4930', '1555')")
    connection.close()
    database = f"sqlite:///{tmp_path / 'n.db'}"
    ported = 'statement = "SELECT lrn FROM ported WHERE number = :number"\nplus = true\nresult = "routing_number"\n'
    with edge_with(ported, database) as edge:
        assert call(edge).first_line == "INVITE sip:4930@203.0.113.2 SIP/2.0"
        assert call(edge, "sip:+4931@edge").first_line == "INVITE sip:4931@203.0.113.1 SIP/2.0"
    named = 'statement = "SELECT name FROM names WHERE number = :number"\nplus = true\nresult = "caller_name"\ninto = ["from", "p_asserted_identity"]\n'
    with edge_with(named, database) as edge:
        asserted = {"P-Asserted-Identity": '"Al" <sip:+4912@core>, <tel:+4912>'}
        sent = call(edge, name='"Liar" ', headers=asserted)
        assert sent.header("From").startswith('"Doe, \\"J\\" and a" <sip:+4912@example.net>;tag=')
        assert sent.header("P-Asserted-Identity") == '"Doe, \\"J\\" and a" <sip:+4912@core>, "Doe, \\"J\\" and a" <tel:+4912>'
        assert edge.respond(sent, 486)[-1].header("From").startswith('"Liar" <sip:+4912@')
        named_as = '"Doe, \\"J\\" and a" <{}>'
        for said, becomes in (
            # What stands in quotes is a name, whatever it looks like.
            ('"Eve <sip:+1900@victim>" <sip:+4912@core>', named_as.format("sip:+4912@core")),
            ('"Eve \\" <sip:+1900@victim>" <sip:+4912@core>;x="<sip:a@b>"', named_as.format("sip:+4912@core")),
            ("sip:+4912@core, tel:+4912", f"{named_as.format('sip:+4912@core')}, {named_as.format('tel:+4912')}"),
            ("sip:+4912@core, <tel:+4912>", f"{named_as.format('sip:+4912@core')}, {named_as.format('tel:+4912')}"),
            # What cannot be read stays as it came.
            ("garbage", "garbage"),
            ("<sip:+4912@core", "<sip:+4912@core"),
            ("<sip:+4912@core>,", "<sip:+4912@core>,"),
            ('"Eve <sip:+1900@victim>', '"Eve <sip:+1900@victim>'),
        ):
            assert call(edge, headers={"P-Asserted-Identity": said}).header("P-Asserted-Identity") == becomes
        assert call(edge, headers={"Privacy": "critical;id"}).header("From").startswith("<sip:+4912@")


@pytest.mark.parametrize(
    ("status", "contact", "line", "note"),
    [
        (302, "<sip:+4930;npdi;rn=+1555@lnp>", "INVITE sip:4930;npdi;rn=+1555@203.0.113.2 SIP/2.0", "+1555"),
        (302, "sip:+4930@lnp;rn=1555", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        (302, "<sip:+4930@lnp;rn=1555>;q=1", "INVITE sip:4930;npdi;rn=1555@203.0.113.2 SIP/2.0", "1555"),
        (302, "<sip:+4930@lnp>, <sip:+4930;npdi;rn=1555@lnp>", "INVITE sip:4930;npdi;rn=1555@203.0.113.2 SIP/2.0", "1555"),
        (302, "<sip:1;rn=1444@lnp>;q=0.1, <sip:1;rn=1555@lnp>;q=0.9", "INVITE sip:4930;npdi;rn=1555@203.0.113.2 SIP/2.0", "1555"),
        (302, '"a, <b>" <mailto:x@y>, <sip:1;rn=1555@lnp>', "INVITE sip:4930;npdi;rn=1555@203.0.113.2 SIP/2.0", "1555"),
        (302, "<sip:+4930@lnp>", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        (404, "", "INVITE sip:4930;npdi@203.0.113.1 SIP/2.0", ""),
        (500, "", "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: status 500"),
        (0, "", "INVITE sip:4930@203.0.113.1 SIP/2.0", "failed: no answer within 2.0 s"),
    ],
)
def test_a_redirect_server_tells_the_routing_number(status: int, contact: str, line: str, note: str) -> None:
    with edge_with('to = "sip:198.51.100.9"\ndeadline_seconds = 2\n') as edge:
        dip = edge.receive(request("INVITE", "sip:+4930@edge"), CORE)
        assert dip.to == "198.51.100.9:5060"
        sent = edge.respond(dip, status, headers={"m": contact} if contact else {}) if status else edge.advance(2.1)
        invite = next(message for message in sent if message.first_line.startswith("INVITE") and message.to != "198.51.100.9:5060")
        assert invite.first_line == line
        # The redirection was no answer of anybody's.
        assert edge.respond(invite, 486)[-1].status_code == 486
        assert dict(edge.records[0]["notes"])["lookup.it"] == note


def test_parameters_of_ported_numbers() -> None:
    found = {
        text: (routing_number(Uri(text)), was_asked(Uri(text))) for text in ("sip:1;RN=2;npdi@x", "tel:1;rn=+3", "sip:1@x;npdi", "sip:1@x")
    }
    assert list(found.values()) == [("2", True), ("+3", False), (None, True), (None, False)]
    assert with_routing_number(Uri("sip:1;a=b;RN=9;rn-context=x:pw@x;user=phone"), "2") == "sip:1;npdi;rn=2;a=b:pw@x;user=phone"
    assert with_routing_number(Uri("tel:+1;rn=3;ext=4"), "2") == "tel:+1;npdi;rn=2;ext=4"
    assert with_routing_number(Uri("sip:x"), "2") == "sip:x"
