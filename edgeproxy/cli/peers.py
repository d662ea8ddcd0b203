"""`edgeproxy peers`: machines of peers that are pools."""

from pathlib import Path

import click
import msgspec

from edgeproxy.admin.client import ask
from edgeproxy.admin.routes import GatewayView
from edgeproxy.cli.common import CONTROL, show, table, told


@click.group()
def peers() -> None:
    """Show, drain and enable the machines of peers that are pools."""


@peers.command("show")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def show_machines(raw: bool, control: Path) -> None:
    """Show the machines of every pool with their state and calls."""

    def work() -> None:
        answer = ask(control, "GET", "/peers/machines")
        if raw:
            show(answer)
            return
        rows = msgspec.json.decode(answer, type=dict[str, list[GatewayView]])["machines"]
        head = ["peer", "machine", "state", "calls", "attempts", "answered"]
        table(head, [[row.partition, row.id, row.state, row.calls, str(row.attempts), str(row.answered)] for row in rows])

    told(work)


def _switch(peer: str, machine: str, control: Path, on: bool) -> None:
    told(lambda: show(ask(control, "PUT", "/peers/switch", {"peer": peer, "uri": machine, "on": on})))


@peers.command()
@click.argument("peer")
@click.argument("machine")
@CONTROL
def drain(peer: str, machine: str, control: Path) -> None:
    """Give MACHINE (its URI in `to`) of PEER no new calls; it keeps those that it has. A restart keeps that."""
    _switch(peer, machine, control, on=False)


@peers.command()
@click.argument("peer")
@click.argument("machine")
@CONTROL
def enable(peer: str, machine: str, control: Path) -> None:
    """Give MACHINE of PEER calls again."""
    _switch(peer, machine, control, on=True)
