"""Users of the real process: they register, are called, survive a restart; who guesses is stopped, who poisons refused."""

import json
import socket
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.agent import answer, values
from tests.integration.phone import Phone, authorization
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage, wait_for

TOML = """
[install]
state_directory = "STATE"
workers = {workers}
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[install.listener.tcp]
address = "tcp:127.0.0.1:{port}"
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/8"]
[registrar]
domains = ["edge.example"]
write_seconds = 1
{registrar}
[authentication.attacks]
{attacks}
[events]
log = ["E_AUTH_ATTACK", "E_BAN_ADDED", "E_REGISTER_POISONING", "E_UL_CONTACT_INSERT"]
"""


def fill(proxy: Proxy, users: int = 3) -> None:
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        rows = [(f"user{number}", "edge.example", f"secret{number}") for number in range(users)]
        database.executemany("INSERT INTO subscriber (username, domain, password) VALUES (?, ?, ?)", rows)
    database.close()


@pytest.fixture
def users(start_proxy: Callable[..., Proxy]) -> Callable[..., tuple[Proxy, int]]:
    def start(*, workers: int = 1, registrar: str = "", attacks: str = "") -> tuple[Proxy, int]:
        port = free_port()
        proxy = start_proxy(TOML.format(port=port, workers=workers, registrar=registrar, attacks=attacks))
        fill(proxy)
        return proxy, port

    return start


@pytest.fixture
def phone() -> Iterator[Callable[..., Phone]]:
    made: list[Phone] = []

    def make(user: str, port: int, **options: str) -> Phone:
        made.append(Phone(user, port, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def talk(caller: Phone, callee: Phone, password: str) -> str:
    """Call from one phone to the other; return the 200 that the caller gets."""
    ring = caller.invite(f"sip:{callee.user}@edge.example", password)
    assert ring == "", ring
    request = callee.receive_until("INVITE")
    callee.send(answer(request, "200 OK").replace("Content-Length", f"Contact: {callee.contact}\r\nContent-Length"), caller.proxy_port)
    return caller.receive_until("SIP/2.0 200")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_phone_registers_and_is_called_by_another(
    workers: int, users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]
) -> None:
    proxy, port = users(workers=workers)
    alice, bob = phone("user1", port), phone("user2", port)
    assert alice.register("secret1").startswith("SIP/2.0 200")
    reply = bob.register("secret2")
    assert values(reply, "Contact")[0].startswith(f"{bob.contact};expires=")
    assert alice.invite("sip:user2@edge.example").startswith("SIP/2.0 407")
    assert talk(alice, bob, "secret1")
    assert alice.invite("sip:nobody@edge.example", "secret1").startswith("SIP/2.0 480")
    code, said = manage(proxy, "location", "show", "user2@edge.example", "--json")
    assert code == 0
    assert json.loads(said)["bindings"][0]["contact"] == bob.contact.strip("<>")
    assert manage(proxy, "location", "remove", "user2@edge.example")[0] == 0
    assert alice.invite("sip:user2@edge.example", "secret1").startswith("SIP/2.0 480")
    code, said = manage(proxy, "location", "remove", "user2@edge.example")
    assert (code, said.strip()) == (1, "no such binding: user2@edge.example")
    code, said = manage(proxy, "location", "remove", "user2")
    assert (code, said.strip()) == (1, "aor: expected user@domain, got: user2")
    assert proxy.counters()["bindings_removed"] == 1


def test_bindings_outlive_a_restart_and_a_kill(users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]) -> None:
    proxy, port = users()
    alice, bob = phone("user1", port), phone("user2", port)
    assert bob.register("secret2").startswith("SIP/2.0 200")
    proxy.stop()
    proxy.start()
    assert talk(alice, bob, "secret1")
    assert alice.register("secret1").startswith("SIP/2.0 200")
    time.sleep(2.5)
    assert proxy.process
    proxy.process.kill()
    proxy.process.wait()
    proxy.start()
    assert talk(bob, alice, "secret2")
    taken = [line["bindings"] for line in proxy.log if line["event"] == "bindings taken over"]
    assert taken == [0, 1, 2]
    assert bob.register("secret2", expires=0).startswith("SIP/2.0 200")
    proxy.stop()
    proxy.start()
    assert [line["bindings"] for line in proxy.log if line["event"] == "bindings taken over"][-1] == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE location SET contact = 'no address' WHERE username = 'user2'",
        "UPDATE location SET path = 'garbage <<' WHERE username = 'user2'",
    ],
)
def test_a_binding_that_cannot_be_taken_over_is_told(
    statement: str, users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]
) -> None:
    proxy, port = users()
    alice, bob = phone("user1", port), phone("user2", port)
    for one, password in ((alice, "secret1"), (bob, "secret2")):
        assert one.register(password).startswith("SIP/2.0 200")
    proxy.stop()
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute(statement)
    database.close()
    proxy.start()
    wait_for(lambda: [line for line in proxy.log if line["event"].startswith("1 bindings of the database are not taken over: ")])
    left = json.loads(manage(proxy, "location", "show", "--json")[1])["bindings"]
    assert [binding["contact"] for binding in left] == [alice.contact.strip("<>")]
    assert talk(bob, alice, "secret2")


