"""The configuration as the native side reads it: every value stated, no defaults left to fill in."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy.config.address import ListenAddress, split_host_port
from edgeproxy.config.install import Listener
from edgeproxy.config.peer import Peer
from edgeproxy.config.root import Config


def to_document(config: Config, hooks: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """Return the MessagePack document for `_native`; `hooks` is what policies want to decide."""
    return msgspec.msgpack.encode({"install": _install(config), "routing": {**_routing(config), "policies": hooks}})


def dns_document(config: Config) -> bytes:
    """Return the MessagePack document of how names are looked up, for `_native.look_up`."""
    return msgspec.msgpack.encode(_dns(config))


def _dns(config: Config) -> dict[str, Any]:
    return {**msgspec.to_builtins(config.dns), "servers": [_server(server) for server in config.dns.servers]}


def _install(config: Config) -> dict[str, Any]:
    install, tuning, records = config.install, config.tuning, config.records
    default_path = str(Path(install.state_directory) / "records" / "calls.jsonl")
    return {
        "workers": install.workers,
        "pin_processors": install.pin_processors,
        "state_directory": install.state_directory,
        "receive_buffer_bytes": tuning.receive_buffer_bytes,
        "send_buffer_bytes": tuning.send_buffer_bytes,
        "batch": tuning.batch_messages,
        "mailbox": tuning.mailbox_messages,
        "coalesce_microseconds": tuning.coalesce_microseconds,
        "coalesce_messages": tuning.coalesce_messages,
        "drop_unread": tuning.drop_unread,
        "gather_percent": tuning.gather_percent,
        "events": tuning.event_queue,
        "overload_milliseconds": tuning.overload_milliseconds,
        "stream": msgspec.to_builtins(tuning.tcp),
        "dns": _dns(config),
        "records": {
            "path": (records.path or default_path) if records.enabled else "",
            "rotate_bytes": records.rotate_bytes,
            "keep_files": records.keep_files,
            "queue": records.queue,
        },
        "media": {
            "workers": install.media_workers,
            "first_port": install.media_ports[0],
            "last_port": install.media_ports[1],
            "ready": install.ready_pairs(config.media.streams if config.media else 1),
            "dscp": install.media_dscp,
            "mailbox": tuning.mailbox_messages,
        },
    }


def _routing(config: Config) -> dict[str, Any]:
    limits = msgspec.to_builtins(config.tuning.limits)
    least, most = limits.pop("retry_after_least_seconds"), limits.pop("retry_after_most_seconds")
    return {
        "node": config.install.node,
        "aliases": config.sip.aliases,
        "server_header": config.sip.server_header,
        "listeners": [_listener(name, listener) for name, listener in config.install.listener.items()],
        "peers": [{**_peer(name, peer), "authenticate": config.authenticates(peer)} for name, peer in config.peer.items()],
        "registrar": config.registrar.document() if config.registrar else None,
        "nat": config.nat.document(),
        "media": config.media.document() if config.media else None,
        "authentication": config.authentication.document(),
        "flood": config.flood.document() if config.flood else None,
        "fraud": config.fraud.document() if config.fraud else None,
        "session_timer": config.session_timer.document() if config.session_timer else None,
        "call_ping": config.call_ping.document() if config.call_ping else None,
        "shared": config.shared.document() if config.shared else None,
        "key_limits": [limit.document(name) for name, limit in config.limit.items()],
        "emergency": msgspec.to_builtins(config.emergency),
        "number_sets": [numbers.document(name) for name, numbers in config.numbers.items()],
        "gateway_numbers": [gateway.document(name) for name, gateway in config.gateway.items()],
        "timers": msgspec.to_builtins(config.tuning.timers),
        "limits": {**limits, "retry_after_seconds": (least, most)},
        "routes": [route.document(name) for name, route in config.route.items()],
        "health": config.routing.document(),
        "quality": config.routing.quality.document(),
        "mask_identities": config.log.mask_identities,
        "slow_milliseconds": config.events.slow_milliseconds,
        "trace": {
            "memory_bytes": config.trace.memory_bytes,
            "collector": _endpoint(config.trace.collector),
            "capture_id": config.trace.capture_id,
        },
    }


def _endpoint(text: str) -> str | None:
    host, port = split_host_port(text) if text else ("", 0)
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if text else None


def _server(text: str) -> str:
    host, port = split_host_port(text)
    return f"[{host}]:{port or 53}" if ":" in host else f"{host}:{port or 53}"


def _listener(name: str, listener: Listener) -> dict[str, Any]:
    listen = ListenAddress.parse(listener.address)
    host, port = split_host_port(listener.advertise) if listener.advertise else (str(listen.host), listen.port)
    return {
        "name": name,
        "transport": listen.transport,
        "address": listen.socket_address,
        "advertise_host": host,
        "advertise_port": port or listen.port,
        "network": listener.network,
        "media_address": listener.media_address or str(listen.host),
        "media_advertise": listener.media_advertise or (host if listener.advertise and _is_address(host) else None),
        "workers": listener.workers,
    }


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _pool(peer: Peer) -> dict[str, Any] | None:
    pool = peer.pool
    if pool is None:
        return None
    return {
        "balance": pool.balance,
        "machines": [machine._asdict() for machine in pool.machines_of(len(peer.to))],
        "machine_calls_per_second": pool.machine_calls_per_second,
    }


def _peer(name: str, peer: Peer) -> dict[str, Any]:
    routes = peer.kind in {"core", "trusted"} if peer.allow_routes is None else peer.allow_routes
    return {
        "name": name,
        "kind": peer.kind,
        "matches": [msgspec.to_builtins(rule) for rule in peer.rules()],
        "to": peer.to,
        "forking": peer.forking,
        "fail_over": peer.fail_over,
        "first_answer_milliseconds": round(peer.first_answer_seconds * 1_000),
        "final_answer_milliseconds": round(peer.final_answer_seconds * 1_000),
        "oversize": peer.oversize,
        "trust_identity": peer.is_trusted,
        "allow_routes": routes,
        "listener": peer.listener,
        "route": peer.route,
        "gateway_types": peer.gateway_types,
        "pool": _pool(peer),
        "numbers_in": msgspec.to_builtins(peer.numbers_in),
        "numbers_out": msgspec.to_builtins(peer.numbers_out),
        "media": peer.media,
        "fraud_profile": peer.fraud_profile,
    }
