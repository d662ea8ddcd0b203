"""Life under a service manager: readiness, the watchdog, the unit, another user, and rights."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent import Agent, call
from tests.integration.proxy import EDGEPROXY, Proxy, free_port, is_bound

ROOT = Path(__file__).parent.parent.parent
AS_ROOT = os.geteuid() == 0


class Manager:
    """A notify socket of our own."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}

    def heard(self, seconds: float) -> list[str]:
        """Return what is said within so many seconds."""
        found, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                found.append(self.socket.recv(256).decode())
            except TimeoutError:
                break
        return found


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_that_we_are_ready_alive_and_ending(abstract: bool, start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    manager = Manager(f"@edgeproxy-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    port = free_port()
    toml = f'[install]\nstate_directory = "STATE"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
    proxy = start_proxy(toml, environment=manager.environment)
    heard = manager.heard(1.5)
    assert heard.count("READY=1") == 1
    assert 5 <= heard.count("WATCHDOG=1") <= 10
    proxy.signal(signal.SIGTERM)
    assert "STOPPING=1" in manager.heard(1)
    assert proxy.stop() == 0
    manager.heard(0.1)
    assert manager.heard(0.6) == []
    manager.socket.close()


@pytest.mark.alone
def test_the_watchdog_is_fed_by_a_thread_without_interpreter_and_not_while_the_process_stands(
    start_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    port = free_port()
    toml = f'[install]\nstate_directory = "STATE"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
    proxy = start_proxy(toml, environment=manager.environment)
    assert proxy.process
    names = [path.read_text().strip() for path in Path(f"/proc/{proxy.process.pid}/task").glob("*/comm")]
    assert "watchdog" in names
    proxy.signal(signal.SIGSTOP)
    manager.heard(0.3)
    assert manager.heard(1) == []
    proxy.signal(signal.SIGCONT)
    assert "WATCHDOG=1" in manager.heard(1)
    manager.socket.close()


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = (ROOT / "packaging" / "edgeproxy.service").read_text()
    unit = tmp_path / "edgeproxy.service"
    unit.write_text(
        text.replace("/opt/edgeproxy/.venv/bin/edgeproxy", EDGEPROXY)
        .replace("User=edgeproxy", "User=daemon")
        .replace("Group=edgeproxy", "Group=daemon")
    )
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "edgeproxy.service" in line]
    assert (done.returncode, complaints) == (0, [])
    assert "WatchdogSec=" in text
    assert "Type=notify" in text
    wrong = tmp_path / "wrong.service"
    wrong.write_text(unit.read_text().replace("Type=notify", "Type=nonsense"))
    again = subprocess.run(["systemd-analyze", "verify", "--man=no", str(wrong)], capture_output=True, text=True, check=False)
    assert "nonsense" in again.stderr, "the check can fail"


def own_name(low: bool) -> str:
    """Return how pytest names the test below with this parameter."""
    return f"test_root_becomes_another_user_and_keeps_only_what_the_listeners_need[{low}]"


def above(folder: Path) -> list[Path]:
    """Return the folders above that the tests made."""
    return [parent for parent in folder.parents if Path(tempfile.gettempdir()) in parent.parents]


def run_as_root(test: str) -> subprocess.CompletedProcess[str]:
    """Run a test of this file again: who installs packages with sudo can run it with that as well."""
    again = ["sudo", "-n", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::{test}"]
    return subprocess.run(again, capture_output=True, text=True, check=False, cwd=ROOT)


def state_of(process: int) -> dict[str, str]:
    """Return the fields of a process's status."""
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE))


@pytest.mark.parametrize("low", [False, True])
def test_root_becomes_another_user_and_keeps_only_what_the_listeners_need(
    low: bool, start_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    if not AS_ROOT:
        done = run_as_root(own_name(low))
        assert done.returncode == 0, done.stdout + done.stderr
        return
    # The folders above belong to root alone.
    for folder in (tmp_path, *above(tmp_path)):
        folder.chmod(0o755)
    low_port = next(port for port in range(700, 1_000) if not is_bound(port))
    port = low_port if low else free_port()
    with Agent() as caller, Agent() as core:
        toml = (
            f'[install]\nstate_directory = "STATE"\nuser = "nobody"\n[install.listener.u]\naddress = "udp:127.0.0.1:{port}"\n'
            f'[peer.core]\nkind = "core"\nmatch = ["127.0.0.1:{core.port}"]\nto = ["sip:127.0.0.1:{core.port}"]\n'
            '[peer.local]\nkind = "trusted"\nmatch = ["127.0.0.0/8"]\n'
        )
        proxy = start_proxy(toml)
        assert proxy.process
        call(caller, core, port, "dropped")
        bind_low = "0000000000000400"
        threads = [int(path.name) for path in Path(f"/proc/{proxy.process.pid}/task").iterdir()]
        for thread in threads:
            state = state_of(thread)
            assert state["Uid"].split() == ["65534"] * 4
            assert state["Groups"].strip() == ""
            assert state["CapEff"] == state["CapPrm"] == (bind_low if low else "0" * 16)
            assert state["NoNewPrivs"] == "1"
        assert (proxy.state / "route.key").stat().st_uid == 65_534


def check(tmp_path: Path, text: str) -> tuple[int, str]:
    """Return what `check` says of a file."""
    file = tmp_path / "edge.toml"
    file.write_text(text)
    done = subprocess.run([EDGEPROXY, "check", str(file)], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_what_is_missing_is_told_by_check(tmp_path: Path) -> None:
    listener = f'[install.listener.u]\naddress = "udp:127.0.0.1:{free_port()}"\n'
    code, text = check(tmp_path, f'[install]\nstate_directory = "{tmp_path}"\nuser = "no-such-user"\ngroup = "no-such-group"\n{listener}')
    assert code == 1
    assert "install.user: no such user on this machine, got: no-such-user" in text
    assert "install.group: no such group on this machine, got: no-such-group" in text
    code, text = check(tmp_path, f'[install]\nstate_directory = "{tmp_path}"\ngroup = "nogroup"\n{listener}')
    assert (code, "a group needs a user" in text) == (1, True)


def test_check_looks_with_the_eyes_of_the_user_that_will_serve(tmp_path: Path) -> None:
    if not AS_ROOT:
        done = run_as_root("test_check_looks_with_the_eyes_of_the_user_that_will_serve")
        assert done.returncode == 0, done.stdout + done.stderr
        return
    for folder in (tmp_path, *above(tmp_path)):
        folder.chmod(0o755)
    state, token, records = tmp_path / "state", tmp_path / "token", tmp_path / "records"
    token.write_text("secret-of-sixteen-letters\n")
    token.chmod(0o600)
    records.mkdir(mode=0o700)
    text = (
        f'[install]\nstate_directory = "{state}"\nuser = "nobody"\n[install.listener.u]\naddress = "udp:127.0.0.1:{free_port()}"\n'
        f'[api]\nlisten = "127.0.0.1:{free_port()}"\ntoken_file = "{token}"\n'
    )
    # The start makes the directory and gives it to the user; it does not give the others.
    for _ in range(2):
        code, said = check(tmp_path, text + f'[records]\npath = "{records}/calls.jsonl"\n')
        assert (code, "install.user may not read" in said, "records.path: install.user may make nothing" in said) == (1, True, True), said
        state.mkdir(exist_ok=True)
        os.chown(state, 65_534, 65_534)
    os.chown(token, 65_534, 65_534)
    assert check(tmp_path, text + f'[records]\npath = "{state}/calls/calls.jsonl"\n') == (0, "")


def test_a_low_port_without_the_right_to_it_is_told_by_check(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(f'[install]\nstate_directory = "{tmp_path}"\n[install.listener.u]\naddress = "udp:127.0.0.1:700"\n')
    script = "import sys; from edgeproxy._native import become_user; become_user(0, 0, False); from edgeproxy.cli import main; main()"
    # Anybody but root has no such right to begin with.
    line = [str(Path(EDGEPROXY).with_name("python")), "-c", script, "check", str(file)] if AS_ROOT else [EDGEPROXY, "check", str(file)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "install.listener.u.address: ports below 1024 need a right that this process has not, got: udp:127.0.0.1:700" in done.stderr
