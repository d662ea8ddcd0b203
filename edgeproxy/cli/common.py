"""What several commands share."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from edgeproxy.errors import EdgeProxyError

CONTROL = click.option(
    "--control",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/edgeproxy/control.sock"),
    envvar="EDGEPROXY_CONTROL",
    show_default=True,
    show_envvar=True,
    help="Control socket of the running proxy, in its state directory.",
)


def told(work: Callable[[], object]) -> None:
    """Run `work`; an error of ours is told in its own words, with exit code 1."""
    try:
        work()
    except EdgeProxyError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def show(answer: bytes) -> None:
    """Print JSON to be read."""
    click.echo(msgspec.json.format(answer, indent=2).decode())


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print rows below their heads. Their texts may be anybody's: what is no printable character is escaped, and no markup is heard."""
    from rich.console import Console  # noqa: PLC0415 - JSON needs no tables
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(*head, box=None)
    for row in rows:
        drawn.add_row(*(Text("".join(own if own.isprintable() else ascii(own)[1:-1] for own in cell)) for cell in row))
    # What goes into a pipe is not to be cut to the width of a terminal that is not there.
    Console(width=None if sys.stdout.isatty() else 240).print(drawn)
