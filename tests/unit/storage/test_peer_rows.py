"""Peers by rows of `address`, `dispatcher` and `load_balancer`, in all databases."""

import asyncio
from pathlib import Path

import pytest

from edgeproxy.config import load_text
from edgeproxy.config.peer import Machine
from edgeproxy.errors import StorageError
from edgeproxy.server.peer_rows import with_rows
from edgeproxy.storage import upgrade
from edgeproxy.storage.peers import RowFault
from tests.unit.storage.conftest import run

TOML = """
[install.listener.a]
address = "udp:127.0.0.1:5060"
[peer.core]
kind = "core"
match = ["10.0.0.1"]
match_group = 4
[peer.core.pool]
dispatcher = 3
machine_calls = 7
[peer.media]
kind = "trusted"
match_group = 5
[peer.media.pool]
load_balancer = 1
resource = "transc"
"""
ROWS = (
    "INSERT INTO dispatcher (id, setid, destination, priority, weight, state) VALUES (1, 3, 'sip:10.0.0.2', 0, '2', 0), "
    "(2, 3, '10.0.0.3:5070', 9, '1', 2), (3, 3, 'sip:10.0.0.4', 0, '1', 1), (4, 3, 'sips:10.0.0.5', 0, '1', 0), "
    "(5, 3, 'sip:10.0.0.6', 0, 'x', 0), (6, 3, 'sip:10.0.0.2', 0, '5', 0), (7, 4, 'sip:10.9.9.9', 0, '1', 0)",
    "UPDATE dispatcher SET probe_mode = 2, socket = 'udp:127.0.0.1', attrs = 'rack=2' WHERE id = 1",
    "UPDATE dispatcher SET socket = 'udp:192.0.2.9:5060' WHERE id = 2",
    "UPDATE dispatcher SET probe_mode = 5 WHERE id = 5",
    "INSERT INTO load_balancer (id, group_id, dst_uri, resources, probe_mode, attrs) VALUES (1, 1, 'sip:10.1.0.1', 'pstn=5; transc=30', 1, 'dsp'), "
    "(2, 1, 'sip:10.1.0.2', 'pstn=5', 0, NULL), (3, 1, 'sip:10.1.0.3', 'transc=70000', 0, NULL)",
    "INSERT INTO address (id, grp, ip, mask, port, proto, pattern) VALUES (1, 4, '10.0.0.77', 32, 5060, 'udp', NULL), "
    "(2, 4, '10.5.5.5', 24, 0, 'any', NULL), (3, 4, '2001:db8::5', 128, 0, 'ANY', ''), (4, 4, '10.0.0.300', 32, 0, 'any', NULL), "
    "(5, 4, '10.0.0.8', 32, 0, 'tls', NULL), (6, 4, '10.0.0.9', 32, 0, 'udp', 'sip:*@a;user=phone'), (9, 4, '10.0.0.10', 32, 0, 'any', 'sip:[ab]*'), "
    "(10, 4, '2001:db8::6', 32, 0, 'any', NULL), (7, 4, '10.6.0.0', 16, 5060, 'any', NULL), "
    "(8, 5, '10.1.0.0', 24, 0, 'tcp', NULL)",
)


