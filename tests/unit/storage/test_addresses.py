"""Addresses of gateways that have names, as those who call."""

import asyncio
from pathlib import Path

import pytest

from edgeproxy import _native
from edgeproxy.server import routes as module
from edgeproxy.server.routes import Routes
from edgeproxy.server.switches import Switches
from edgeproxy.storage import block


def test_a_name_that_cannot_be_looked_up_keeps_the_addresses_that_it_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = _native.RouteLoad([""])
    load.add("", "gateways", block("gateways", [{"gwid": "a", "address": "one.example"}, {"gwid": "b", "address": "two.example"}]))
    tables, _, _ = load.finish([])
    known = {"one.example": ["192.0.2.1", "2001:db8::1"], "two.example": ["192.0.2.2"]}

    async def resolve(name: str) -> list[str]:
        return known.get(name, [])

    monkeypatch.setattr(module, "resolve", resolve)
    routes = Routes(lambda *_, **__: None, lambda *_: None, Switches(tmp_path))
    first = asyncio.run(routes._addresses_of(tables))
    assert first == [("one.example", "192.0.2.1"), ("one.example", "2001:db8::1"), ("two.example", "192.0.2.2")]
    known["two.example"] = ["192.0.2.3"]
    del known["one.example"]
    assert asyncio.run(routes._addresses_of(tables)) == [*first[:2], ("two.example", "192.0.2.3")]
