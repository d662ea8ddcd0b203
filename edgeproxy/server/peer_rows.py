"""Peers, domains, aliases, exemptions, limits and fraud rules with what the database says of them."""

import asyncio
from collections.abc import Collection

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from edgeproxy.config import Config, Loaded
from edgeproxy.config.database import database_url
from edgeproxy.config.peer import ALWAYS_PROBED, NEVER_PROBED, Peer, ProvisionedPool
from edgeproxy.errors import StorageError
from edgeproxy.storage import open_engine, prepare
from edgeproxy.storage.aliases import read_aliases
from edgeproxy.storage.fraud import read_fraud
from edgeproxy.storage.limits import read_limits
from edgeproxy.storage.peers import RowFault, read_addresses, read_dispatcher, read_domains, read_load_balancer, read_networks


async def with_rows(loaded: Loaded) -> tuple[Config, list[RowFault]]:
    """Return the configuration with machines and addresses of the database, and what is wrong with rows; raise `StorageError`."""
    if not loaded.config.uses_peer_rows:
        return loaded.config, []
    seconds = loaded.config.routing.database_seconds
    try:
        async with asyncio.timeout(seconds):
            return await _with_all_rows(loaded.config)
    except TimeoutError:
        raise StorageError(f"peers: the database did not give everything within {seconds} s") from None


async def _with_all_rows(config: Config) -> tuple[Config, list[RowFault]]:
    url = database_url(config)
    await prepare(url)
    faults: list[RowFault] = []
    engine = open_engine(url)
    try:
        registrar = config.registrar
        if registrar and registrar.domains_from_database:
            domains = list(dict.fromkeys([*registrar.domains, *await read_domains(engine, faults)]))
            registrar = msgspec.structs.replace(registrar, domains=domains)
        if registrar and registrar.aliases_from_database:
            rows = await read_aliases(engine, registrar.domains, registrar.max_aliases - len(registrar.aliases), faults)
            aliases = {**rows, **registrar.aliases}
            # Nobody registers by an alias: what leads to one leads nowhere.
            names = set(map(str.lower, aliases))
            chained = [alias for alias, user in rows.items() if user.lower() in names and aliases.get(alias) == user]
            faults += [RowFault("dbaliases", alias, "username", f"another alias and no user: {aliases.pop(alias)}") for alias in chained]
            registrar = msgspec.structs.replace(registrar, aliases=aliases)
        config = msgspec.structs.replace(config, registrar=registrar)
        authentication = config.authentication
        if (group := authentication.attacks.exempt_group) is not None:
            exempt = [*authentication.attacks.exempt, *await read_networks(engine, group, faults)]
            attacks = msgspec.structs.replace(authentication.attacks, exempt=exempt)
            config = msgspec.structs.replace(config, authentication=msgspec.structs.replace(authentication, attacks=attacks))
        if config.fraud and config.fraud.rows:
            own = {rule.ruleid for rule in config.fraud.rule}
            found_rules = await read_fraud(engine, faults)
            faults += [
                RowFault("fraud_detection", str(rule.ruleid), "ruleid", "a rule of the file has it")
                for rule in found_rules
                if rule.ruleid in own
            ]
            provisioned = [rule for rule in found_rules if rule.ruleid not in own]
            config = msgspec.structs.replace(config, fraud=msgspec.structs.replace(config.fraud, rule=[*config.fraud.rule, *provisioned]))
        if named := [name for name, limit in config.limit.items() if limit.rows]:
            found = await read_limits(engine, {name: config.limit[name].most_problem for name in named}, faults)
            # What the file says of a key goes before its row.
            limits = {
                name: msgspec.structs.replace(limit, most_by_key={**found[name], **limit.most_by_key}) if name in found else limit
                for name, limit in config.limit.items()
            }
            config = msgspec.structs.replace(config, limit=limits)
        listeners = config.install.listener
        places = {*listeners, *(listener.address for listener in listeners.values())}
        peers = {
            name: await _with_rows(engine, name, peer, places, faults) if peer.uses_rows else peer for name, peer in config.peer.items()
        }
    finally:
        await engine.dispose()
    if faults and config.routing.bad_rows == "refuse":
        raise StorageError(f"peers: {len(faults)} rows cannot be used, first: {' '.join(faults[0])}")
    return msgspec.structs.replace(config, peer=peers), faults


async def _with_rows(engine: AsyncEngine, name: str, peer: Peer, places: Collection[str], faults: list[RowFault]) -> Peer:
    if peer.match_group is not None:
        peer = msgspec.structs.replace(peer, match=[*peer.match, *await read_addresses(engine, peer.match_group, faults)])
    pool = peer.pool
    if pool is None or not pool.is_provisioned:
        return peer
    if pool.dispatcher is not None:
        found = await read_dispatcher(engine, pool.dispatcher, places, faults)
        most = pool.machine_calls if isinstance(pool.machine_calls, int) else 0
        found = {uri: machine._replace(calls=most) for uri, machine in found.items()}
    else:
        found = await read_load_balancer(engine, pool.load_balancer or 0, pool.resource, faults)
    if not found:
        raise StorageError(f"peer {name}: no machine of its pool is in the database")
    if pool.probe is not None:
        found = {uri: machine._replace(probe_mode=ALWAYS_PROBED if pool.probe else NEVER_PROBED) for uri, machine in found.items()}
    pool = ProvisionedPool(**msgspec.structs.asdict(pool), machines=tuple(found.values()))
    return msgspec.structs.replace(peer, to=list(found), pool=pool)