def test_guessing_is_told_stopped_and_banned(users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]) -> None:
    proxy, port = users(attacks="pair_failures = 5\nsource_failures = 12\nban_seconds = 60")
    guesser = phone("user1", port, host="127.0.0.66")
    codes = [guesser.register(f"guess{number}")[8:11] for number in range(6)]
    assert codes == ["401"] * 5 + ["403"]
    for number in range(10):
        guesser.user = f"other{number}"
        guesser.register("guess")
    assert guesser.register("guess") == "", "a banned source is not answered"
    assert phone("user1", port).register("secret1").startswith("SIP/2.0 200"), "others are"
    attack = proxy.told("E_AUTH_ATTACK")[0]
    assert (attack["scope"], attack["failures"]) == ("pair", 5)
    assert proxy.told("E_BAN_ADDED")[0]["ip"] == "127.0.0.66"
    assert "127.0.0.66" in manage(proxy, "ban", "list")[1]
    assert manage(proxy, "ban", "remove", "127.0.0.66")[0] == 0
    guesser.user = "user2"
    assert guesser.register("secret2").startswith("SIP/2.0 200")
    assert manage(proxy, "ban", "add", "127.0.0.66", "--seconds", "5", "--reason", "test")[0] == 0
    assert guesser.register("secret2") == ""
    assert manage(proxy, "ban", "add", "nowhere") == (1, "source: expected an IP address without a zone, got: nowhere\n")
    assert manage(proxy, "ban", "remove", "192.0.2.1") == (1, "not banned: 192.0.2.1\n")


def test_a_contact_that_names_the_proxy_or_a_name_that_leads_there_is_refused(
    users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]
) -> None:
    proxy, port = users()
    alice = phone("user1", port)
    for host in ("127.0.0.1", "localhost"):
        assert alice.register("secret1", contact=f"<sip:user1@{host}:{port}>").startswith("SIP/2.0 476 Contact Unacceptable"), host
    assert alice.register("secret1").startswith("SIP/2.0 200")
    assert proxy.counters()["contacts_refused"] == 2


def test_a_database_that_is_gone_stops_nobody_who_is_known(
    users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone], tmp_path: Path
) -> None:
    proxy, port = users()
    alice = phone("user1", port)
    assert alice.register("secret1").startswith("SIP/2.0 200")
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute("ALTER TABLE subscriber RENAME TO elsewhere")
        database.execute("ALTER TABLE location RENAME TO gone")
    assert alice.register("secret1").startswith("SIP/2.0 200")
    reply = phone("user2", port).register("secret2")
    assert reply.startswith("SIP/2.0 500")
    assert values(reply, "Retry-After")
    time.sleep(2)
    status = json.loads(manage(proxy, "status")[1])
    assert status["location"]["state"] == "behind"
    # What has nothing to do with the database may change all the same; what has may not, and changes nothing.
    text = proxy.file.read_text()
    proxy.file.write_text(text.replace("write_seconds = 1", "write_seconds = 1\nmax_contacts = 7"))
    assert manage(proxy, "reload")[0] == 0
    proxy.file.write_text(text + '[authentication]\nattributes = ["rpid"]\n')
    assert manage(proxy, "reload")[0] != 0
    proxy.file.write_text(text)
    assert manage(proxy, "reload")[0] == 0
    assert alice.register("secret1").startswith("SIP/2.0 200")
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute("ALTER TABLE elsewhere RENAME TO subscriber")
        database.execute("ALTER TABLE gone RENAME TO location")
    time.sleep(3)
    assert phone("user2", port).register("secret2").startswith("SIP/2.0 200")
    time.sleep(3)
    rows = sqlite3.connect(proxy.state / "edgeproxy.db").execute("SELECT username FROM location ORDER BY username").fetchall()
    assert rows == [("user1",), ("user2",)]


