"""Results as a page and as plots."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report_guard import edge_cost, exactness, floods, guard_cost
from report_rows import cost_table, median, total


def _python(rows: list[dict[str, Any]]) -> list[str]:
    lines = cost_table(rows, "The same with a handler in Python that decides every INVITE, all processes counted")
    lines += ["", "| calls/s | proxy | policy process | decisions p50 up to | p99 up to |", "|---|---|---|---|---|"]
    rates = {
        rate: [row for row in rows if row["target"] == "edgeproxy-python" and row["rate"] == rate]
        for rate in sorted({row["rate"] for row in rows})
    }
    for rate, mine in rates.items():
        parts = [statistics.median(row["split"][index] for row in mine) for index in (0, 1)]
        times = " | ".join(f"{median(mine, f'decision_{p}_microseconds'):.0f} µs" for p in ("p50", "p99"))
        lines.append(f"| {rate} | {parts[0]:.1f} µs | {parts[1]:.1f} µs | {times} |")
    lines += [
        "",
        "What a decision takes on the average: it waits for its process (to which the worker yields, since both have one processor here), is handled there, and the rest is the worker's, before "
        "the question is put and until it looks at the verdict. Beside it the median of one byte to another process and back.",
        "",
        "| calls/s | a decision | waits | is handled | the rest | a byte there and back |",
        "|---|---|---|---|---|---|",
    ]
    for rate, mine in rates.items():
        mean, wait, handling, bare = (
            median(mine, f"{name}_microseconds") for name in ("decision_mean", "decision_wait", "decision_handling", "bare_wake")
        )
        lines.append(f"| {rate} | {mean:.0f} µs | {wait:.0f} µs | {handling:.0f} µs | {mean - wait - handling:.0f} µs | {bare:.0f} µs |")
    return lines


def _highest(rates: dict[str, int]) -> list[str]:
    rows = [f"| {name} | {rate}/s | {rate / rates['kamailio']:.2f} |" for name, rate in rates.items()]
    return ["## Highest clean rate on one processor", "", "| target | rate | share of Kamailio's |", "|---|---|---|", *rows]


def _overload(data: dict[str, Any]) -> list[str]:
    lines = [
        "## Overload",
        "",
        f"The proxy gets a quarter of a processor, so that the generator is not the first to be overloaded; the highest rate that it keeps clean for as long is then {data['rate']}/s.",
        "",
        "| offered | served | share | refused | of these with Retry-After | unanswered | failed | clean 5 s later |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['factor']} x | {r['goodput']:.0f}/s | {r['share']:.0%} | {r['refused']} | {r['refused_with_retry_after']} | {r.get('unanswered', 0)} | {r['failed']} "
        f"| {'yes' if r['clean_after'] else 'no'} |"
        for r in data["rows"]
    ]
    return lines


def _memory(m: dict[str, Any]) -> list[str]:
    warm, *rest = (f"{value / (1 << 20):.1f}" for value in (m["warm"], *m["peaks"], *m["rests"]))
    return [
        "## Memory",
        "",
        f"PSS in MiB at {m['rate']} calls/s for {m['seconds']} s, each load followed by {m['linger']} s: warm {warm}; peaks {', '.join(rest[:3])}; "
        f"afterwards {', '.join(rest[3:])} ({m['rests'][-1] / m['warm']:.2f} of warm); third peak {m['peaks'][2] / m['peaks'][1] - 1:+.1%} on the second; "
        f"failed calls {m['failed']}.",
    ]


def _tracing(rows: list[dict[str, Any]]) -> list[str]:
    off, memory, collector = (median(rows, "cost", trace=kind) for kind in ("off", "memory", "collector"))
    return [
        "## Trace",
        "",
        f"At {rows[0]['rate']} calls/s: {off:.1f} µs a call without any, {memory:.1f} µs with the memory of the configuration's default ({memory / off - 1:+.1%}), "
        f"{collector:.1f} µs where a collector gets it too ({collector / off - 1:+.1%}).",
    ]


def _spinning(rows: list[dict[str, Any]]) -> list[str]:
    alone, beside = (median(rows, "setup_p99_microseconds", spins=value) for value in (False, True))
    return [
        "## Beside a policy that spins",
        "",
        f"At {rows[0]['rate']} calls/s that need no policy, its process on the proxy's own processor: set-up p99 {alone:.0f} µs alone, {beside:.0f} µs beside it "
        f"({beside / alone - 1:+.0%}); failed {total(rows, 'failed', spins=True)}.",
    ]


def _crossing(found: dict[str, float]) -> list[str]:
    return [
        "## The crossing alone",
        "",
        f"Question and verdict, 64 a batch, without the handler's own work: {found['plain']:.1f} µs a request for a function, "
        f"{found['coroutine']:.1f} µs for a coroutine that does not wait. A handler by itself: {found['interpreted']:.1f} µs interpreted, "
        f"{found['compiled']:.1f} µs compiled.",
    ]


def _call(call: dict[str, float]) -> list[str]:
    return [
        "## Memory of a call",
        "",
        f"A live call takes {call['live']:.0f} bytes with its INVITE transaction, {call['without_transaction']:.0f} once that is over; "
        f"an ended call lingers with two transactions in at most {call['lingering']:.0f} bytes: what is freed in between is not yet given back.",
    ]


def _idle(idle: dict[str, Any]) -> list[str]:
    return [
        "## Idle connections",
        "",
        f"{idle['connections']} idle TCP connections: {idle['bytes_each']:.0f} bytes each; calls failed beside them: {idle['failed']}.",
    ]


def _streams(rows: list[dict[str, Any]]) -> list[str]:
    base, ours = (median(rows, "cost", target=name) for name in ("floor-tcp", "edgeproxy"))
    return [
        "## Relay over TCP",
        "",
        f"At {rows[0]['rate']} calls/s: bare TCP forwarder {base:.1f} µs, edgeproxy {ours:.1f} µs, ratio {ours / base:.2f}; "
        f"failed {total(rows, 'failed', target='edgeproxy')}.",
    ]


def _workers(rows: list[dict[str, Any]]) -> list[str]:
    one, two = (median(rows, "cost", workers=count) for count in (1, 2))
    return [
        "## Two workers",
        "",
        f"At {rows[0]['rate']} calls/s, all processes sharing two processors: one worker {one:.1f} µs, two {two:.1f} µs, ratio {two / one:.2f}.",
    ]


def _reloads(done: dict[str, Any], title: str = "Reloads") -> list[str]:
    return [
        f"## {title}",
        "",
        f"{done['count']} in a row under {done['rate']} calls/s, median {done['median_milliseconds']:.1f} ms: calls or reloads failed {done['failed']}; "
        f"memory {done['before'] / (1 << 20):.1f} MiB before, {done['after'] / (1 << 20):.1f} MiB after.",
    ]


def _policy_reloads(done: dict[str, Any]) -> list[str]:
    return _reloads(done, "Reloads that start the policy process anew")


def _policy_processes(rows: list[dict[str, Any]]) -> list[str]:
    one, two = (median(rows, "decided", processes=count) for count in (1, 2))
    return [
        "## Two policy processes",
        "",
        f"A handler that works for 10 ms, {rows[0]['rate']} calls/s offered, all on two processors: one process decides {one:.0f} a second, "
        f"two {two:.0f}: {two / one:.2f} times as many.",
    ]


def _scraping(rows: list[dict[str, Any]]) -> list[str]:
    reads = rows[1]["reads"]
    costs = [(after["share"] - before["share"]) / reads for before, after in zip(rows[::2], rows[1::2], strict=True)]
    without, read = (median(rows, "share", reads=value) for value in (0, reads))
    return [
        "## Metrics",
        "",
        f"At {rows[0]['rate']} calls/s, {len(costs)} windows each in turn: {without:.2%} of a processor, {read:.2%} with metrics read {reads} "
        f"times a second; read once a second they cost {statistics.median(costs):.2%} (median over windows next to each other, "
        f"{min(costs):.2%} to {max(costs):.2%}). {rows[0]['failed']} calls failed.",
    ]


def _garbage(run: dict[str, Any]) -> list[str]:
    return [
        "## Garbage",
        "",
        f"500 calls/s beside 20,000 datagrams of garbage a second: {run['completed']} calls, {run['failed']} failed, {run['retransmissions']} retransmissions.",
    ]


def _route_loading(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Carrier routing: loading rules from SQLite",
        "",
        "Random rules of 3 to 10 digits, 3 of 1,000 gateways each, in a fresh process; OpenSIPS 4.0.1 takes 11.5 s and 1.0 GB for a million.",
        "",
        "| rules | processor time | memory more than without | at its peak | rules and prefixes alone |",
        "|---|---|---|---|---|",
    ]
    for rules in sorted({row["rules"] for row in rows}):
        sizes = " | ".join(f"{median(rows, key, rules=rules) / (1 << 20):.0f} MiB" for key in ("bytes", "peak", "table"))
        lines.append(f"| {rules:,} | {median(rows, 'seconds', rules=rules):.2f} s | {sizes} |")
    return lines


def _route_lookup(found: dict[str, float]) -> list[str]:
    return [
        "## Carrier routing: one lookup",
        "",
        f"A random number of 11 digits among a million rules, its rule read: {found['warm']:.0f} ns on average; {found['cold']:.0f} ns with caches emptied before each 16.",
    ]


def _route_cost(rows: list[dict[str, Any]]) -> list[str]:
    lines = cost_table(rows, "Carrier routing: every INVITE by prefix over a million rules, fail-over armed")
    rate = rows[0]["rate"]
    share = median(rows, "cost", target="edgeproxy-carrier", rate=rate) / median(rows, "cost", target="edgeproxy", rate=rate)
    memory = median(rows, "memory", target="edgeproxy-carrier", rate=rate) / (1 << 20)
    return [*lines, "", f"The plain relay costs 1, routing {share:.2f}; the process with its rules holds {memory:.0f} MiB."]


def _route_reloads(done: dict[str, Any]) -> list[str]:
    return [
        "## Carrier routing: reloads under load",
        "",
        f"{done['count']} reloads of {done['rules']:,} rules, median {done['seconds']:.1f} s, under {done['rate']} calls/s: {done['lost']} of {done['attempted']} calls lost; "
        f"set-up p99 {done['p99_before']} µs before, {done['p99_during']} µs meanwhile; {done['memory'] / (1 << 20):.0f} MiB afterwards.",
    ]


def _gateway_killed(done: dict[str, Any]) -> list[str]:
    return [
        "## Carrier routing: a gateway is killed",
        "",
        f"Of {done['attempted']} calls of SIPp at {done['rate']}/s, the first of two gateways killed half-way: {done['lost']} lost that had not rung there, {done['rang']} that had; "
        f"{done['moved']} went on to the other gateway; the longest set-up took {done['setup_max_milliseconds']} ms.",
    ]


def _lookup_hangs(done: dict[str, Any]) -> list[str]:
    return [
        "## Number lookups: the service hangs",
        "",
        f"{done['rate']} calls/s that ask nobody: set-up p99 {done['p99_alone']} µs alone, {done['p99_refused']} µs beside {done['dipped']} calls/s whose lookup is refused at once, {done['p99_beside']} µs beside as many that wait a second for a service that never answers; "
        f"{done['lost']} of {done['attempted']} lost. Of those that waited {done['waited_lost']} of {done['waited_attempted']} were lost, and half of them were set up within {done['waited_p50'] / 1e6:.2f} s.",
    ]


def _register(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Registrar: REGISTER over UDP",
        "",
        "Each from another user, kept in memory, unchallenged; the floor answers without looking. With digest, credentials cached, each exchange is two requests: the cost is that of one.",
        "",
        "| target | requests/s | CPU per request | share of floor | p99 | requests | refused, lost |",
        "|---|---|---|---|---|---|---|",
    ]
    base = median(rows, "cost", target="floor")
    for name in dict.fromkeys(row["target"] for row in rows):
        value = median(rows, "cost", target=name)
        lost = sum(total(rows, key, target=name) for key in ("refused", "failed", "unanswered"))
        rate = rows[0]["rate"]
        lines.append(
            f"| {name} | {rate} | {value:.1f} µs | {value / base:.2f} | {median(rows, 'setup_p99_microseconds', target=name):.0f} µs "
            f"| {total(rows, 'attempted', target=name)} | {lost} |"
        )
    share = median(rows, "cost", target="edgeproxy-digest") / median(rows, "cost", target="edgeproxy")
    return [*lines, "", f"With digest a request costs {share:.2f} of one without."]


def _register_memory(rows: list[dict[str, Any]]) -> list[str]:
    told = "; ".join(f"{row['target']} {row['each']:.0f} bytes each, {row['lost']} refused or lost" for row in rows)
    return [
        "## Registrar: memory of a binding",
        "",
        f"{rows[0]['bindings']:,} bindings of as many users, at {rows[0]['rate']}/s, some time after the load: {told}.",
    ]


def _register_highest(done: dict[str, Any]) -> list[str]:
    lost = " and ".join(f"{count / done['attempted']:.2%}" for count in done["lost"])
    return [
        "## Registrar: as many as the generator makes",
        "",
        f"{done['rate']}/s on one worker, {done['attempted']:,} users, then all of them again: {lost} refused or lost; p99 {done['p99']} µs; "
        f"memory {done['before'] / (1 << 20):.0f} MiB after the first, {done['after'] / (1 << 20):.0f} MiB after the second.",
    ]


def _register_storm(done: dict[str, Any]) -> list[str]:
    return [
        "## Registrar: everybody comes back",
        "",
        f"{done['attempted']:,} phones over a challenge, with nothing cached: {done['completed']:,} registered within {done['seconds']:.0f} s, "
        f"{done['refused']} refused, {done['failed'] + done['unanswered']} lost, {done['retransmissions']} retransmissions, p99 {done['setup_p99_microseconds']} µs. "
        f"Beside them {done['calls']['attempted']:,} calls of five seconds: {done['calls']['lost']} failed; set-up p99 {done['calls']['p99_alone']} µs alone, {done['calls']['p99']} µs meanwhile.",
    ]


def _register_dark(done: dict[str, Any]) -> list[str]:
    return [
        "## Registrar: the database is gone",
        "",
        f"{done['rate']} exchanges a second of users that are known, by credentials that should have been read anew: {done['lost']} of {done['attempted']:,} refused or lost, "
        f"p99 {done['p99_before']} µs with the database, {done['p99']} µs without. Beside them {done['unknown']:,} of users that nobody knows: {done['refused']:,} told to come again, {done['unanswered']} without an answer.",
    ]


def _keep_alive(rows: list[dict[str, Any]]) -> list[str]:
    each = {row["kind"]: row["each"] for row in rows}
    told = {row["kind"]: row for row in rows}
    return [
        "## Registrar: keep-alives",
        "",
        f"As many as {told['crlf']['wanted']:,} phones need at one each 30 s: {told['crlf']['sent']:,} CRLF sent, {each['crlf']:.2f} µs each, {each['crlf'] / each['bare send']:.2f} of a bare send beside it ({each['bare send']:.2f} µs); "
        f"{told['options']['sent']:,} OPTIONS sent and {told['options']['answered']:,} answered, {each['options']:.2f} µs each with its answer, {each['options'] / each['bare answer']:.2f} of a bare answer ({each['bare answer']:.2f} µs).",
    ]


def _guessing(done: dict[str, Any]) -> list[str]:
    return [
        "## Registrar: a brute-force attack",
        "",
        f"{done['guesses']:,} guesses at {done['rate']}/s from one address, which ended banned: {', '.join(done['banned']) or 'nobody'}. Beside it {done['others']} honest exchanges a second from another: "
        f"p99 {done['p99_alone']} µs alone, {done['p99_beside']} µs beside; refused or lost {done['lost_alone']} alone, {done['lost_beside']} beside.",
    ]


def _media(data: dict[str, Any]) -> list[str]:
    rows = data["rows"]
    tops = ", ".join(f"{name} {rate:,}/s" for name, rate in data["highest"].items())
    lines = [
        "## Media: RTP relayed",
        "",
        f"500 streams of G.711, both ways. Highest rate of the bare relays without loss: {tops}. CPU from the first packet to the last.",
        "",
        "| target | packets/s | of the highest | CPU per packet | share of the better bare relay | delay p50 | p99 | p99.9 | packets | lost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for share in sorted({row["of_highest"] for row in rows}, reverse=True):
        base = min(median(rows, "cost", target=name, of_highest=share) for name in data["highest"])
        for name in dict.fromkeys(row["target"] for row in rows):
            match = {"target": name, "of_highest": share}
            value = median(rows, "cost", **match)
            times = " | ".join(f"{median(rows, f'delay_{p}_microseconds', **match):.0f} µs" for p in ("p50", "p99", "p999"))
            sums = " | ".join(f"{total(rows, key, **match):,}" for key in ("attempted", "lost"))
            lines.append(
                f"| {name} | {median(rows, 'rate', **match):,.0f} | {share:.0%} | {value:.2f} µs | {value / base:.2f} | {times} | {sums} |"
            )
    return lines


def _media_idle(done: dict[str, Any]) -> list[str]:
    return [
        "## Media: idle streams",
        "",
        f"{done['streams']:,} streams without a packet for {done['seconds']} s: {done['always']['share']:.2%} of a processor and {done['always']['bytes_each']:,.0f} bytes each of the whole process, "
        f"their calls among it; as many calls whose media is not relayed: {done['never']['share']:.2%} and {done['never']['bytes_each']:,.0f}. So a stream takes "
        f"{done['always']['bytes_each'] - done['never']['bytes_each']:,.0f} bytes, and all of them {max(0.0, done['always']['share'] - done['never']['share']):.2%} of a processor.",
    ]


def _media_aborted(done: dict[str, Any]) -> list[str]:
    lines = ["## Media: aborted calls", "", f"{done['calls']:,} calls given up at every step of offer and answer; 45 s later:", ""]
    lines += ["| | before | after |", "|---|---|---|"]
    return [*lines, *(f"| {key} | {value:,} | {done['after'][key]:,} |" for key, value in done["before"].items())]


SECTIONS: dict[str, Callable[[Any], list[str]]] = {
    "cost": cost_table,
    "python": _python,
    "crossing": _crossing,
    "highest": _highest,
    "overload": _overload,
    "memory": _memory,
    "call": _call,
    "idle": _idle,
    "streams": _streams,
    "workers": _workers,
    "reloads": _reloads,
    "policy_reloads": _policy_reloads,
    "policy_processes": _policy_processes,
    "scraping": _scraping,
    "tracing": _tracing,
    "spinning": _spinning,
    "garbage": _garbage,
    "route_loading": _route_loading,
    "route_lookup": _route_lookup,
    "route_cost": _route_cost,
    "route_reloads": _route_reloads,
    "gateway_killed": _gateway_killed,
    "lookup_hangs": _lookup_hangs,
    "register": _register,
    "register_memory": _register_memory,
    "register_highest": _register_highest,
    "register_storm": _register_storm,
    "register_dark": _register_dark,
    "keep_alive": _keep_alive,
    "guessing": _guessing,
    "guard_cost": guard_cost,
    "edge_cost": edge_cost,
    "floods": floods,
    "exactness": exactness,
    "media": _media,
    "media_idle": _media_idle,
    "media_aborted": _media_aborted,
}


def page(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    lines = [
        "# Results",
        "",
        "Written by `make bench`. Figures are medians over rounds; ratios are to the bare forwarder of the same run. The machine is shared: compare ratios.",
        "",
        f"{data['date']}, {data['machine']}; at the end stands what made each part.",
    ]
    for part, section in SECTIONS.items():
        if part in data:
            lines += ["", *section(data[part])]
    if made := data.get("made"):
        lines += ["", "## Made by", "", *(f"- {part}: {made[part]}" for part in SECTIONS if part in made)]
    return "\n".join([*lines, "", "![plots](results/relay.png)", ""])


def plot(data: dict[str, Any], file: Path) -> None:
    """Draw cost against rate, latency percentiles and memory over time."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = data["cost"]
    rates = sorted({row["rate"] for row in rows})
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.5))
    for name in dict.fromkeys(row["target"] for row in rows):
        axes[0].plot(rates, [median(rows, "cost", target=name, rate=rate) for rate in rates], marker="o", label=name)
        for percentile, style in (("p50", ":"), ("p99", "-")):
            values = [median(rows, f"setup_{percentile}_microseconds", target=name, rate=rate) for rate in rates]
            axes[1].plot(rates, values, style, marker="o", label=f"{name} {percentile}")
    axes[0].set(xlabel="calls a second", ylabel="µs of processor per call", title="cost", ylim=(0, None))
    axes[1].set(xlabel="calls a second", ylabel="µs", title="set-up time", yscale="log")
    if data.get("memory"):
        axes[2].plot([at for at, _ in data["memory"]["trace"]], [size / (1 << 20) for _, size in data["memory"]["trace"]])
    axes[2].set(xlabel="seconds", ylabel="MiB", title="memory of edgeproxy", ylim=(0, None))
    for axis in axes[:2]:
        axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=90)
