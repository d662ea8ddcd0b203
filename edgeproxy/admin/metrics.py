"""Counters in the text format of Prometheus: merged over the workers when somebody asks, with labels of bounded number."""

from collections.abc import Iterable, Mapping, Sequence

PREFIX = "edgeproxy_"
GAUGES = {
    "calls",
    "calls_bytes",
    "transactions",
    "transactions_bytes",
    "connections",
    "invites_unread_percent",
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
    "queue_depth": ("gauge", "entries of a queue"),
}
Labelled = tuple[str, Sequence[tuple[str, str]], int]


def text(counters: Mapping[str, int], labelled: Iterable[Labelled], node: str) -> str:
    """Return every metric, each with the name of the node."""
    base = ("node", node)
    lines: list[str] = []
    for name, value in counters.items():
        kind, suffix = ("gauge", "") if name in GAUGES else ("counter", "_total")
        lines += [f"# TYPE {PREFIX}{name}{suffix} {kind}", _sample(f"{name}{suffix}", [base], value)]
    seen = ""
    decisions = 0
    for name, labels, value in labelled:
        if head := _LABELLED.get(name):
            kind, help_text = head
            full = f"{name}_total" if kind == "counter" else name
            if name != seen:
                lines += [f"# HELP {PREFIX}{full} {help_text}", f"# TYPE {PREFIX}{full} {kind}"]
                seen = name
            lines.append(_sample(full, [base, *labels], value))
        elif name == "policy_decisions":
            if name != seen:
                lines.append(f"# TYPE {PREFIX}policy_decision_seconds histogram")
                seen = name
            bound = labels[0][1]
            shown = bound if bound == "+Inf" else f"{int(bound) / 1e6:g}"
            lines.append(_sample("policy_decision_seconds_bucket", [base, ("le", shown)], value))
            decisions = value
        else:
            lines += [
                _sample("policy_decision_seconds_sum", [base], f"{value / 1e6:g}"),
                _sample("policy_decision_seconds_count", [base], decisions),
            ]
    return "\n".join([*lines, ""])


def _sample(name: str, labels: Sequence[tuple[str, str]], value: int | str) -> str:
    pairs = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels)
    return f"{PREFIX}{name}{{{pairs}}} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
