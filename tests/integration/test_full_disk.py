"""Disks that fill up, and readers that are gone: nothing is lost but what could not be written, and that is told."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.agent import Agent, answer, bye, call, invite
from tests.integration.proxy import Proxy, free_port, manage


def with_core(port: int, core: int, *, install: str = "", extra: str = "") -> str:
    """Return a file with one listener, a core, and everybody else on this machine."""
    return (
        f'[install]\nstate_directory = "STATE"\n{install}[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
        f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core}"]\nto = ["sip:127.0.0.1:{core}"]\n'
        f'[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n{extra}'
    )


def reloaded(proxy: Proxy, count: int) -> bool:
    """Apply the file by SIGHUP; return whether the log tells of `count` reloads."""
    proxy.signal(signal.SIGHUP)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if sum(line["event"] == "reloaded" for line in proxy.log) == count:
            return True
        time.sleep(0.05)
    return False


def test_a_full_state_directory_stops_neither_calls_nor_reloads(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    state = tmp_path / "edge-state"
    state.mkdir()
    # A small disk that only this process sees; the shell becomes the proxy.
    prefix = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f'mount -t tmpfs -o size=128k tmpfs {state} && exec "$@"',
        "sh",
    ]
    with Agent() as caller, Agent() as core:
        port = free_port()
        proxy = start_proxy(
            with_core(port, core.port),
            prefix=prefix,
        )
        assert proxy.process
        inside = Path(f"/proc/{proxy.process.pid}/root{state}")
        assert (inside / "route.key").exists()
        filler = inside / "filler"
        try:
            filler.write_bytes(b"x" * (1 << 20))
        except OSError:
            pass
        else:
            raise AssertionError("the disk is not full")
        revisions = {path.name for path in (inside / "revisions").glob("*.json")}
        proxy.file.write_text(proxy.file.read_text() + '[peer.more]\nkind = "gateway"\nmatch = ["192.0.2.1"]\n')
        assert reloaded(proxy, 1)
        (line,) = (line for line in proxy.log if line["event"] == "revision not kept")
        assert "No space left" in line["error"]
        assert [line["revision"] for line in proxy.log if line["event"] == "reloaded"] == [None]
        assert {path.name for path in (inside / "revisions").glob("*.json")} == revisions
        for number in range(3):
            call(caller, core, port, f"full{number}")
        # Memory is not filled with what cannot be written either.
        proxy.file.write_text(proxy.file.read_text().replace("192.0.2.1", "192.0.2.2"))
        filler.unlink()
        assert reloaded(proxy, 2)
        assert {path.name for path in (inside / "revisions").glob("*.json")} > revisions
        assert proxy.stop() == 0


RAISER = """
from edgeproxy.policy import Policy, Reject
policy = Policy()
@policy.on_request("INVITE", peer="local")
def decide(call):
    if call.request_uri.user == "raise":
        raise ValueError("half a pair: \\udce9")
    return Reject(486) if call.request_uri.user == "busy" else None
"""


def test_a_log_that_nobody_takes_costs_no_call_no_reload_and_no_drain(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    (tmp_path / "raiser.py").write_text(RAISER)
    with Agent() as caller, Agent() as core:
        port = free_port()
        proxy = start_proxy(
            with_core(port, core.port, install="drain_seconds = 20\n", extra='[[policy]]\nmodule = "raiser"\n'),
            prefix=["sh", "-c", 'exec "$@" 2> /dev/full', "sh"],
            environment={**os.environ, "NOTIFY_SOCKET": "/nonexistent/notify"},
        )
        _, ok = call(caller, core, port, "lives")
        users = ["busy"] * 40
        users[10] = "raise"
        for number, user in enumerate(users):
            caller.send(invite("INVITE", caller.port, f"sip:{user}@127.0.0.1", call_id=f"c{number}", branch=f"c{number}"), port)
        told: dict[str, str] = {}
        end = time.monotonic() + 5
        while len(told) < len(users) and time.monotonic() < end:
            message = caller.receive(0.5)
            if message.startswith("SIP/2.0") and not message.startswith("SIP/2.0 100"):
                told[message.split("Call-ID: ")[1].split("\r")[0]] = message[8:11]
        assert told == {f"c{number}": "500" if user == "raise" else "486" for number, user in enumerate(users)}
        proxy.file.write_text(proxy.file.read_text() + '[peer.more]\nkind = "gateway"\nmatch = ["192.0.2.1"]\n')
        code, said = manage(proxy, "reload")
        assert (code, "peer.more.kind" in json.loads(said)["changed"]) == (0, True)
        metrics = manage(proxy, "metrics")[1]
        assert int(metrics.split("edgeproxy_log_lines_unwritten_total{")[1].split()[1]) > 2
        proxy.signal(signal.SIGTERM)
        time.sleep(1)
        caller.send(bye(caller, core, ok, "lives"), port)
        ended = core.receive_until("BYE")
        assert ended
        core.send(answer(ended, "200 OK"), port)
        assert proxy.process
        assert proxy.process.wait(10) == 0


def test_a_reader_of_the_log_that_stands_still_holds_up_neither_calls_nor_management_nor_the_end(
    start_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    (tmp_path / "raiser.py").write_text(RAISER.replace("half a pair: \\udce9", "x" * 3_000))
    stalled = tmp_path / "stalled"
    os.mkfifo(stalled)
    reader = os.open(stalled, os.O_RDONLY | os.O_NONBLOCK)
    with Agent() as caller, Agent() as core:
        port = free_port()
        proxy = start_proxy(
            with_core(port, core.port, extra='[[policy]]\nmodule = "raiser"\n'),
            prefix=["sh", "-c", f'exec "$@" 2> {stalled}', "sh"],
        )
        for number in range(60):
            caller.send(invite("INVITE", caller.port, "sip:raise@127.0.0.1", call_id=f"r{number}", branch=f"r{number}"), port)
            assert caller.receive_until("SIP/2.0 500", having=f"Call-ID: r{number}\r\n")
        begun = time.monotonic()
        for number in range(20):
            call(caller, core, port, f"c{number}")
        assert manage(proxy, "status")[0] == 0
        assert manage(proxy, "reload")[0] == 0
        assert time.monotonic() - begun < 8
        # With calls that live: the first signal drains, the second ends.
        assert proxy.stop(8) == 0
    os.close(reader)


def test_without_standard_error_nothing_is_printed_anywhere(start_proxy: Callable[..., Proxy]) -> None:
    with Agent() as caller, Agent() as core:
        port = free_port()
        proxy = start_proxy(
            with_core(port, core.port),
            prefix=["sh", "-c", 'exec "$@" 2>&-', "sh"],
        )
        assert proxy.process
        assert Path(f"/proc/{proxy.process.pid}/fd/2").readlink() == Path("/dev/null")
        call(caller, core, port, "c")
        assert manage(proxy, "reload")[0] == 0