def test_rows_say_who_peers_are_and_where_their_calls_go(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(upgrade(database))
    run(database, *ROWS)
    monkeypatch.setenv("EDGEPROXY_DATABASE", database)
    config, faults = asyncio.run(with_rows(load_text(TOML, "edge.toml")))
    core, media = config.peer["core"], config.peer["media"]
    assert core.match == [
        "10.0.0.1",
        "10.0.0.77:5060;transport=udp",
        "10.5.5.0/24",
        "[2001:db8::5]",
        "10.0.0.9;transport=udp;from=sip:*@a;user=phone",
        "[2001:db8::6]",
    ]
    assert [str(rule.network) for rule in core.rules()] == ["10.0.0.1", "10.0.0.77", "10.5.5.0", "2001:db8::5", "10.0.0.9", "2001:db8::6"]
    assert [rule.sender for rule in core.rules() if rule.sender] == ["sip:*@a;user=phone"]
    assert core.to == ["sip:10.0.0.3:5070", "sip:10.0.0.2"]
    assert core.pool is not None
    assert media.pool is not None
    # One that begins down is probed while it is, whatever its row says.
    assert core.pool.machines_of(2) == [
        Machine(1, 7, 1, "udp:192.0.2.9:5060", begins_down=True),
        Machine(2, 7, 2, "udp:127.0.0.1", "rack=2"),
    ]
    assert (media.to, media.pool.machines_of(1)) == (["sip:10.1.0.1"], [Machine(30, 30, 1, attrs="dsp")])
    assert media.match == ["10.1.0.0/24;transport=tcp"]
    assert [(fault.table, fault.row, fault.column) for fault in faults] == [
        ("address", "4", "ip"),
        ("address", "5", "proto"),
        ("address", "7", "port"),
        ("address", "9", "pattern"),
        ("dispatcher", "2", "socket"),
        ("dispatcher", "4", "destination"),
        ("dispatcher", "5", "probe_mode"),
        ("dispatcher", "5", "weight"),
        ("dispatcher", "6", "destination"),
        ("load_balancer", "2", "resources"),
        ("load_balancer", "3", "resources"),
    ]
    assert faults[1] == RowFault("address", "5", "proto", "expected any, udp or tcp, got: tls")
    with pytest.raises(StorageError, match="11 rows cannot be used, first: address 4 ip"):
        asyncio.run(with_rows(load_text(f'{TOML}[routing]\nbad_rows = "refuse"\n', "edge.toml")))
    probed = asyncio.run(with_rows(load_text(TOML.replace("machine_calls = 7", "probe = false"), "edge.toml")))[0].peer["core"].pool
    assert probed is not None
    assert [(machine.calls, machine.probe_mode) for machine in probed.machines_of(2)] == [(0, 0), (0, 0)]
    with pytest.raises(StorageError, match="peer core: no machine of its pool"):
        asyncio.run(with_rows(load_text(TOML.replace("dispatcher = 3", "dispatcher = 8"), "edge.toml")))


def test_rows_of_domain_are_domains_whose_users_register_here(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(upgrade(database))
    run(database, "INSERT INTO domain (id, domain) VALUES (1, 'Edge.Example'), (2, 'a b'), (3, 'other.example'), (4, '192.0.2.1')")
    monkeypatch.setenv("EDGEPROXY_DATABASE", database)
    toml = '[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[registrar]\ndomains = ["other.example"]\ndomains_from_database = true\n'
    config, faults = asyncio.run(with_rows(load_text(toml, "edge.toml")))
    assert config.registrar is not None
    assert config.registrar.domains == ["other.example", "edge.example", "192.0.2.1"]
    assert faults == [RowFault("domain", "2", "domain", "expected an IP address or a domain name, got: a b")]
    run(database, "UPDATE domain SET accept_subdomain = 1 WHERE id = 3")
    faults = asyncio.run(with_rows(load_text(toml, "edge.toml")))[1]
    assert (faults[-1].row, faults[-1].column, faults[-1].problem.split(":")[0]) == (
        "3",
        "accept_subdomain",
        "only other.example itself is served",
    )


def test_rows_of_dbaliases_are_other_names_of_users(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "INSERT INTO dbaliases (id, alias_username, alias_domain, username, domain) VALUES (1, 'sales', 'A.example', 'alice', 'a.example'), "
        "(2, 'boss', '', 'bob', ''), (3, '', 'a.example', 'alice', 'a.example'), (4, 'x', 'a.example', 'y z', 'a.example'), "
        "(5, 'far', 'c.example', 'alice', 'a.example'), (6, 'chain', 'a.example', 'Sales', 'a.example')",
    )
    monkeypatch.setenv("EDGEPROXY_DATABASE", database)
    toml = (
        '[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[registrar]\ndomains = ["A.Example", "b.example"]\n'
        'aliases_from_database = true\naliases = {"boss@b.example" = "carol@b.example"}\n'
    )
    config, faults = asyncio.run(with_rows(load_text(toml, "edge.toml")))
    assert config.registrar is not None
    assert config.registrar.aliases == {
        "sales@a.example": "alice@a.example",
        "boss@a.example": "bob@a.example",
        "boss@b.example": "carol@b.example",
    }
    assert [(fault.table, fault.row, fault.column) for fault in faults] == [
        ("dbaliases", "3", "alias_username"),
        ("dbaliases", "4", "username"),
        ("dbaliases", "5", "domain"),
        ("dbaliases", "chain@a.example", "username"),
    ]
    with pytest.raises(StorageError, match=r"registrar.max_aliases: dbaliases has more than the 1 that are left"):
        asyncio.run(with_rows(load_text(f"{toml}max_aliases = 2\n", "edge.toml")))


def test_a_group_of_addresses_is_exempt_from_counting(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(upgrade(database))
    run(
        database,
        "INSERT INTO address (id, grp, ip, mask, port, proto, pattern) VALUES (1, 9, '10.1.2.3', 24, 0, 'any', NULL), "
        "(2, 9, '2001:db8::', 48, 0, 'any', ''), (3, 9, '10.2.0.1', 32, 5060, 'any', NULL), (4, 9, '10.2.0.2', 32, 0, 'udp', NULL), "
        "(5, 9, '10.2.0.3', 32, 0, 'any', 'sip:*'), (6, 8, '10.3.0.1', 32, 0, 'any', NULL), (7, 9, '10.2.0.4', 40, 0, 'any', NULL), "
        "(8, 9, '::ffff:10.4.0.1', 120, 0, 'any', NULL)",
    )
    monkeypatch.setenv("EDGEPROXY_DATABASE", database)
    toml = '[install.listener.a]\naddress = "udp:127.0.0.1:5060"\n[authentication.attacks]\nexempt = ["192.0.2.0/24"]\nexempt_group = 9\n'
    config, faults = asyncio.run(with_rows(load_text(toml, "edge.toml")))
    assert config.authentication.attacks.exempt == ["192.0.2.0/24", "10.1.2.0/24", "2001:db8::/48", "10.4.0.0/24"]
    assert [(fault.row, fault.column) for fault in faults] == [("3", "port"), ("4", "proto"), ("5", "pattern"), ("7", "ip")]


def test_columns_of_an_older_schema_have_their_defaults_and_no_number_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path / 'old.db'}"
    asyncio.run(upgrade(database))
    run(
        database,
        "DROP TABLE dispatcher",
        "CREATE TABLE dispatcher (id INTEGER PRIMARY KEY, setid, destination, socket, state, weight, priority)",
        "INSERT INTO dispatcher VALUES (1, 3, 'sip:10.0.0.2', NULL, 0, '1', 'high'), (2, 3, 'sip:10.0.0.3', NULL, 9, '1', 0), "
        "(3, 3, 'sip:10.0.0.4', NULL, NULL, NULL, NULL)",
        "DROP TABLE load_balancer",
        "CREATE TABLE load_balancer (id INTEGER PRIMARY KEY, group_id, dst_uri, resources)",
        "INSERT INTO load_balancer VALUES (1, 1, 'sip:10.1.0.1', 'transc=30')",
        "INSERT INTO address (id, grp, ip, mask, port) VALUES (1, 4, '10.0.0.77', 32, 'abc'), (2, 4, '10.0.0.78', 'x', 0), (3, 4, '10.0.0.79', 32, 0)",
    )
    monkeypatch.setenv("EDGEPROXY_DATABASE", database)
    config, faults = asyncio.run(with_rows(load_text(TOML, "edge.toml")))
    assert (config.peer["core"].to, config.peer["media"].to) == (["sip:10.0.0.4"], ["sip:10.1.0.1"])
    assert config.peer["core"].match == ["10.0.0.1", "10.0.0.79"]
    assert {(fault.table, fault.row, fault.column) for fault in faults} == {
        ("address", "1", "port"),
        ("address", "2", "ip"),
        ("dispatcher", "1", "priority"),
        ("dispatcher", "2", "state"),
    }