def test_ways_to_phones_are_kept_open(users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]) -> None:
    proxy, port = users(registrar='[registrar.keep_alive]\nmethod = "options"\ninterval_seconds = 1\nnatted_only = false\nmost_lost = 2')
    alice = phone("user1", port)
    assert alice.register("secret1").startswith("SIP/2.0 200")
    ping = alice.receive_until("OPTIONS", 3)
    alice.send(answer(ping, "200 OK"), port)
    time.sleep(5)
    assert json.loads(manage(proxy, "location", "show", "--json")[1])["bindings"] == []
    counters = proxy.counters()
    assert (counters["keep_alives_answered"], counters["bindings_dead"]) == (1, 1)


POLICY = """
from edgeproxy.policy import CONTINUE, Policy, Reject

policy = Policy()


@policy.on_request("INVITE")
def by_account(call):
    call.note("seen", f"{call.account} {call.attribute('call_limit', 'none')} {' '.join(call.attributes('group'))}")
    return Reject(488) if call.attribute("barred") == "yes" else CONTINUE
"""


def test_attributes_of_an_account_reach_policies_records_and_the_check_of_numbers(
    users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone], tmp_path: Path
) -> None:
    (tmp_path / "accounts.py").write_text(POLICY)
    proxy, port = users()
    proxy.stop()
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute("ALTER TABLE subscriber ADD COLUMN call_limit INTEGER")
        database.execute("UPDATE subscriber SET call_limit = 3 WHERE username = 'user1'")
        rows = [
            ("user1", "group", "sales"),
            ("user1", "group", "emea"),
            ("user1", "numbers", "+4930111, +4930222"),
            ("user2", "barred", "yes"),
        ]
        insert = "INSERT INTO usr_preferences (username, domain, attribute, value) VALUES (?, 'edge.example', ?, ?)"
        database.executemany(insert, rows)
        database.execute("INSERT INTO uri (username, domain, uri_user) VALUES ('user1', 'edge.example', 'info')")
    database.close()
    terms = 'attributes = ["call_limit"]\npreferences = true\ncaller_numbers = "numbers"\nuri_table = true\n'
    text = proxy.file.read_text().replace("[authentication.attacks]", f"[authentication]\n{terms}[authentication.attacks]")
    proxy.file.write_text(text + '[[policy]]\nmodule = "accounts"\n')
    proxy.start()
    alice, bob = phone("user1", port), phone("user2", port)
    assert alice.register("secret1").startswith("SIP/2.0 200")
    assert bob.register("secret2").startswith("SIP/2.0 200")
    assert talk(alice, bob, "secret1")
    assert bob.invite("sip:user1@edge.example", "secret2").startswith("SIP/2.0 488")
    proxy.stop()
    notes = [record["notes"] for record in proxy.records(2)]
    mine = {
        "account": "user1@edge.example",
        "account.call_limit": "3",
        "account.group": "sales,emea",
        "account.numbers": "+4930111, +4930222",
    }
    assert {**mine, "seen": "user1@edge.example 3 sales emea"} in notes
    proxy.start()
    # It may call from its numbers and as `info`, which it may register as well, and as nobody else.
    alice.account = "user1"
    for user, expected in (("+4930111", "480"), ("+4930222", "480"), ("info", "480"), ("+4930333", "403"), ("user2", "403")):
        alice.user = user
        assert alice.invite("sip:nobody@edge.example", "secret1").startswith(f"SIP/2.0 {expected}"), user
    for user, expected in (("info", "200"), ("+4930111", "403")):
        alice.user = user
        assert alice.register("secret1").startswith(f"SIP/2.0 {expected}"), user


def test_an_attribute_that_the_table_does_not_have_is_told(users: Callable[..., tuple[Proxy, int]]) -> None:
    proxy, _ = users()
    text = proxy.file.read_text()
    proxy.file.write_text(text.replace("[authentication.attacks]", '[authentication]\nattributes = ["colour"]\n[authentication.attacks]'))
    code, said = manage(proxy, "reload")
    assert code == 1
    assert "subscriber has no column colour" in said


