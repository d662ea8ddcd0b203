"""Where gateways are that have names, as those who call."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgeproxy import _native
from edgeproxy.config import load_text
from edgeproxy.errors import StorageError
from edgeproxy.server import routes as module
from edgeproxy.server.route_explanation import Asked, Serving
from edgeproxy.server.routes import GatewayName, Resolved, Routes
from edgeproxy.server.switches import Switches
from edgeproxy.storage import block

ONE, TWO, NONE = ("one.example", 0, ""), ("two.example", 5070, "TCP"), ("none.example", 0, "")
LOADED = load_text('[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[peer.g]\nkind = "gateway"\ngateway_types = [-1]\n', "edge.toml")


def test_a_name_that_cannot_be_looked_up_keeps_the_addresses_that_it_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = _native.RouteLoad([""])
    addresses = ("one.example", "sip:two.example:5070;transport=tcp", "none.example", "one.example", "192.0.2.9")
    load.add("", "gateways", block("gateways", [{"gwid": f"g{number}", "address": text} for number, text in enumerate(addresses)]))
    tables, _, _ = load.finish()
    known = {ONE: [("192.0.2.1", 5060, "UDP"), ("2001:db8::1", 5080, "UDP")], TWO: [("192.0.2.2", 5070, "TCP")]}

    def look_up(settings: bytes, names: list[GatewayName]) -> Resolved:
        assert settings
        assert sorted(names) == sorted([ONE, TWO, NONE])
        return [(name, known.get(name, [])) for name in names]

    monkeypatch.setattr(module._native, "look_up", look_up)
    told: list[dict[str, object]] = []
    routes = Routes(lambda *_, values, **__: told.append(values), lambda *_: None, Switches(tmp_path))
    first = dict(asyncio.run(routes._addresses_of(LOADED, tables)))
    assert first == {**known, NONE: []}
    known[TWO] = [("192.0.2.3", 5070, "TCP")]
    one = known.pop(ONE)
    assert dict(asyncio.run(routes._addresses_of(LOADED, tables))) == {ONE: one, TWO: [("192.0.2.3", 5070, "TCP")], NONE: []}
    assert told == [{"names": ["none.example"], "count": 1}]


def test_where_names_cannot_be_looked_up_at_all_everything_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = _native.RouteLoad([""])
    load.add("", "gateways", block("gateways", [{"gwid": "a", "address": "one.example"}]))
    tables, _, _ = load.finish()
    routes = Routes(lambda *_, **__: None, lambda *_: None, Switches(tmp_path))
    routes._addresses = {ONE: [("192.0.2.1", 5060, "UDP")]}

    def fail(settings: bytes, names: list[GatewayName]) -> Resolved:
        raise OSError("no name servers")

    monkeypatch.setattr(module._native, "look_up", fail)
    assert asyncio.run(routes._addresses_of(LOADED, tables)) == [(ONE, [("192.0.2.1", 5060, "UDP")])]


def test_other_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="expected struct DnsSettings"):
        _native.look_up(b"\xc0", [])


def test_no_explanation_is_given_for_a_time_that_recurrences_do_not_reach() -> None:
    unused: Any = object()
    serving = Serving(unused, unused, load_text(f"{LOADED.text}[route.pstn]\n", "edge.toml"), has_recurrences=True)
    for year in (2020, 2090):
        with pytest.raises(StorageError, match=f"known from yesterday on for 400 days only, got: {year}-03-29"):
            serving.explain(Asked("4930", at=datetime(year, 3, 29, tzinfo=UTC)))
