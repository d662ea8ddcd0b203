"""Rows that say who peers are and where their calls go: `address`, `dispatcher`, `load_balancer`; and which domains are ours: `domain`."""

import ipaddress
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.config.address import check_host, check_pattern, unmapped
from edgeproxy.config.peer import PROBED_WHILE_DOWN, Machine, target_problem
from edgeproxy.storage.database import require, told

_INACTIVE, _DOWN = 1, 2
_STATES, _PROBE_MODES, _PORTS = (0, 2), (0, 2), (0, 65_535)
_SIGNED = (-(1 << 31), (1 << 31) - 1)


class RowFault(NamedTuple):
    """What a row says that means nothing: table, row, column, problem."""

    table: str
    row: str
    column: str
    problem: str


Machines = dict[str, Machine]
"""Machines of a pool by their URIs, in order."""
_COLUMNS = {
    "dispatcher": ("id", "setid", "destination", "socket", "state", "probe_mode", "weight", "priority", "attrs"),
    "load_balancer": ("id", "group_id", "dst_uri", "resources", "probe_mode", "attrs"),
    "address": ("id", "grp", "ip", "mask", "port", "proto", "pattern"),
}


async def _rows(engine: AsyncEngine, name: str, key: str, value: int) -> list[Mapping[str, Any]]:
    _, there = await require(engine, name)
    source = table(name, *(column(own) for own in _COLUMNS[name] if own in there))
    # What an older schema lacks is nothing, which means the default of each.
    lacking = dict.fromkeys(_COLUMNS[name])
    try:
        async with engine.connect() as connection:
            found = await connection.execute(select(source).where(source.c[key] == value).order_by(source.c.id))
            return [{**lacking, **row} for row in found.mappings()]
    except (SQLAlchemyError, OSError, KeyError, AttributeError) as error:
        # A table without its key or id is none of these at all.
        raise told(engine, error) from error


def _number(name: str, row: Mapping[str, Any], column_name: str, bounds: tuple[int, int], faults: list[RowFault]) -> int | None:
    """Return a number of a row, 0 where there is nothing; None, and a fault, for anything else."""
    least, most = bounds
    text = str(row[column_name] if row[column_name] is not None else 0).strip() or "0"
    try:
        found = int(text)
    except ValueError:
        found = least - 1
    if least <= found <= most:
        return found
    faults.append(RowFault(name, str(row["id"]), column_name, f"expected {least} to {most}, got: {text}"))
    return None


async def read_domains(engine: AsyncEngine, faults: list[RowFault]) -> list[str]:
    """Return the domains whose users are ours; what is none is told. Raise `StorageError`."""
    _, there = await require(engine, "domain")
    wide = "accept_subdomain"
    source = table("domain", column("id"), column("domain"), *([column(wide)] if wide in there else []))
    try:
        async with engine.connect() as connection:
            found = await connection.execute(select(source).order_by(source.c.id))
            rows = [(str(row["id"]), str(row["domain"] or "").strip().lower(), row.get(wide)) for row in found.mappings()]
    except (SQLAlchemyError, OSError) as error:
        raise told(engine, error) from error
    domains = []
    for number, name, with_subdomains in rows:
        if with_subdomains:
            faults.append(RowFault("domain", number, wide, f"only {name} itself is served: name each subdomain in a row of its own"))
        try:
            check_host(name)
        except ValueError as error:
            faults.append(RowFault("domain", number, "domain", f"{error}, got: {name}"))
        else:
            domains.append(name)
    return domains


