"""`edgeproxy location` and `edgeproxy ban`: where users are, and which sources are not listened to."""

import time
from pathlib import Path

import click
import msgspec

from edgeproxy.admin.client import ask
from edgeproxy.admin.users import BAN_SECONDS, BanView, BindingView, SourceView
from edgeproxy.cli.common import CONTROL, show, table, told


@click.group()
def location() -> None:
    """Show and remove bindings of users who registered here."""


@location.command("show")
@click.argument("aor", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Users, where none is named.")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def show_location(aor: str, limit: int, raw: bool, control: Path) -> None:
    """Show the bindings of AOR (user@domain), or of all."""

    def work() -> None:
        answer = ask(control, "GET", "/location", query={"aor": aor, "limit": str(limit)})
        if raw:
            show(answer)
            return
        rows = msgspec.json.decode(answer, type=dict[str, list[BindingView]])["bindings"]
        head = ["user", "contact", "reached at", "expires in", "q", "user agent"]
        now = int(time.time())
        table(
            head,
            [
                [row.aor, row.contact, row.received or row.path or "contact", f"{row.expires - now} s", f"{row.q:g}", row.user_agent]
                for row in rows
            ],
        )

    told(work)


@location.command()
@click.argument("aor")
@click.argument("contact", required=False)
@CONTROL
def remove(aor: str, contact: str | None, control: Path) -> None:
    """Remove the bindings of AOR (user@domain), or only that of CONTACT (a URI)."""
    told(lambda: show(ask(control, "POST", "/location/remove", {"aor": aor, "contact": contact})))


@click.group()
def ban() -> None:
    """Show, add and remove sources that are not listened to."""


@ban.command("list")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def list_bans(raw: bool, control: Path) -> None:
    """Show the sources that are banned, the latest first."""

    def work() -> None:
        answer = ask(control, "GET", "/bans")
        if raw:
            show(answer)
            return
        rows = msgspec.json.decode(answer, type=dict[str, list[BanView]])["bans"]
        table(
            ["source", "since", "left", "reason"],
            [[row.source, f"{row.since_seconds} s", f"{row.left_seconds} s", row.reason] for row in rows],
        )

    told(work)


@ban.command()
@click.argument("source")
@click.option("--seconds", type=click.IntRange(1, 31_536_000), default=BAN_SECONDS, show_default=True, help="For how long.")
@click.option("--reason", default="by an operator", show_default=True, help="Why, for the list and the event.")
@click.option("--exempt", is_flag=True, help="Ban it although it is a peer of ours, a gateway, or of an exempt network.")
@CONTROL
def add(source: str, seconds: int, reason: str, exempt: bool, control: Path) -> None:
    """Listen to SOURCE, an IP address, no more."""
    told(lambda: show(ask(control, "POST", "/bans", {"source": source, "seconds": seconds, "reason": reason, "exempt": exempt})))


@ban.command()
@click.argument("source")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def explain(source: str, raw: bool, control: Path) -> None:
    """Tell why SOURCE is banned or is not: what is counted of it, and what would be too much."""

    def work() -> None:
        answer = ask(control, "GET", "/bans/explain", query={"source": source})
        if raw:
            show(answer)
            return
        view = msgspec.json.decode(answer, type=SourceView)
        state = f"banned for {view.left_seconds} s more: {view.banned_for}" if view.banned_for else "listened to"
        rows = [
            ["state", state],
            ["exempt", "yes: a peer of ours, a gateway, or an exempt network" if view.exempt else "no"],
            ["users came from there", f"yes, {view.users} within two hours" if view.known or view.users else "no"],
            ["packets in the unit", f"{view.packets} of {view.packet_limit}" if view.packet_limit else "not counted, there is no [flood]"],
            ["points", f"{view.points} of {view.point_limit}" if view.point_limit else "not counted, there is no [flood]"],
            ["failed authentications", str(view.failures)],
        ]
        table(["source", view.source], rows)

    told(work)


@ban.command("remove")
@click.argument("source")
@CONTROL
def remove_ban(source: str, control: Path) -> None:
    """Listen to SOURCE again."""
    told(lambda: show(ask(control, "POST", "/bans/remove", {"source": source})))
