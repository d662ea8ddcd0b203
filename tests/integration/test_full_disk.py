"""A state directory on a disk that fills up: nothing is lost but what could not be written, and that is told."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.agent import Agent, call
from tests.integration.proxy import Proxy, free_port


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
            f'[install]\nstate_directory = "STATE"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
            f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n'
            '[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n',
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
        assert {path.name for path in (inside / "revisions").glob("*.json")} == revisions
        for number in range(3):
            call(caller, core, port, f"full{number}")
        # Memory is not filled with what cannot be written either.
        proxy.file.write_text(proxy.file.read_text().replace("192.0.2.1", "192.0.2.2"))
        filler.unlink()
        assert reloaded(proxy, 2)
        assert {path.name for path in (inside / "revisions").glob("*.json")} > revisions
        assert proxy.stop() == 0