async def read_dispatcher(engine: AsyncEngine, set_id: int, places: Collection[str], faults: list[RowFault]) -> Machines:
    """Return the machines of a set, those of the highest priority first; what cannot be used is told. `places` are the names and addresses of listeners. Raise `StorageError`."""
    rows = await _rows(engine, "dispatcher", "setid", set_id)
    machines: list[tuple[str, str, Machine]] = []
    ranked = [(_number("dispatcher", row, "priority", _SIGNED, faults), row) for row in rows]
    for _, row in sorted(((priority, row) for priority, row in ranked if priority is not None), key=lambda ranked: -ranked[0]):
        if (found := _machine_of_set(row, faults)) is None:
            continue
        uri, machine = found
        if machine.socket and not {machine.socket, f"{machine.socket}:5060"} & {*places}:
            faults.append(RowFault("dispatcher", str(row["id"]), "socket", f"no such listener: {machine.socket}; calls go by any"))
        machines.append((str(row["id"]), uri, machine))
    return _once("dispatcher", machines, faults)


def _machine_of_set(row: Mapping[str, Any], faults: list[RowFault]) -> tuple[str, Machine] | None:
    """Return the machine of a row with its URI; None for one that is switched off, or has faults."""
    uri, weight = _uri(row["destination"]), str(row["weight"] or "1").strip()
    state, probe = _number("dispatcher", row, "state", _STATES, faults), _probe_mode("dispatcher", row, faults)
    if state is None or state == _INACTIVE:
        return None
    if problem := target_problem(uri):
        faults.append(RowFault("dispatcher", str(row["id"]), "destination", problem))
    elif not weight.isdecimal() or int(weight) > 65_535:
        faults.append(RowFault("dispatcher", str(row["id"]), "weight", f"expected 0 to 65535, got: {weight}"))
    else:
        # One that begins down and is never probed would stay so.
        probe = max(probe, PROBED_WHILE_DOWN) if state == _DOWN else probe
        socket = str(row["socket"] or "").strip()
        return uri, Machine(int(weight), 0, probe, socket, str(row["attrs"] or ""), begins_down=state == _DOWN)
    return None


async def read_load_balancer(engine: AsyncEngine, group: int, resource: str, faults: list[RowFault]) -> Machines:
    """Return the machines of a group with what they have of a resource; what cannot be used is told. Raise `StorageError`."""
    machines: list[tuple[str, str, Machine]] = []
    for row in await _rows(engine, "load_balancer", "group_id", group):
        uri, calls = _uri(row["dst_uri"]), _resources(row).get(resource, "")
        if problem := target_problem(uri):
            faults.append(RowFault("load_balancer", str(row["id"]), "dst_uri", problem))
        elif not _is_amount(calls):
            faults.append(
                RowFault("load_balancer", str(row["id"]), "resources", f"expected {resource}=1 to 65535, got: {row['resources']}")
            )
        else:
            probe = _probe_mode("load_balancer", row, faults)
            machines.append((str(row["id"]), uri, Machine(int(calls), int(calls), probe, attrs=str(row["attrs"] or ""))))
    return _once("load_balancer", machines, faults)


async def read_addresses(engine: AsyncEngine, group: int, faults: list[RowFault]) -> list[str]:
    """Return rules as `match` has them; what cannot be used is told. Raise `StorageError`."""
    rules = (_address_rule(row, faults) for row in await _rows(engine, "address", "grp", group))
    return [rule for rule in rules if rule is not None]


def _address_rule(row: Mapping[str, Any], faults: list[RowFault]) -> str | None:
    transport = str(row["proto"] or "any").strip().lower()
    network = _network(row, faults)
    if network is None:
        return None
    if transport not in {"any", "udp", "tcp"}:
        faults.append(RowFault("address", str(row["id"]), "proto", f"expected any, udp or tcp, got: {transport}"))
    elif row["pattern"] and (problem := _pattern_problem(str(row["pattern"]))):
        faults.append(RowFault("address", str(row["id"]), "pattern", problem))
    elif (port := _number("address", row, "port", _PORTS, faults)) is not None:
        whole = network.prefixlen == network.max_prefixlen
        if port and not whole:
            faults.append(RowFault("address", str(row["id"]), "port", f"expected 0 for a network, got: {port}"))
            return None
        host = f"[{network.network_address}]" if network.version == 6 else str(network.network_address)
        place = (f"{host}:{port}" if port else host) if whole else str(network)
        by_transport = "" if transport == "any" else f";transport={transport}"
        by_sender = f";from={row['pattern']}" if row["pattern"] else ""
        return f"{place}{by_transport}{by_sender}"
    return None


