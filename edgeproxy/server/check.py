"""Checks a configuration against this machine, without disturbing an instance that runs."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

from edgeproxy import _native
from edgeproxy.config import Config, Loaded, to_document
from edgeproxy.config.address import ListenAddress
from edgeproxy.config.database import database_url
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import Positions
from edgeproxy.errors import StorageError
from edgeproxy.events.transport import missing_extra
from edgeproxy.server.policies import route_handlers, start_process
from edgeproxy.server.privileges import check_privileges


def check_world(loaded: Loaded) -> None:
    """Raise `ConfigError` where addresses, directories or values cannot be used on this machine, `PolicyError` for policies, `StorageError` for rules."""
    check_addresses(loaded)
    hooks = asyncio.run(check_policies(loaded)) if loaded.config.uses_policies else []
    _native.check_document(to_document(asyncio.run(_peers(loaded)), hooks))
    if loaded.config.uses_routes:
        from edgeproxy.server.route_load import check_tables  # noqa: PLC0415 - only rules need a database

        asyncio.run(check_tables(loaded, route_handlers(hooks)))


async def _peers(loaded: Loaded) -> Config:
    """Return the configuration with what the database says of peers, without making or changing anything."""
    if not loaded.config.uses_peer_rows:
        return loaded.config
    from edgeproxy.server.peer_rows import with_rows  # noqa: PLC0415 - only rows need a database

    url = database_url(loaded.config)
    if url.startswith("sqlite:") and not Path(url.removeprefix("sqlite:///")).exists():
        # The start makes it, and finds nothing in it.
        for name, peer in loaded.config.peer.items():
            if peer.pool and peer.pool.is_provisioned:
                raise StorageError(f"peer {name}: no machine of its pool is in the database")
        return loaded.config
    return (await with_rows(loaded))[0]


def check_addresses(loaded: Loaded) -> None:
    """Raise `ConfigError` where an address is not of this machine or a directory cannot be one."""
    faults = Faults(loaded.name, Positions(loaded.text))
    _check_addresses(loaded.config, faults)
    _check_directory(loaded.config, faults)
    _check_patterns(loaded.config, faults)
    _check_sinks(loaded.config, faults)
    check_privileges(loaded.config, faults)
    if faults:
        raise faults.error()


async def check_policies(loaded: Loaded) -> list[dict[str, Any]]:
    """Import the policy modules in a process of their own and return their hooks; raise `PolicyError` where they cannot be used."""
    _, hello = await start_process(loaded, None)
    return hello.hooks


def _check_addresses(config: Config, faults: Faults) -> None:
    for name, listener in config.install.listener.items():
        listen = ListenAddress.parse(listener.address)
        family = socket.AF_INET6 if listen.host.version == 6 else socket.AF_INET
        places = [("address", str(listen.host), listener.address)]
        if config.media and listener.media_address:
            places.append(("media_address", listener.media_address, listener.media_address))
        for key, host, said in places:
            # Port 0: the address must be one of this machine's; its port may be held by the running instance.
            try:
                with socket.socket(family, socket.SOCK_DGRAM) as probe:
                    probe.bind((host, 0))
            except OSError as error:
                faults.add(("install", "listener", name, key), f"not an address of this machine ({error.strerror}), got: {said}")


def _check_patterns(config: Config, faults: Faults) -> None:
    for name, numbers in config.numbers.items():
        for place, rule in enumerate(numbers.rules):
            if rule.pattern is not None and (problem := _native.pattern_fault(rule.pattern)):
                path = ("numbers", name, "rules", str(place), "pattern")
                faults.add(path, f"expected a regular expression, got: {rule.pattern}", problem)
            elif rule.pattern is not None and rule.replace and (group := _native.unknown_group(rule.pattern, rule.replace)):
                path = ("numbers", name, "rules", str(place), "replace")
                faults.add(path, f"`pattern` has no group {group}, got: {rule.replace}")


def _check_sinks(config: Config, faults: Faults) -> None:
    for name, sink in config.events.sink.items():
        path = ("events", "sink", name)
        if extra := missing_extra(sink):
            faults.add((*path, "to"), f"{sink.place.scheme} needs the extra {extra}", f"pip install edgeproxy[{extra}]")
        if sink.place.scheme == "file" and not Path(sink.place.path).parent.is_dir():
            faults.add((*path, "to"), f"no such directory: {Path(sink.place.path).parent}")
        if sink.command and not os.access(sink.command[0], os.X_OK):
            faults.add((*path, "command"), f"no program that may be run, got: {sink.command[0]}")


def _check_directory(config: Config, faults: Faults) -> None:
    directory = Path(config.install.state_directory)
    existing = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    if not existing.is_dir():
        faults.add(("install", "state_directory"), f"expected a directory, but {existing} is a file")
