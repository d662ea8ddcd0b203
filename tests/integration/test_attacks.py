"""Real attack tools against the real process: sipvicious enumerates users and cracks passwords, and learns nothing."""

import sqlite3
import subprocess
from collections.abc import Callable

import pytest

from tests.integration.phone import Phone
from tests.integration.proxy import Proxy, free_port

# sipvicious takes the target's address for the domain.
TOML = """
[install]
state_directory = "STATE"
[install.listener.udp]
address = "udp:127.0.0.1:{port}"
[peer.phones]
kind = "subscribers"
match = ["127.0.0.0/8"]
[registrar]
domains = ["127.0.0.1"]
persist = false
[events]
log = ["E_AUTH_ATTACK", "E_BAN_ADDED"]
"""


def tool(name: str, port: int, *words: str) -> str:
    line = [name, "-p", str(port), "-P", str(free_port()), *words, "127.0.0.1"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def attacked(start_proxy: Callable[..., Proxy]) -> tuple[Proxy, int]:
    port = free_port()
    proxy = start_proxy(TOML.format(port=port))
    with sqlite3.connect(proxy.state / "edgeproxy.db") as database:
        database.execute("INSERT INTO subscriber (username, password) VALUES ('100', '777')")
    database.close()
    return proxy, port


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "OPTIONS"])
def test_users_cannot_be_told_from_those_that_there_are_not(method: str, attacked: tuple[Proxy, int]) -> None:
    _, port = attacked
    said = tool("svwar", port, "--force", "-m", method, "-e", "98-102")
    # Either it finds nobody, or it takes everybody for one: 100 is the one that there is.
    found = [line for line in said.splitlines() if line.startswith("| 1") or line.startswith("| 9")]
    assert len(found) in (0, 5), said


def test_a_password_is_not_found_by_trying(attacked: tuple[Proxy, int]) -> None:
    proxy, port = attacked
    with Phone("100", port, domain="127.0.0.1", host="127.0.0.9") as phone:
        assert phone.register("777").startswith("SIP/2.0 200")
        assert "| 777" not in tool("svcrack", port, "-u", "100", "-r", "740-790")
        assert phone.register("777").startswith("SIP/2.0 200"), "the user itself is heard"
    assert proxy.told("E_AUTH_ATTACK")[0]["scope"] == "pair"
    assert proxy.counters()["authentication_failed"] == 20


def test_the_tool_finds_what_it_may_try(attacked: tuple[Proxy, int]) -> None:
    """The proof that the tool works: a password among the first twenty is found."""
    _, port = attacked
    assert "| 777" in tool("svcrack", port, "-u", "100", "-r", "770-780")