def judge_row(name: str, row: Mapping[str, Any]) -> list[RowFault]:
    """Return what is wrong with a row of `dispatcher`, `load_balancer` or `address` by itself; its id and what it leaves out may be missing."""
    faults: list[RowFault] = []
    row = {**dict.fromkeys(_COLUMNS[name]), **row}
    match name:
        case "dispatcher":
            _number(name, row, "priority", _SIGNED, faults)
            _machine_of_set(row, faults)
        case "load_balancer":
            if problem := target_problem(_uri(row["dst_uri"])):
                faults.append(RowFault(name, str(row["id"]), "dst_uri", problem))
            # Which of them a pool asks for is the configuration's affair.
            if not any(map(_is_amount, _resources(row).values())):
                faults.append(RowFault(name, str(row["id"]), "resources", f"expected NAME=1 to 65535, got: {row['resources']}"))
            _probe_mode(name, row, faults)
        case _:
            _address_rule(row, faults)
    return faults


async def read_networks(engine: AsyncEngine, group: int, faults: list[RowFault]) -> list[str]:
    """Return the networks of a group, for what goes by addresses only; what cannot be used is told. Raise `StorageError`."""
    found = []
    for row in await _rows(engine, "address", "grp", group):
        network = _network(row, faults)
        narrower = [
            name for name, any_ in (("port", {"", "0"}), ("proto", {"", "any"}), ("pattern", {""})) if str(row[name] or "") not in any_
        ]
        if narrower and network:
            faults.append(
                RowFault(
                    "address", str(row["id"]), narrower[0], "an exemption is one of a whole address: expected no port, proto or pattern"
                )
            )
        elif network:
            found.append(str(network))
    return found


def _pattern_problem(pattern: str) -> str:
    try:
        check_pattern(pattern)
    except ValueError as error:
        return f"{error}, got: {pattern}"
    return ""


def _network(row: Mapping[str, Any], faults: list[RowFault]) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    address = str(row["ip"]).strip()
    # The column's default is that of one address of IPv4; in IPv6 it would let a whole operator in.
    mask = 128 if ":" in address and row["mask"] in (None, 32) else 32 if row["mask"] is None else row["mask"]
    try:
        if "%" in address:
            # A zone is one of this machine; what comes from there has none.
            raise ValueError
        return unmapped(ipaddress.ip_network(f"{address}/{int(mask)}", strict=False))
    except (TypeError, ValueError):
        problem = f"expected an address and the length of its network, got: {row['ip']}/{row['mask']}"
        faults.append(RowFault("address", str(row["id"]), "ip", problem))
        return None


def _uri(value: object) -> str:
    text = str(value or "").strip()
    return text if text.lower().startswith(("sip:", "sips:")) else f"sip:{text}"


def _resources(row: Mapping[str, Any]) -> dict[str, str]:
    parts = [part.partition("=") for part in str(row["resources"] or "").replace(",", ";").split(";") if part.strip()]
    return {name.strip(): value.strip() for name, _, value in parts}


def _is_amount(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) <= 65_535


def _probe_mode(name: str, row: Mapping[str, Any], faults: list[RowFault]) -> int:
    return _number(name, row, "probe_mode", _PROBE_MODES, faults) or 0


def _once(name: str, machines: list[tuple[str, str, Machine]], faults: list[RowFault]) -> Machines:
    found: Machines = {}
    for row, uri, machine in machines:
        if uri in found:
            faults.append(RowFault(name, row, "dst_uri" if name == "load_balancer" else "destination", f"a second row of {uri}"))
        found.setdefault(uri, machine)
    return found
