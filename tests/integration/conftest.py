"""Fixtures: proxies and SIPp processes that are ended with their test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.proxy import Proxy, free_port
from tests.sipp.catalogue import FLOWS
from tests.sipp.runner import Sipp

# Whoever starts the tests in the background of a script has SIGINT ignored, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOCAL = """
[install]
node = "test"
workers = {workers}
state_directory = "STATE"
drain_seconds = 5

[install.listener.udp]
address = "udp:127.0.0.1:{port}"

[install.listener.tcp]
address = "tcp:127.0.0.1:{port}"

[peer.core]
kind = "core"
match = ["127.0.0.1:{core}"]
to = [{to}]
{core_extra}

[peer.local]
kind = "trusted"
match = ["127.0.0.0/8"]
{extra}
"""


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Start proxies; all of them end with the test."""
    started: list[Proxy] = []

    def start(toml: str, **options: object) -> Proxy:
        proxy = Proxy(tmp_path, toml, **options)  # type: ignore[arg-type]
        started.append(proxy)
        return proxy.start()

    yield start
    for proxy in started:
        proxy.stop()


@pytest.fixture
def start_sipp(tmp_path: Path) -> Iterator[Callable[..., Sipp]]:
    """Start SIPp processes; all of them end with the test."""
    started: list[Sipp] = []

    def start(xml: str, name: str, **options: object) -> Sipp:
        scenario = tmp_path / f"{name}-{len(started)}.xml"
        scenario.write_text(xml)
        sipp = Sipp(scenario, **options)  # type: ignore[arg-type]
        started.append(sipp)
        return sipp.start()

    yield start
    for sipp in started:
        sipp.stop()


@pytest.fixture
def local(start_proxy: Callable[..., Proxy]) -> Callable[..., tuple[Proxy, int, int]]:
    """Start a proxy with one core on loopback; return it, its port and the core's."""

    def start(*, workers: int = 1, to: str = "", extra: str = "", core_extra: str = "", core: int = 0) -> tuple[Proxy, int, int]:
        port, core = free_port(), core or free_port()
        targets = to or f'"sip:127.0.0.1:{core}"'
        toml = LOCAL.format(workers=workers, port=port, core=core, to=targets, extra=extra, core_extra=core_extra)
        return start_proxy(toml), port, core

    return start


@pytest.fixture
def run_flow(start_sipp: Callable[..., Sipp]) -> Callable[..., None]:
    """Run a scenario of the catalogue through a proxy and fail where either side is not content."""

    def run(
        name: str,
        proxy_port: int,
        callee_port: int,
        *,
        calls: int = 5,
        rate: int = 20,
        seconds: float = 30,
        **options: object,
    ) -> None:
        caller_xml, callee_xml = FLOWS[name].xml(name)
        caller_transport, callee_transport = options.pop("caller", "u1"), options.pop("callee", "u1")
        extra = options.pop("options", ())
        # A callee that ends with its last call cannot answer what is retransmitted after that.
        stays = bool(options.pop("callee_stays", False))
        callee_host = str(options.pop("callee_host", "127.0.0.1"))
        callee_remote = f"[{callee_host}]" if ":" in callee_host else callee_host
        callee = start_sipp(
            callee_xml,
            f"{name}-callee",
            address=callee_host,
            port=callee_port,
            remote=callee_remote,
            calls=100_000 if stays else calls,
            transport=callee_transport,
            options=extra,
        )
        caller = start_sipp(
            caller_xml,
            f"{name}-caller",
            address="127.0.0.1",
            port=free_port(),
            remote=f"127.0.0.1:{proxy_port}",
            calls=calls,
            rate=rate,
            transport=caller_transport,
            options=extra,
        )
        code = caller.wait(seconds)
        assert code == 0, f"caller: {caller.report()}"
        if stays:
            return
        code = callee.wait(10)
        assert code == 0, f"callee: {callee.report()}"

    return run