def test_a_middlebox_that_rewrites_sip_is_told_in_the_log_once(
    users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]
) -> None:
    proxy, port = users()
    alice = phone("user1", port)
    for number in range(3):
        alice.send(
            f"OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{alice.port};rport;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:user1@edge.example>;tag=1\r\nTo: <sip:127.0.0.1:{port}>\r\nCall-ID: altered\r\nCSeq: {number + 1} OPTIONS\r\n"
            "Content-Length: 4\r\n\r\nv=0\r\nc=IN IP4 203.0.113.1\r\n",
            port,
        )
        alice.receive_until("SIP/2.0 200")
    end = time.monotonic() + 3
    lines: list[dict[str, object]] = []
    while not lines and time.monotonic() < end:
        time.sleep(0.1)
        lines = [line for line in proxy.log if "rewrites SIP" in line["event"]]
    assert len(lines) == 1, proxy.log
    assert "Content-Length is less than the body;" in str(lines[0]["event"])
    assert str(lines[0]["call_id"]).startswith("altered")
    assert proxy.counters()["messages_rewritten"] == 3


def test_a_phone_whose_connection_has_gone_is_not_called_back(users: Callable[..., tuple[Proxy, int]], phone: Callable[..., Phone]) -> None:
    _, port = users()
    alice = phone("user1", port)
    assert alice.register("secret1").startswith("SIP/2.0 200")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as gone:
        own = gone.getsockname()[1]
        # Its port is free at once when it has gone.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def register(cseq: int, *lines: str) -> str:
            head = (
                f"REGISTER sip:edge.example SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:{own};branch=z9hG4bKgone{cseq}\r\nMax-Forwards: 70\r\n"
                f"From: <sip:user2@edge.example>;tag=1\r\nTo: <sip:user2@edge.example>\r\nCall-ID: gone\r\nCSeq: {cseq} REGISTER\r\n"
                f"Contact: <sip:user2@127.0.0.1:{own};transport=tcp>\r\n"
            )
            gone.sendall((head + "".join(f"{line}\r\n" for line in lines) + "Content-Length: 0\r\n\r\n").encode())
            return gone.recv(65_536).decode()

        challenge = register(1)
        offered = values(challenge, "WWW-Authenticate")[0]
        credentials = authorization(offered, "REGISTER", "sip:edge.example", ("user2", "secret2"))
        assert register(2, f"Authorization: {credentials}").startswith("SIP/2.0 200")
    time.sleep(0.3)
    # Somebody else has that port now: a NAT gives it to whom it likes.
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", own))
        other.listen()
        other.settimeout(1)
        begun = time.monotonic()
        assert alice.invite("sip:user2@edge.example", "secret1").startswith("SIP/2.0 480")
        assert time.monotonic() - begun < 2
        with pytest.raises(TimeoutError):
            other.accept()
        # It has come back by another way, and says more than what is gone.
        again = phone("user2", port)
        assert again.register("secret2").startswith("SIP/2.0 200")
        other_phone = phone("user1", port)
        assert other_phone.invite("sip:user2@edge.example", "secret1") == ""
        again.send(answer(again.receive_until("INVITE"), "486 Busy Here"), port)
        assert other_phone.receive_until("SIP/2.0 4").startswith("SIP/2.0 486")


def test_check_looks_at_the_tables_that_the_start_needs(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "opensips.db") as connection:
        connection.execute("CREATE TABLE version (table_name VARCHAR(32), table_version INTEGER)")
    connection.close()
    file = tmp_path / "edge.toml"
    file.write_text(
        f'[install]\nstate_directory = "{tmp_path}"\ndatabase = "sqlite:///{tmp_path}/opensips.db"\n'
        f'[install.listener.udp]\naddress = "udp:127.0.0.1:{free_port()}"\n[registrar]\ndomains = ["edge.example"]\n'
        '[peer.phones]\nkind = "subscribers"\nmatch = ["*;listener=udp"]\nauthenticate = false\n'
    )
    done = subprocess.run([EDGEPROXY, "check", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, "no table location\nhint: it is OpenSIPS's" in done.stderr) == (1, True), done.stderr
