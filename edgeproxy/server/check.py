"""Checks a configuration against this machine, without disturbing an instance that runs."""

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from edgeproxy import _native
from edgeproxy.config import Config, Loaded, to_document
from edgeproxy.config.address import ListenAddress, split_host_port
from edgeproxy.config.database import database_url
from edgeproxy.config.faults import Faults
from edgeproxy.config.placed import placed
from edgeproxy.config.positions import KeyPath, Positions
from edgeproxy.errors import ConfigError, StorageError
from edgeproxy.events.transport import missing_extra
from edgeproxy.server.api_token import read_token
from edgeproxy.server.policies import route_handlers, start_process
from edgeproxy.server.privileges import check_privileges, may


def check_world(loaded: Loaded) -> None:
    """Raise `ConfigError` where addresses, directories or values cannot be used on this machine, `PolicyError` for policies, `StorageError` for rules."""
    check_addresses(loaded)
    _check_start(loaded)
    hooks = asyncio.run(check_policies(loaded)) if loaded.config.uses_policies else []
    asyncio.run(_check_users(loaded.config))
    document = to_document(asyncio.run(_peers(loaded)), hooks)
    with placed(loaded):
        _native.check_document(document)
    if loaded.config.uses_routes:
        from edgeproxy.server.route_load import check_tables  # noqa: PLC0415 - only rules need a database

        asyncio.run(check_tables(loaded, route_handlers(hooks)))


async def _check_users(config: Config) -> None:
    """Raise `StorageError` where the tables of users are not as the start needs them."""
    persists = bool(config.registrar and config.registrar.persist)
    if not (persists or config.uses_credentials):
        return
    from edgeproxy.server.users import open_subscribers  # noqa: PLC0415 - only users need a database
    from edgeproxy.storage import made_at_start, open_engine, require  # noqa: PLC0415

    url = database_url(config)
    if await made_at_start(url):
        return
    engine = open_engine(url)
    try:
        if config.uses_credentials:
            await open_subscribers(engine, config)
        if persists:
            await require(engine, "location")
    finally:
        await engine.dispose()


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


def _check_start(loaded: Loaded) -> None:
    """Raise `ConfigError` for what only a start needs: places to write to, and what management is served by."""
    config, faults = loaded.config, Faults(loaded.name, Positions(loaded.text))
    state = Path(config.install.state_directory).absolute()
    _check_writable(("install", "state_directory"), state, faults)
    if config.records.enabled and config.records.path:
        records = Path(config.records.path).absolute().parent
        # The state directory is given to `install.user` at the start, with what is in it.
        _check_writable(("records", "path"), records, faults, None if records.is_relative_to(state) else config)
        if os.path.isdir(config.records.path):  # noqa: PTH112 - it asks nothing of the directories above
            faults.add(("records", "path"), f"expected a file, got a directory: {config.records.path}")
    for key in ("listen", "metrics_listen"):
        if text := getattr(config.api, key):
            host, _ = split_host_port(text)
            if problem := _bind_problem(str(host), socket.SOCK_STREAM):
                faults.add(("api", key), f"not an address of this machine ({problem}), got: {text}")
    if config.api.listen:
        try:
            read_token(config.api.token_file)
        except ConfigError as error:
            faults.add(("api", "token_file"), str(error).removeprefix("api.token_file: "))
        else:
            if not may(config, Path(config.api.token_file), os.R_OK):
                faults.add(("api", "token_file"), f"install.user may not read {config.api.token_file}")
    if faults:
        raise faults.error()


def _check_writable(path: KeyPath, directory: Path, faults: Faults, config: Config | None = None) -> None:
    """Find out whether a directory is there to write to, or can be made, with `config` by its user too; nothing is left behind."""
    try:
        existing = _existing(directory)
        if not existing.is_dir():
            faults.add(path, f"expected a directory, but {existing} is a file")
            return
        with tempfile.TemporaryDirectory(dir=existing, prefix=".edgeproxy-check-"):
            pass
        if config and not may(config, existing, os.W_OK | os.X_OK):
            faults.add(path, f"install.user may make nothing in {directory}")
    except OSError as error:
        faults.add(path, f"nothing can be made in {directory.absolute()} ({error.strerror}: {error.filename})")


def _existing(directory: Path) -> Path:
    """Return the directory, or the nearest above it that is there; raise `OSError` where one cannot be looked into."""
    return next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())


def _bind_problem(host: str, kind: socket.SocketKind) -> str:
    """Return why this machine has no such address; empty where it has. Port 0: the running instance may hold that of the file."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.strerror or str(error)
    return ""


async def check_policies(loaded: Loaded) -> list[dict[str, Any]]:
    """Import the policy modules in a process of their own and return their hooks; raise `PolicyError` where they cannot be used."""
    _, hello = await start_process(loaded, None)
    return hello.hooks


def _check_addresses(config: Config, faults: Faults) -> None:
    for name, listener in config.install.listener.items():
        listen = ListenAddress.parse(listener.address)
        places = [("address", str(listen.host), listener.address)]
        if config.media and listener.media_address:
            places.append(("media_address", listener.media_address, listener.media_address))
        for key, host, said in places:
            if problem := _bind_problem(host, socket.SOCK_DGRAM):
                faults.add(("install", "listener", name, key), f"not an address of this machine ({problem}), got: {said}")


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
    try:
        existing = _existing(directory)
    except OSError as error:
        faults.add(("install", "state_directory"), f"{error.strerror}: {error.filename}")
        return
    if not existing.is_dir():
        faults.add(("install", "state_directory"), f"expected a directory, but {existing} is a file")
