"""What the parts of the page have in common."""

import statistics
from typing import Any


def median(rows: list[dict[str, Any]], key: str, **match: object) -> float:
    """Return the median of `key` over the rows that match."""
    return statistics.median(row[key] for row in rows if all(row[name] == value for name, value in match.items()))


def total(rows: list[dict[str, Any]], key: str, **match: object) -> int:
    """Return the sum of `key` over the rows that match."""
    return sum(row[key] for row in rows if all(row[name] == value for name, value in match.items()))


def cost_table(rows: list[dict[str, Any]], title: str = "Relay over UDP, INVITE to BYE") -> list[str]:
    """Return the costs of targets at each rate, and their shares of the floor."""
    lines = [
        f"## {title}",
        "",
        "| target | calls/s | CPU per call | share of floor | set-up p50 | p99 | p99.9 | calls | retransmissions | failed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for rate in sorted({row["rate"] for row in rows}):
        base = median(rows, "cost", target="floor", rate=rate)
        for name in dict.fromkeys(row["target"] for row in rows):
            match = {"target": name, "rate": rate}
            value = median(rows, "cost", **match)
            times = " | ".join(f"{median(rows, f'setup_{p}_microseconds', **match):.0f} µs" for p in ("p50", "p99", "p999"))
            sums = " | ".join(str(total(rows, key, **match)) for key in ("attempted", "retransmissions", "failed"))
            lines.append(f"| {name} | {rate} | {value:.1f} µs | {value / base:.2f} | {times} | {sums} |")
    return lines
