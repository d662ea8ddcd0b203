"""Counters in the text format of Prometheus: merged over the workers when somebody asks, with labels of bounded number."""

from collections.abc import Iterable, Mapping

PREFIX = "edgeproxy_"
GAUGES = {"calls", "transactions", "connections", "invites_unread_percent", "policy_queue_bytes"}
_HEADS = {
    "requests_by_method": ("counter", "requests by method", "method"),
    "responses_by_class": ("counter", "responses by class of status code", "class"),
}


def text(counters: Mapping[str, int], labelled: Iterable[tuple[str, str, int]], node: str) -> str:
    """Return every metric, each with the name of the node."""
    base = f'node="{_escaped(node)}"'
    lines: list[str] = []
    for name, value in counters.items():
        kind, suffix = ("gauge", "") if name in GAUGES else ("counter", "_total")
        lines += [f"# TYPE {PREFIX}{name}{suffix} {kind}", f"{PREFIX}{name}{suffix}{{{base}}} {value}"]
    seen = ""
    decisions = 0
    for name, label, value in labelled:
        if head := _HEADS.get(name):
            kind, help_text, key = head
            if name != seen:
                lines += [f"# HELP {PREFIX}{name}_total {help_text}", f"# TYPE {PREFIX}{name}_total {kind}"]
                seen = name
            lines.append(f'{PREFIX}{name}_total{{{base},{key}="{_escaped(label)}"}} {value}')
        elif name == "policy_decisions":
            if name != seen:
                lines.append(f"# TYPE {PREFIX}policy_decision_seconds histogram")
                seen = name
            bound = label if label == "+Inf" else f"{int(label) / 1e6:g}"
            lines.append(f'{PREFIX}policy_decision_seconds_bucket{{{base},le="{bound}"}} {value}')
            decisions = value
        else:
            lines += [
                f"{PREFIX}policy_decision_seconds_sum{{{base}}} {value / 1e6:g}",
                f"{PREFIX}policy_decision_seconds_count{{{base}}} {decisions}",
            ]
    return "\n".join([*lines, ""])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
