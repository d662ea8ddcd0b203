"""Listeners that come and go with a reload, without a call noticing."""

import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.integration.agent import Agent, answer, bye, call, invite
from tests.integration.proxy import Proxy, free_port, is_bound, manage

HEAD = '[install]\nstate_directory = "STATE"\nworkers = {workers}\ndrain_seconds = {drain}\n'
TAIL = '[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core}"]\nto = ["sip:127.0.0.1:{core}"]\n[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n'


def listener(name: str, port: int, transport: str = "udp") -> str:
    return f'[install.listener.{name}]\naddress = "{transport}:127.0.0.1:{port}"\n'


@pytest.mark.parametrize("workers", [1, 2])
def test_a_listener_comes_and_another_drains_and_closes(workers: int, start_proxy: Callable[..., Proxy]) -> None:
    first, second = free_port(), free_port()
    with Agent() as caller, Agent() as core:
        head, tail = HEAD.format(workers=workers, drain=2), TAIL.format(core=core.port)
        proxy = start_proxy(head + listener("one", first) + tail)
        _, ok = call(caller, core, first, "before")
        text = proxy.file.read_text()
        proxy.file.write_text(text.replace(listener("one", first), listener("two", second)))
        code, said = manage(proxy, "reload")
        assert code == 0, said
        # The new one serves at once.
        call(caller, core, second, "after")
        # The old one refuses what is new, and goes on with what is under way.
        caller.send(invite("INVITE", caller.port, "sip:b@127.0.0.1", call_id="late", branch="late"), first)
        assert "Retry-After" in caller.receive_until("SIP/2.0 503")
        caller.send(bye(caller, core, ok, "before"), first)
        request = core.receive_until("BYE")
        core.send(answer(request, "200 OK"), second)
        assert caller.receive_until("SIP/2.0 200", having="CSeq: 2 BYE")
        end = time.monotonic() + 6
        while is_bound(first) and time.monotonic() < end:
            time.sleep(0.1)
        assert not is_bound(first)
        # And it may come back.
        proxy.file.write_text(proxy.file.read_text().replace(listener("two", second), listener("one", first)))
        assert manage(proxy, "reload")[0] == 0
        call(caller, core, first, "again")
        assert {record["listener"] for record in proxy.records(2)} == {"one"}


def test_a_listener_that_comes_back_before_it_is_closed_goes_on(start_proxy: Callable[..., Proxy]) -> None:
    first, second = free_port(), free_port()
    with Agent() as caller, Agent() as core:
        proxy = start_proxy(
            HEAD.format(workers=1, drain=1) + listener("one", first) + listener("two", second) + TAIL.format(core=core.port)
        )
        text = proxy.file.read_text()
        proxy.file.write_text(text.replace(listener("one", first), ""))
        assert manage(proxy, "reload")[0] == 0
        proxy.file.write_text(text)
        assert manage(proxy, "reload")[0] == 0
        time.sleep(1.5)
        call(caller, core, first, "back")


def test_tcp_listeners_come_and_go_and_connections_stay(start_proxy: Callable[..., Proxy]) -> None:
    port, udp = free_port(), free_port()
    with Agent() as core:
        proxy = start_proxy(HEAD.format(workers=1, drain=1) + listener("udp", udp) + TAIL.format(core=core.port))
        text = proxy.file.read_text()
        proxy.file.write_text(text + listener("tcp", port, "tcp"))
        assert manage(proxy, "reload")[0] == 0
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(3)
            ping = invite("OPTIONS", 5060, f"sip:127.0.0.1:{port}", call_id="ping").replace("SIP/2.0/UDP", "SIP/2.0/TCP")
            connection.sendall(ping.encode())
            assert connection.recv(4_096).startswith(b"SIP/2.0 200")
            proxy.file.write_text(text)
            assert manage(proxy, "reload")[0] == 0
            connection.sendall(b"\r\n\r\n")
            assert connection.recv(16) == b"\r\n"
            with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                pass
        proxy.file.write_text(text + listener("tcp", port, "tcp"))
        assert manage(proxy, "reload")[0] == 0
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_listener_that_cannot_be_had_changes_nothing(start_proxy: Callable[..., Proxy]) -> None:
    first = free_port()
    with Agent() as caller, Agent() as core, Agent() as taken:
        proxy = start_proxy(HEAD.format(workers=1, drain=1) + listener("one", first) + TAIL.format(core=core.port))
        text = proxy.file.read_text()
        proxy.file.write_text(text.replace(listener("one", first), listener("two", taken.port)))
        code, said = manage(proxy, "reload")
        assert (code, f"listener.two: cannot bind udp:127.0.0.1:{taken.port}" in said) == (1, True)
        call(caller, core, first, "unchanged")


