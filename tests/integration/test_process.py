"""The process from outside: start, refusal, drain, restart, and what must not disturb it."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from dnslib import DNSRecord
from dnslib.server import DNSHandler, DNSServer

from tests.integration.agent import Agent, answer, bye, call, invite, values
from tests.integration.mutation import mutated
from tests.integration.name_server import Zone
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, manage, wait_for

Local = Callable[..., tuple[Proxy, int, int]]


def test_a_stranger_is_refused_and_nothing_is_sent_on(start_proxy: Callable[..., Proxy]) -> None:
    port = free_port()
    with Agent() as stranger, Agent() as core:
        proxy = start_proxy(
            f'[install]\nstate_directory = "STATE"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
            f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n'
        )
        routes = f"Route: <sip:127.0.0.1:{port};lr>,<sip:127.0.0.1:{core.port};lr>\r\n"
        for number, (method, tag, extra) in enumerate(
            [("INVITE", "", ""), ("INVITE", "forged", routes), ("MESSAGE", "forged", routes), ("BYE", "forged", routes)]
        ):
            request = invite(
                method,
                stranger.port,
                f"sip:b@127.0.0.1:{core.port}",
                to_tag=tag,
                branch=str(number),
                call_id=str(number),
                extra=extra,
            )
            stranger.send(request, port)
            assert stranger.receive_until("SIP/2.0 ").startswith("SIP/2.0 403")
        stranger.send(invite("ACK", stranger.port, f"sip:b@127.0.0.1:{core.port}", to_tag="forged", extra=routes), port)
        assert core.receive(0.3) == ""
        assert proxy.records()[0]["refused_by"] == "identify"


def test_sigterm_drains_and_a_restart_carries_dialogs_on(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        _, ok = call(caller, core, port, "live")
        proxy.signal(signal.SIGTERM)
        time.sleep(0.3)
        caller.send(invite("INVITE", caller.port, "sip:b@x.invalid", call_id="new", branch="new"), port)
        refused = caller.receive_until("SIP/2.0 ")
        assert refused.startswith("SIP/2.0 503")
        assert values(refused, "Retry-After")
        caller.send(bye(caller, core, ok, "live"), port)
        request = core.receive_until("BYE")
        core.send(answer(request, "200 OK"), port)
        assert caller.receive_until("SIP/2.0 200")
        assert proxy.process
        assert proxy.process.wait(4) == 0
        assert [record["ended_by"] for record in proxy.records(2) if record["outcome"] == "answered"] == ["caller"]
        proxy.start()
        _, ok = call(caller, core, port, "second")
        proxy.signal(signal.SIGTERM)
        proxy.signal(signal.SIGTERM)
        time.sleep(0.2)
        proxy.stop()
        # The next process knows nothing of this call but its token, so its record is written now.
        assert [record["ended_by"] for record in proxy.records(3) if record["call_id"] == "second"] == ["proxy"]
        proxy.start()
        caller.send(bye(caller, core, ok, "second"), port)
        assert core.receive_until("BYE")


def test_signals_until_the_very_end_leave_the_exit_code_alone(local: Local) -> None:
    with Agent() as core:
        proxy, _, _ = local(core=core.port)
        process = proxy.process
        assert process
        end = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < end:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert process.returncode == 0


@pytest.mark.alone
def test_a_quiet_proxy_sleeps_and_tells_at_once_what_then_comes(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra='[events]\nlog = ["E_ACC_CDR"]\n')
        assert proxy.process
        threads = Path(f"/proc/{proxy.process.pid}/task")

        def wakes() -> int:
            return sum(int(file.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0]) for file in threads.glob("*/status"))

        time.sleep(2)
        before = wakes()
        time.sleep(5)
        # A worker looks around once a second, and whoever writes bindings once in five.
        assert wakes() - before <= 15
        for turn in range(1, 4):
            _, ok = call(caller, core, port, f"late{turn}")
            caller.send(bye(caller, core, ok, f"late{turn}"), port)
            core.send(answer(core.receive_until("BYE"), "200 OK"), port)
            assert len(proxy.records(turn, 1)) == len(proxy.told("E_ACC_CDR", turn, 1)) == turn
            time.sleep(0.3)


@pytest.mark.alone
def test_a_drain_without_anything_under_way_ends_at_once(local: Local) -> None:
    with Agent() as core:
        proxy, _, _ = local(core=core.port)
        assert proxy.stop() == 0
        at = {line["event"]: datetime.fromisoformat(line["time"]) for line in proxy.log}
        assert (at["stopped"] - at["draining"]).total_seconds() < 0.7


def test_retransmissions_late_and_duplicate_responses(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        request = invite("MESSAGE", caller.port, "sip:b@x.invalid")
        caller.send(request, port)
        got = core.receive_until("MESSAGE")
        assert core.receive_until("MESSAGE", 1) == got
        core.send(answer(got, "200 OK"), port)
        core.send(answer(got, "200 OK"), port)
        assert caller.receive_until("SIP/2.0 200")
        assert caller.receive(0.3) == ""
        caller.send(request, port)
        assert caller.receive_until("SIP/2.0 200")
        core.send(answer(got, "404 Not Found"), port)
        assert caller.receive(0.3) == ""
        assert proxy.counters()["retransmissions_received"] == 1


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.alone
def test_a_dead_core_is_noticed_by_icmp_and_passed_over(workers: int, local: Local) -> None:
    with Agent() as caller, Agent() as core:
        dead = free_port()
        proxy, port, _ = local(workers=workers, core=core.port, to=f'"sip:127.0.0.1:{dead}", "sip:127.0.0.1:{core.port}"')
        # More than an ICMP error quotes.
        padding = f"Subject: {'x' * 900}\r\n"
        for number in range(12):
            start = time.monotonic()
            call(caller, core, port, f"call-{number}", extra=padding)
            assert time.monotonic() - start < 1
        # Each worker learns it once.
        assert 1 <= proxy.counters()["fail_overs"] <= workers


def test_ipv4_to_ipv6(start_proxy: Callable[..., Proxy]) -> None:
    port = free_port("::1")
    with Agent() as caller, Agent("::1") as core:
        start_proxy(
            f'[install]\nstate_directory = "STATE"\n[install.listener.four]\naddress = "udp:127.0.0.1:{port}"\n'
            f'[install.listener.six]\naddress = "udp:[::1]:{port}"\n[peer.core]\nkind = "core"\nmatch = ["::1"]\nto = ["sip:[::1]:{core.port}"]\n'
            '[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n'
        )
        caller.send(invite("INVITE", caller.port, "sip:b@x.invalid"), port)
        request = core.receive_until("INVITE")
        assert f"SIP/2.0/UDP [::1]:{port}" in values(request, "Via")[0]
        assert len(values(request, "Record-Route")) == 2
        core.send(answer(request, "200 OK"), port, "::1")
        ok = caller.receive_until("SIP/2.0 200")
        ending = bye(caller, core, ok, "c1").replace(f"sip:b@127.0.0.1:{core.port}", f"sip:b@[::1]:{core.port}")
        caller.send(ending, port)
        assert core.receive_until("BYE")


class Truncating(DNSHandler):
    """Sends what does not fit into a datagram by TCP, as real servers do."""

    def get_reply(self, data: bytes) -> bytes:
        request = DNSRecord.parse(data)
        packed: bytes = self.server.resolver.resolve(request, self).pack()
        if self.protocol == "udp" and len(packed) > 512:
            cut = request.reply()
            cut.header.tc = 1
            packed = cut.pack()
        return packed


@pytest.mark.parametrize("records", [1, 120])
def test_srv_records_are_followed_in_order_however_many_there_are(records: int, local: Local) -> None:
    with Agent() as caller, Agent() as core:
        dead = [free_port() for _ in range(min(records, 2) - 1)]
        zone = Zone([*dead, core.port, *range(20_000, 20_000 + records - len(dead) - 1)])
        dns_port = free_port()
        servers = [DNSServer(zone, port=dns_port, address="127.0.0.1", tcp=tcp, handler=Truncating) for tcp in (False, True)]
        for server in servers:
            server.start_thread()
        try:
            _, port, _ = local(core=core.port, to='"sip:core.test"', extra=f'[dns]\nservers = ["127.0.0.1:{dns_port}"]')
            call(caller, core, port, "srv")
        finally:
            for server in servers:
                server.stop()
                server.server.server_close()


@pytest.mark.alone
def test_a_dns_server_that_never_answers_delays_no_other_call(local: Local) -> None:
    with Agent() as caller, Agent() as core, Agent() as silent:
        extra = f'[dns]\nservers = ["127.0.0.1:{silent.port}"]\n[tuning.timers]\nresolve_milliseconds = 1000'
        proxy, port, _ = local(core=core.port, extra=extra)
        for number in range(50):
            # A call of the core goes to its Request-URI.
            core.send(
                invite("INVITE", core.port, f"sip:x@nowhere{number}.test", call_id=f"d{number}", branch=f"d{number}"),
                port,
            )
        start = time.monotonic()
        call(caller, core, port, "quick")
        assert time.monotonic() - start < 0.5
        failed = [core.receive_until("SIP/2.0 500", 3) for _ in range(50)]
        assert all(failed)
        assert proxy.counters()["questions"] == 50


@pytest.mark.alone
def test_names_known_from_before_are_reached_while_a_flood_of_others_holds_every_question(local: Local) -> None:
    class Selective(Zone):
        def resolve(self, request: object, handler: object) -> object:
            if "nowhere" in str(request.q.qname):  # type: ignore[attr-defined]
                time.sleep(4)
            return super().resolve(request, handler)

    with Agent() as caller, Agent() as core:
        dns_port = free_port()
        server = DNSServer(Selective([core.port]), port=dns_port, address="127.0.0.1")
        server.server.daemon_threads = True
        server.start_thread()
        try:
            extra = f'[dns]\nservers = ["127.0.0.1:{dns_port}"]\nquestions = 5'
            _, port, _ = local(core=core.port, to='"sip:core.test"', extra=extra)
            call(caller, core, port, "known")
            for number in range(20):
                core.send(invite("INVITE", core.port, f"sip:x@nowhere{number}.test", call_id=f"d{number}", branch=f"d{number}"), port)
            start = time.monotonic()
            call(caller, core, port, "again")
            assert time.monotonic() - start < 0.5
        finally:
            server.stop()
            server.server.server_close()


@pytest.mark.alone
def test_slow_and_stuck_tcp_clients_are_closed_and_disturb_nobody(local: Local) -> None:
    extra = "[tuning.tcp]\nmessage_seconds = 1\nconnections_per_source = 150"
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port, extra=extra)
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        for client in slow:
            client.sendall(b"OPTIONS sip:x")
        refused = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        start = time.monotonic()
        call(caller, core, port, "beside")
        assert time.monotonic() - start < 0.5
        time.sleep(2.5)
        closed = 0
        for client in slow:
            client.settimeout(0.5)
            try:
                closed += client.recv(1) == b""
            except (ConnectionResetError, TimeoutError):
                closed += 1
        assert closed == 100
        assert proxy.counters()["connections_refused"] >= 10
        for client in slow + refused:
            client.close()


def test_who_floods_with_keep_alives_is_closed_and_who_sends_one_is_answered(local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        call(caller, core, port, "before")
        before = proxy.memory_bytes()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(2)
            client.sendall(b"\r\n\r\n")
            assert client.recv(16) == b"\r\n"
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                for _ in range(1_000):
                    client.sendall(b"\r\n\r\n" * 16_000)
        assert proxy.memory_bytes() - before < 4_000_000
        call(caller, core, port, "beside")


@pytest.mark.alone
def test_a_callee_that_stops_reading_holds_up_only_its_own_calls(local: Local) -> None:
    extra = "[tuning.tcp]\nmessage_seconds = 1\nwrite_queue_bytes = 65536"
    with Agent() as core, socket.create_server(("127.0.0.1", 0)) as deaf:
        proxy, port, _ = local(core=core.port, extra=extra)
        target = f"sip:x@127.0.0.1:{deaf.getsockname()[1]};transport=tcp"
        body = f"Subject: {'x' * 7_000}\r\n"
        # A core's calls go to their Request-URI: here to somebody who accepts and never reads.
        for number in range(1_200):
            core.send(invite("INVITE", core.port, target, call_id=f"deaf-{number}", branch=f"deaf-{number}", extra=body), port)
            if number % 100 == 0:
                time.sleep(0.02)
        start = time.monotonic()
        with Agent() as fresh:
            fresh.send(invite("OPTIONS", fresh.port, f"sip:127.0.0.1:{port}", call_id="ping", branch="ping"), port)
            assert fresh.receive_until("SIP/2.0 200")
        assert time.monotonic() - start < 0.5
        counters = proxy.counters()
        assert counters["attempts_undeliverable"] > 0
        assert counters["panics"] == 0


def test_tcp_keepalive_and_two_messages_in_one_segment(local: Local) -> None:
    with Agent() as core:
        _, port, _ = local(core=core.port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"\r\n\r\n")
            client.settimeout(2)
            assert client.recv(10) == b"\r\n"
            requests = [
                invite("OPTIONS", 1, f"sip:127.0.0.1:{port}", branch=str(n), call_id=str(n)).replace("UDP 127.0.0.1:1", "TCP 127.0.0.1:1")
                for n in range(2)
            ]
            client.sendall("".join(requests).encode())
            time.sleep(0.2)
            assert client.recv(65_535).count(b"SIP/2.0 200 OK") == 2
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(10) == b""


@pytest.mark.slow
def test_a_flood_of_garbage_fails_no_call(local: Local) -> None:
    with Agent() as caller, Agent() as core, Agent() as attacker:
        proxy, port, _ = local(core=core.port)
        stop = threading.Event()

        def flood() -> None:
            payload = bytes(range(256))
            while not stop.is_set():
                for _ in range(200):
                    attacker.send(payload, port)
                time.sleep(0.01)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            end = time.monotonic() + 4
            number = 0
            while time.monotonic() < end:
                number += 1
                _, ok = call(caller, core, port, f"f{number}")
                caller.send(bye(caller, core, ok, f"f{number}"), port)
                core.send(answer(core.receive_until("BYE"), "200 OK"), port)
                assert caller.receive_until("SIP/2.0 200")
        finally:
            stop.set()
            thread.join()
        counters = proxy.counters()
        assert counters["malformed_not_sip"] > 5_000
        assert counters["calls_failed"] == 0


@pytest.mark.slow
def test_mutated_messages_harm_nothing(local: Local) -> None:
    """A short run of what `make soak` does for longer."""
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        extra = "Route: <sip:127.0.0.1;lr>\r\nContact: <sip:x@y>\r\n"
        base = invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", extra=extra).encode()
        for number, message in enumerate(mutated(base, 20_000, seed=1)):
            caller.send(message, port)
            if number % 500 == 0:
                time.sleep(0.02)
        # The old caller's buffer is full of answers.
        with Agent() as fresh:
            call(fresh, core, port, "after")
        assert proxy.counters()["panics"] == 0


def test_inherited_sockets_are_used(tmp_path: Path, local: Local) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, Agent() as caller:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        file = tmp_path / "inherited.toml"
        file.write_text(
            f'[install]\nstate_directory = "{tmp_path}/state"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
            '[peer.l]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n'
        )
        command = f'exec 3<&{udp.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "{EDGEPROXY}" run "{file}"'
        process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=[udp.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            caller.send(invite("OPTIONS", caller.port, f"sip:127.0.0.1:{port}"), port)
            assert caller.receive_until("SIP/2.0 200")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            process.stdout.close()


def _fails(file: Path) -> list[str]:
    outputs = []
    for command in ("check", "run"):
        done = subprocess.run([EDGEPROXY, command, str(file)], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        assert "ready" not in done.stdout
        outputs.append(done.stderr.strip())
    return outputs


def test_run_and_check_refuse_alike_and_tell_every_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[install]\nworker = 2\n[install.listener.a]\naddress = "udp:203.0.113.77:5060"\n[peer.x]\nkind = "corre"\n')
    check, run = _fails(file)
    assert check == run
    assert f"{file}:2: install.worker: unknown key\nhint: did you mean workers?" in check
    assert f"{file}:6: peer.x.kind: invalid enum value 'corre', got: 'corre'" in check


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "far.toml"
    file.write_text('[install.listener.a]\naddress = "udp:203.0.113.77:5060"\n[peer.x]\nkind = "trusted"\nmatch = ["127.0.0.1"]\n')
    assert all(f"{file}:2: install.listener.a.address: not an address of this machine" in text for text in _fails(file))


def test_check_says_what_a_start_would_say_of_places_and_tokens(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret\n")
    file = tmp_path / "edge.toml"

    def told(*lines: str, state: str = f"{tmp_path}/state") -> list[str]:
        listener = f'[install.listener.a]\naddress = "udp:127.0.0.1:{free_port()}"'
        file.write_text("\n".join([f'[install]\nstate_directory = "{state}"', listener, *lines, ""]))
        return _fails(file)

    assert f"{file}:2: install.state_directory: nothing can be made in /proc" in told(state="/proc/nope")[0]
    assert f"{file}:6: records.path: nothing can be made in /proc" in told("[records]", 'path = "/proc/nope/calls"')[0]
    free = free_port()
    for address in ("listen", "metrics_listen"):
        lines = "[api]", f'{address} = "203.0.113.77:{free}"', 'token_file = "/dev/null"'
        assert f"{file}:6: api.{address}: not an address of this machine" in told(*lines)[0]
    listen = f'listen = "127.0.0.1:{free}"'
    for path, problem in (("/nonexistent/token", "cannot be read"), (f"{tmp_path}/short", "expected a token of 16 characters or more")):
        check, run = told("[api]", listen, f'token_file = "{path}"')
        assert f"{file}:7: api.token_file: {problem}" in check
        assert f"api.token_file: {problem}" in run
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_sink_whose_directory_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sinks.toml"
    file.write_text(
        f'[install]\nstate_directory = "{tmp_path}/state"\n[install.listener.a]\naddress = "udp:127.0.0.1:{free_port()}"\n'
        f'[events.sink.lines]\nto = "file:{tmp_path}/none/events"\nevents = ["*"]\n'
    )
    assert all(f"{file}:6: events.sink.lines.to: no such directory: {tmp_path}/none" in text for text in _fails(file))


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_database_that_hangs_is_told_in_time_and_a_start_that_waits_for_it_can_be_ended(scheme: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = tmp_path / "edge.toml"
        file.write_text(
            f'[install]\nstate_directory = "{tmp_path}/state"\ndatabase = "{scheme}://u:p@127.0.0.1:{silent.getsockname()[1]}/d"\n'
            f'[install.listener.a]\naddress = "udp:127.0.0.1:{free_port()}"\n[registrar]\ndomains = ["edge.example"]\n'
            '[peer.phones]\nkind = "subscribers"\nmatch = ["127.0.0.0/8"]\n'
        )
        starts = [subprocess.Popen([EDGEPROXY, "run", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)]
        time.sleep(3)
        starts[0].send_signal(signal.SIGTERM)
        told, _ = starts[0].communicate(timeout=7)
        assert (starts[0].returncode, "ended before it served" in told) == (0, True), told
        began = time.monotonic()
        starts += [
            subprocess.Popen([EDGEPROXY, word, str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for word in ("run", "check")
        ]
        for one in starts[1:]:
            told, _ = one.communicate(timeout=30)
            assert one.returncode == 1
            assert "no answer within 10 s" in told
            assert "Traceback" not in told
        assert time.monotonic() - began < 25


def test_an_address_in_use_is_refused_before_anything_starts(tmp_path: Path, local: Local) -> None:
    _, port, _ = local()
    file = tmp_path / "second.toml"
    free = free_port()
    file.write_text(
        f'[install]\nstate_directory = "{tmp_path}/second"\n[install.listener.a]\naddress = "udp:127.0.0.1:{free}"\n'
        f'[install.listener.b]\naddress = "udp:127.0.0.1:{port}"\n'
    )
    done = subprocess.run([EDGEPROXY, "run", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"listener.b: cannot bind udp:127.0.0.1:{port}" in done.stderr
    assert not (tmp_path / "second").exists()
    assert subprocess.run([EDGEPROXY, "check", str(file)], capture_output=True, timeout=20, check=False).returncode == 0


def test_a_second_proxy_on_a_state_directory_is_refused_and_takes_nothing(local: Local, tmp_path: Path) -> None:
    proxy, port, _ = local()
    file = tmp_path / "second.toml"
    file.write_text(proxy.file.read_text().replace(str(port), str(free_port())))
    done = subprocess.run([EDGEPROXY, "run", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, f"another edgeproxy serves from {proxy.state}" in done.stderr) == (1, True), done.stderr
    assert json.loads(manage(proxy, "status")[1])["file"] == str(proxy.file)
    kept = json.loads(manage(proxy, "revisions")[1])["revisions"]
    assert [revision["name"] for revision in kept] == [str(proxy.file)], "what never served is nothing to go back to"
    proxy.signal(signal.SIGKILL)
    assert proxy.process
    proxy.process.wait(5)
    assert manage(proxy.start(), "status")[0] == 0


def test_the_key_is_for_us_alone_and_no_secret_is_logged(local: Local) -> None:
    with Agent() as caller:
        proxy, port, _ = local()
        key = proxy.state / "route.key"
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.stat().st_size == 16
        caller.send(invite("INVITE", caller.port, "sip:b", extra="Authorization: Digest response=topsecret\r\n"), port)
        time.sleep(0.5)
        assert "topsecret" not in (proxy.folder / "edge.log").read_text()


def test_a_full_disk_loses_records_and_no_call(start_proxy: Callable[..., Proxy]) -> None:
    if not Path("/dev/full").exists():
        pytest.fail("/dev/full is part of every Linux")
    with Agent() as caller, Agent() as core:
        port = free_port()
        proxy = start_proxy(
            f'[install]\nstate_directory = "STATE"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n[records]\npath = "/dev/full"\n'
            f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n'
            '[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n'
        )
        _, ok = call(caller, core, port, "c")
        caller.send(bye(caller, core, ok, "c"), port)
        core.send(answer(core.receive_until("BYE"), "200 OK"), port)
        assert caller.receive_until("SIP/2.0 200")
        wait_for(lambda: any("cannot write call records" in line["event"] for line in proxy.log), 3)
        # What the disk did not take is tried again, until the end.
        counters = proxy.counters()
        assert (counters["records_written"], counters["records_dropped"]) == (0, 0)
        assert proxy.stop() == 0
        (stopped,) = (line for line in proxy.log if line["event"] == "stopped")
        assert (stopped["records_written"], stopped["records_dropped"]) == (0, 1)


@pytest.mark.parametrize("signals", [1, 2])
def test_what_rings_when_the_process_ends_is_cancelled_and_its_caller_answered(signals: int, local: Local) -> None:
    with Agent() as caller, Agent() as core:
        proxy, port, _ = local(core=core.port)
        proxy.file.write_text(re.sub(r"drain_seconds = \d+", "drain_seconds = 1", proxy.file.read_text()))
        assert manage(proxy, "reload")[0] == 0
        assert proxy.process
        caller.send(invite("INVITE", caller.port, f"sip:b@127.0.0.1:{core.port}", call_id="rings", branch="rings"), port)
        core.send(answer(core.receive_until("INVITE"), "180 Ringing"), port)
        assert caller.receive_until("SIP/2.0 180")
        for _ in range(signals):
            proxy.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert core.receive_until("CANCEL", having="Call-ID: rings\r\n")
        refused = caller.receive_until("SIP/2.0 503", having="Call-ID: rings\r\n")
        assert values(refused, "Retry-After")
        assert proxy.process.wait(10) == 0
        (record,) = proxy.records(1)
        assert (record["status_code"], record["outcome"], record["ended_by"]) == (503, "failed", "proxy")
