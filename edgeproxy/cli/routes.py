"""`edgeproxy routes`: rules, gateways and carriers."""

from pathlib import Path

import click
import msgspec

from edgeproxy.admin.client import ask
from edgeproxy.admin.routes import GatewayView, QualityView, RuleExplanation
from edgeproxy.cli.common import CONTROL, show, table, told
from edgeproxy.cli.lazy import LazyGroup

_PARTITION = click.option("--partition", default="", help="The partition; by default the tables without one.")
_CARRIER = click.option("--carrier", is_flag=True, help="NAME is that of a carrier.")


@click.group(cls=LazyGroup, later={"import": ("transfer", "import_csv"), "export": ("transfer", "export_csv")})
def routes() -> None:
    """Explain, list, switch, load, import and export the rules and gateways of carriers."""


@routes.command()
@click.argument("number")
@click.option("--route", default="", help="The [route.NAME]; by default the first of the file.")
@click.option("--group", type=click.IntRange(0, (1 << 32) - 1), help="Another group than that of the route.")
@click.option("--caller", default="", help="User, or user@domain, that calls: its group in dr_groups is taken.")
@click.option("--from", "peer", default="", help="The peer that calls: its number rules hold, and without --route its route.")
@click.option("--at", "moment", default="", help="When, as 2026-12-24T18:00:00+01:00; by default now.")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def explain(number: str, route: str, group: int | None, caller: str, peer: str, moment: str, raw: bool, control: Path) -> None:  # noqa: PLR0913, PLR0917
    """Tell which rule and gateways NUMBER would get, and why each other was not."""

    def work() -> None:
        given = {
            "number": number,
            "route": route,
            "peer": peer,
            "caller": caller,
            "at": moment,
            **({} if group is None else {"group": str(group)}),
        }
        answer = ask(control, "GET", "/routes/explain", query={key: value for key, value in given.items() if value or key == "number"})
        if raw:
            show(answer)
        else:
            _explained(msgspec.json.decode(answer, type=RuleExplanation))

    told(work)


def _explained(found: RuleExplanation) -> None:
    click.echo(f"route {found.route}: number {found.number} in group {found.group}")
    if found.number_rule:
        click.echo(f"  made so by rule {found.number_rule}")
    if found.why:
        click.echo(f"  {found.why}")
    for rule in found.rules:
        name = f"prefix {rule.prefix}" if rule.prefix else "default rule"
        click.echo(f"  {'->' if rule.used else '  '} rule {rule.rule}, {name}, priority {rule.priority}: {rule.why}")
        for there in rule.destinations:
            by = f" by carrier {there.carrier}" if there.carrier else ""
            weight = f", weight {there.weight}" if there.weight else ""
            click.echo(f"       {'+' if there.used else '-'} gateway {there.gateway}{by}{weight}: {there.request_uri} ({there.why})")


@routes.command("list")
@click.option("--down", is_flag=True, help="Only those that take no calls.")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def list_gateways(down: bool, raw: bool, control: Path) -> None:
    """List gateways and carriers with their state."""

    def work() -> None:
        answer = ask(control, "GET", "/routes/gateways", query={"down": "true"} if down else {})
        if raw:
            show(answer)
            return
        rows = msgspec.json.decode(answer, type=dict[str, list[GatewayView]])["gateways"]
        table(
            ["name", "kind", "partition", "state", "calls", "uri"],
            [[row.id, row.kind, row.partition, row.state, row.calls, row.uri] for row in rows],
        )

    told(work)


@routes.command()
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def stats(raw: bool, control: Path) -> None:
    """Show attempts, answers and failures of gateways and carriers since the start."""

    def work() -> None:
        answer = ask(control, "GET", "/routes/gateways")
        if raw:
            show(answer)
            return
        rows = [row for row in msgspec.json.decode(answer, type=dict[str, list[GatewayView]])["gateways"] if row.attempts]
        head = [
            "name",
            "kind",
            "partition",
            "attempts",
            "answered",
            "ASR",
            "ACD s",
            "PDD ms",
            "silent",
            "rang out",
            "unreachable",
            "4xx",
            "5xx",
            "6xx",
        ]
        table(
            head,
            [
                [
                    row.id,
                    row.kind,
                    row.partition,
                    str(row.attempts),
                    str(row.answered),
                    f"{row.answered / row.finished:.2f}" if row.finished else "",
                    f"{row.call_seconds / row.calls_ended:.0f}" if row.calls_ended else "",
                    f"{row.post_dial_delay_milliseconds / row.rang:.0f}" if row.rang else "",
                    str(row.silent),
                    str(row.rang_out),
                    str(row.unreachable),
                    *map(str, row.refused[1:4]),
                ]
                for row in rows
            ],
        )

    told(work)