def test_calls_do_not_notice_that_listeners_change(start_proxy: Callable[..., Proxy]) -> None:
    first = free_port()
    with Agent() as caller, Agent() as core:
        proxy = start_proxy(HEAD.format(workers=2, drain=0) + listener("one", first) + TAIL.format(core=core.port))
        text = proxy.file.read_text()
        for number in range(20):
            more = listener("more", free_port()) if number % 2 else ""
            proxy.file.write_text(text + more)
            assert manage(proxy, "reload")[0] == 0
            call(caller, core, first, f"call{number}")
        assert isinstance(proxy.process, subprocess.Popen)
        assert proxy.counters()["calls_answered"] == 20


def test_who_is_known_by_a_listener_that_moves_is_still_known_while_it_drains(start_proxy: Callable[..., Proxy]) -> None:
    first, second = free_port(), free_port()
    with Agent() as caller, Agent() as core:
        tail = f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n[peer.phones]\nkind = "subscribers"\nmatch = ["*;listener=public"]\n'
        proxy = start_proxy(HEAD.format(workers=1, drain=3) + listener("public", first) + tail)
        call(caller, core, first, "before")
        proxy.file.write_text(proxy.file.read_text().replace(listener("public", first), listener("public", second)))
        assert manage(proxy, "reload")[0] == 0
        caller.send(invite("INVITE", caller.port, "sip:b@127.0.0.1", call_id="late", branch="late"), first)
        assert "Retry-After" in caller.receive_until("SIP/2.0 503")
        call(caller, core, second, "after")


def test_who_was_known_by_a_listener_that_is_gone_is_sent_elsewhere_and_is_no_stranger(start_proxy: Callable[..., Proxy]) -> None:
    first, second = free_port(), free_port()
    with Agent() as caller, Agent() as core:
        phones = '[peer.phones]\nkind = "subscribers"\nmatch = ["*;listener=public"]\n'
        tail = f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n' + phones
        proxy = start_proxy(HEAD.format(workers=1, drain=3) + listener("public", first) + tail)
        text = proxy.file.read_text().replace(listener("public", first), listener("other", second)).replace("=public", "=other")
        proxy.file.write_text(text)
        assert manage(proxy, "reload")[0] == 0
        for method in ("INVITE", "MESSAGE"):
            caller.send(invite(method, caller.port, "sip:b@127.0.0.1", call_id=method, branch=method), first)
            assert "Retry-After" in caller.receive_until("SIP/2.0 503"), method
        counters = proxy.counters()
        assert (counters["refused_strangers"], counters["shed_draining"]) == (0, 2)
        (record,) = proxy.records(1)
        assert (record["status_code"], record["refused_by"]) == (503, "admit")


def test_a_dialog_under_an_advertised_name_that_changed_goes_on(start_proxy: Callable[..., Proxy]) -> None:
    first = free_port()
    with Agent() as caller, Agent() as core:
        named = listener("one", first) + 'advertise = "old.example.net"\n'
        proxy = start_proxy(HEAD.format(workers=1, drain=1) + named + TAIL.format(core=core.port))
        _, ok = call(caller, core, first, "named")
        assert "old.example.net" in ok
        proxy.file.write_text(proxy.file.read_text().replace("old.example.net", "new.example.net"))
        assert manage(proxy, "reload")[0] == 0
        caller.send(bye(caller, core, ok, "named"), first)
        assert core.receive_until("BYE")


def test_which_workers_have_a_listener_changes_with_a_restart_only(start_proxy: Callable[..., Proxy]) -> None:
    first = free_port()
    with Agent() as core:
        proxy = start_proxy(HEAD.format(workers=2, drain=1) + listener("one", first) + TAIL.format(core=core.port))
        proxy.file.write_text(proxy.file.read_text().replace(listener("one", first), listener("one", first) + "workers = [1]\n"))
        code, said = manage(proxy, "reload")
        assert (code, "install.listener.one.workers: changes with a restart only" in said) == (1, True)


def test_a_collector_that_cannot_be_reached_changes_nothing(start_proxy: Callable[..., Proxy]) -> None:
    first, second = free_port(), free_port()
    with Agent() as caller, Agent() as core:
        proxy = start_proxy(HEAD.format(workers=1, drain=1) + listener("one", first) + TAIL.format(core=core.port))
        text = proxy.file.read_text() + listener("two", second)
        # The kernel lets nobody connect to a broadcast address.
        proxy.file.write_text(text + '[trace]\ncollector = "255.255.255.255:9060"\n')
        code, said = manage(proxy, "reload")
        assert (code, "trace.collector" in said) == (1, True)
        assert not is_bound(second)
        call(caller, core, first, "unchanged")
        proxy.file.write_text(text)
        assert manage(proxy, "reload")[0] == 0
        call(caller, core, second, "later")
