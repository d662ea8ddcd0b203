"""Results of guarding as parts of the page."""

import statistics
from typing import Any

from report_rows import cost_table, median


def guard_cost(rows: list[dict[str, Any]]) -> list[str]:
    """What sampling, limits and fraud cost a call."""
    rate = rows[0]["rate"]
    floor, plain, guarded = (median(rows, "cost", target=name, rate=rate) for name in ("floor", "edgeproxy", "edgeproxy-guard"))
    title = "Guarding: the relay with sampling, a rate, a call limit and a fraud profile"
    return [*cost_table(rows, title), "", f"Guarding adds {guarded - plain:.1f} µs a call: {(guarded - plain) / floor:.2f} of the floor."]


def edge_cost(rows: list[dict[str, Any]]) -> list[str]:
    """What all that there is costs a call."""
    memory = median(rows, "memory", target="edgeproxy-edge", rate=rows[0]["rate"]) / (1 << 20)
    title = "The whole edge: sampling, a rate, a call limit, a fraud profile, routing by prefix over a million rules, fail-over armed"
    return [*cost_table(rows, title), "", f"The process holds {memory:.0f} MiB."]


def floods(data: dict[str, Any]) -> list[str]:
    """What floods do."""
    lines = ["## Guarding: floods", "", "| target | datagrams | ns each | MiB |", "|---|---|---|---|"]
    sink = 1.0
    for name in ("sink", "edgeproxy-guard"):
        rows = [row for row in data["alone"] if row["target"] == name]
        cost = statistics.median(row["nanoseconds"] for row in rows)
        sink = cost if name == "sink" else sink
        memory = statistics.median(row["memory"] for row in rows) / (1 << 20)
        shown = "a bare receive" if name == "sink" else f"blocked by us: {cost / sink:.2f} of that"
        lines.append(f"| {shown} | {sum(row['taken'] for row in rows)} | {cost:.0f} | {memory:.0f} |")
    lines += [
        "",
        "| flood | sources | dropped by | calls at 500/s | lost | set-up p99 calm | beside | proxy's processor calm | beside, once they are banned | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['sent_per_second']:,.0f}/s | {row['sources']} | {'the kernel' if row['kernel'] else 'us'} | {row['calls']} | {row['lost']} | {row['p99_calm']} µs "
        f"| {row['p99_beside']} µs | {row['share_calm']:.1%} | {row['share']:.1%} | {row['memory'] / (1 << 20):.0f} |"
        for row in data["beside"]
    ]
    return lines


def exactness(row: dict[str, Any]) -> list[str]:
    """Whether a limit is exact under races."""
    return [
        "## Guarding: races for the places of one key",
        "",
        f"{row['attempted']:,} calls at {row['rate']:,}/s over two workers, for {row['limit']} places of one key: the callee refuses every 7th, every 5th is cancelled while it "
        "is answered, every 11th caller is gone without a word and found out after three seconds.",
        "",
        "| calls let in | completed | refused | gone without a word | at once at the callee, at most | calls left in the end | places held in the end | MiB |",
        "|---|---|---|---|---|---|---|---|",
        f"| {row['admitted']:,} | {row['completed']:,} | {row['refused']:,} | {row['killed']:,} | {row['most_live']} of {row['limit']} | {row['left']} | {row['held']} | {row['memory'] / (1 << 20):.0f} |",
    ]