@routes.command()
@CONTROL
def reload(control: Path) -> None:
    """Read rules, gateways and carriers anew; on any fault what served before goes on."""
    told(lambda: show(ask(control, "POST", "/routes/reload", {})))


def _switch(name: str, partition: str, carrier: bool, control: Path, on: bool) -> None:
    body = {"kind": "carrier" if carrier else "gateway", "id": name, "partition": partition, "on": on}
    told(lambda: show(ask(control, "PUT", "/routes/switch", body)))


@routes.command()
@click.argument("name")
@_PARTITION
@_CARRIER
@CONTROL
def enable(name: str, partition: str, carrier: bool, control: Path) -> None:
    """Switch gateway NAME on; a restart keeps that."""
    _switch(name, partition, carrier, control, on=True)


@routes.command()
@click.argument("name")
@_PARTITION
@_CARRIER
@CONTROL
def disable(name: str, partition: str, carrier: bool, control: Path) -> None:
    """Switch gateway NAME off: it takes no calls and is not probed, whatever happens, until it is switched on."""
    _switch(name, partition, carrier, control, on=False)


@routes.group()
def quality() -> None:
    """Show the quality of gateways for rules, and reset or switch pairs."""


@quality.command("show")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def show_quality(raw: bool, control: Path) -> None:
    """Show ASR, CCR, PDD, AST and ACD of every pair of rule and gateway that has had calls, each with its samples."""

    def work() -> None:
        answer = ask(control, "GET", "/routes/quality")
        if raw:
            show(answer)
            return
        rows = []
        for pair in msgspec.json.decode(answer, type=dict[str, list[QualityView]])["pairs"]:
            figures, samples = pair.figures, pair.figures.samples
            texts = [f"{figures.asr:.2f}", f"{figures.ccr:.2f}", f"{figures.pdd:.0f}", f"{figures.ast:.0f}", f"{figures.acd:.0f}"]
            known = [f"{text} ({count})" if count else "" for text, count in zip(texts, samples, strict=True)]
            rows.append([str(pair.rule), pair.gateway, pair.partition, "switched off" if pair.switched_off else pair.grade, *known])
        table(["rule", "gateway", "partition", "grade", "ASR", "CCR", "PDD ms", "AST ms", "ACD s"], rows)

    told(work)


def _set_quality(rule: int, gateway: str, partition: str, control: Path, on: bool | None) -> None:
    body = {"rule": rule, "gateway": gateway, "partition": partition, "on": on}
    told(lambda: show(ask(control, "PUT", "/routes/quality", body)))


@quality.command("reset")
@click.argument("rule", type=click.IntRange(0, (1 << 32) - 1))
@click.argument("gateway")
@_PARTITION
@CONTROL
def reset_quality(rule: int, gateway: str, partition: str, control: Path) -> None:
    """Forget what is kept of GATEWAY for RULE: it begins anew as a good one."""
    _set_quality(rule, gateway, partition, control, None)


@quality.command("enable")
@click.argument("rule", type=click.IntRange(0, (1 << 32) - 1))
@click.argument("gateway")
@_PARTITION
@CONTROL
def enable_quality(rule: int, gateway: str, partition: str, control: Path) -> None:
    """Let GATEWAY take calls of RULE again."""
    _set_quality(rule, gateway, partition, control, on=True)


@quality.command("disable")
@click.argument("rule", type=click.IntRange(0, (1 << 32) - 1))
@click.argument("gateway")
@_PARTITION
@CONTROL
def disable_quality(rule: int, gateway: str, partition: str, control: Path) -> None:
    """Give GATEWAY no calls of RULE where that is sorted by quality, until the next start."""
    _set_quality(rule, gateway, partition, control, on=False)
