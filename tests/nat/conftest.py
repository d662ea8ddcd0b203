"""What all tests behind NATs have in common: the proxy, homes, phones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.phone import Phone
from tests.integration.proxy import Proxy
from tests.nat.network import PROXY, Home, internet

PORT = 5060
TOML = f"""
[install]
state_directory = "STATE"
[install.listener.public]
address = "udp:{PROXY}:{PORT}"
[peer.phones]
kind = "subscribers"
match = ["*;listener=public"]
authenticate = false
[registrar]
domains = ["edge.example"]
write_seconds = 1
[registrar.keep_alive]
method = "options"
interval_seconds = 1
[media]
"""


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with internet():
        started = Proxy(tmp_path, TOML).start()
        yield started
        started.stop()


@pytest.fixture
def home() -> Iterator[Callable[..., Home]]:
    made: list[Home] = []

    def make(nat: tuple[str, ...]) -> Home:
        made.append(Home(len(made), nat))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def phone() -> Iterator[Callable[..., Phone]]:
    made: list[Phone] = []

    def make(user: str, where: Home, host: int = 2, port: int = 5060) -> Phone:
        with where.inside.entered():
            made.append(Phone(user, PORT, host=f"10.0.0.{host}", port=port, proxy=PROXY))
        return made[-1]

    yield make
    for one in made:
        one.close()
