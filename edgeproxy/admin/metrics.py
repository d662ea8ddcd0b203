"""Counters in the text format of Prometheus: merged over the workers when somebody asks, with labels of bounded number."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PREFIX = "edgeproxy_"
GAUGES = {
    "calls",
    "bans",
    "kernel_banned",
    "shared_up",
    "shared_keys",
    "calls_bytes",
    "transactions",
    "transactions_bytes",
    "connections",
    "credentials_kept",
    "location_bindings",
    "location_bytes",
    "location_records",
    "location_unwritten",
    "invites_unread_percent",
    "media_port_pairs",
    "media_port_pairs_free",
    "media_sessions",
    "policy_memory_bytes",
    "policy_queue_bytes",
    "trace_bytes",
}
_LABELLED = {
    "requests_by_method": ("counter", "requests by method"),
    "responses_by_class": ("counter", "responses by class of status code"),
    "peer_requests": ("counter", "requests of a peer that open something"),
    "peer_refused": ("counter", "requests of a peer that were refused"),
    "peer_attempts": ("counter", "attempts to reach a peer"),
    "peer_attempts_unanswered": ("counter", "attempts that a peer never answered"),
    "peer_responses": ("counter", "responses of a peer to attempts, by class of status code"),
    "worker_lag_microseconds": ("gauge", "longest time between two looks at the sockets in the last second"),
    "worker_mailbox_messages": ("gauge", "messages that wait for a worker"),
    "table_entries": ("gauge", "entries of a table"),
    "table_limit": ("gauge", "entries that a table may have"),
    "table_bytes": ("gauge", "bytes of a table's places, without what they point to"),
    "limit_keys": ("gauge", "keys of a limit that have something"),
    "limit_refused": ("counter", "requests that a limit refused"),
    "limit_untracked": ("counter", "requests that passed a limit because it has no room for another key"),
    "lookups": ("counter", "number lookups by what came of them"),
    "queue_depth": ("gauge", "entries of a queue"),
    "rtpengine_up": ("gauge", "whether an rtpengine answers"),
}
_GATEWAY = {
    "gateway_attempts": ("attempts", "counter", "attempts at a gateway, or by a carrier"),
    "gateway_answered": ("answered", "counter", "attempts that were answered"),
    "gateway_silent": ("silent", "counter", "attempts that nobody answered in time"),
    "gateway_rang_out": ("rang_out", "counter", "attempts that rang until their time was up"),
    "gateway_unreachable": ("unreachable", "counter", "attempts that the network refused"),
    "gateway_post_dial_delay_milliseconds": ("post_dial_delay_milliseconds", "counter", "time from INVITE to the first 18x"),
    "gateway_rang": ("rang", "counter", "attempts with an 18x"),
    "gateway_call_seconds": ("call_seconds", "counter", "seconds of calls that ended"),
    "gateway_calls_ended": ("calls_ended", "counter", "calls that ended"),
    "gateway_live_calls": ("live_calls", "gauge", "calls under way"),
    "gateway_full": ("full", "counter", "attempts that it had no place for"),
    "gateway_max_calls": ("max_calls", "gauge", "calls that it may have; 0 for any number"),
    "gateway_usable": ("usable", "gauge", "whether calls may go there"),
}
_GATEWAY_LABELS = (("gateway", "id"), ("kind", "kind"), ("partition", "partition"))
COUNTED_GATEWAYS = 500
"""Gateways and carriers with metrics of their own, those with the most attempts; the others are summed up as one."""
Labelled = tuple[str, Sequence[tuple[str, str]], int]


def text(counters: Mapping[str, int], labelled: Iterable[Labelled], node: str, help_texts: Mapping[str, str]) -> str:
    """Return every metric, each with the name of the node and what `help_texts` says of it, or else its name in words."""
    base = ("node", node)
    lines: list[str] = []
    for name, value in counters.items():
        kind, suffix = ("gauge", "") if name in GAUGES else ("counter", "_total")
        words = help_texts.get(name, name.replace("_", " "))
        lines += [f"# HELP {PREFIX}{name}{suffix} {words}", f"# TYPE {PREFIX}{name}{suffix} {kind}"]
        lines.append(_sample(f"{name}{suffix}", [base], value))
    # All samples of a name stand together, whatever order they come in: readers refuse a page where they do not.
    families: dict[str, list[tuple[Sequence[tuple[str, str]], int]]] = {}
    for name, labels, value in labelled:
        families.setdefault(name, []).append((labels, value))
    if buckets := families.pop("policy_decisions", None):
        lines += _histogram(buckets, families.pop("policy_decision_microseconds", [((), 0)])[0][1], base)
    for name, samples in families.items():
        kind, help_text = _LABELLED.get(name, ("gauge", name.replace("_", " ")))
        full = f"{name}_total" if kind == "counter" else name
        lines += [f"# HELP {PREFIX}{full} {help_text}", f"# TYPE {PREFIX}{full} {kind}"]
        lines += [_sample(full, [base, *labels], value) for labels, value in samples]
    return "\n".join([*lines, ""])


def _histogram(buckets: Sequence[tuple[Sequence[tuple[str, str]], int]], microseconds: int, base: tuple[str, str]) -> list[str]:
    """Return how long policies took to decide."""
    name = "policy_decision_seconds"
    lines = [f"# HELP {PREFIX}{name} time from a question for a policy to its verdict", f"# TYPE {PREFIX}{name} histogram"]
    for labels, value in buckets:
        bound = labels[0][1]
        lines.append(_sample(f"{name}_bucket", [base, ("le", bound if bound == "+Inf" else f"{int(bound) / 1e6:g}")], value))
    return [
        *lines,
        _sample(f"{name}_sum", [base], f"{microseconds / 1e6:g}"),
        _sample(f"{name}_count", [base], buckets[-1][1]),
    ]


def gateways_text(gateways: Sequence[Mapping[str, Any]], node: str) -> str:
    """Return the metrics of gateways and carriers."""
    if not gateways:
        return ""
    ranked = sorted(gateways, key=lambda gateway: -gateway["attempts"])
    own, others = ranked[:COUNTED_GATEWAYS], ranked[COUNTED_GATEWAYS:]
    labels = [[("node", node), *((key, str(gateway[name])) for key, name in _GATEWAY_LABELS)] for gateway in own]
    rest = [("node", node), *((key, "(others)") for key, _ in _GATEWAY_LABELS)]
    lines: list[str] = []
    for name, (field, kind, help_text) in _GATEWAY.items():
        full = f"{name}_total" if kind == "counter" else name
        lines += [f"# HELP {PREFIX}{full} {help_text}", f"# TYPE {PREFIX}{full} {kind}"]
        lines += [_sample(full, pairs, int(gateway[field])) for pairs, gateway in zip(labels, own, strict=True)]
        if others:
            lines.append(_sample(full, rest, sum(int(gateway[field]) for gateway in others)))
    lines += [f"# HELP {PREFIX}gateway_refused_total attempts that were refused, by class", f"# TYPE {PREFIX}gateway_refused_total counter"]
    for number in range(4):
        kind_of = ("class", f"{number + 3}xx")
        lines += [
            _sample("gateway_refused_total", [*pairs, kind_of], gateway["refused"][number])
            for pairs, gateway in zip(labels, own, strict=True)
        ]
        if others:
            lines.append(_sample("gateway_refused_total", [*rest, kind_of], sum(gateway["refused"][number] for gateway in others)))
    return "\n".join([*lines, ""])


def _sample(name: str, labels: Sequence[tuple[str, str]], value: int | str) -> str:
    pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels)
    return f"{PREFIX}{name}{{{pairs}}} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
