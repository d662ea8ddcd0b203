"""The command `edgeproxy`: arguments only."""

import sys
from pathlib import Path

import click

from edgeproxy import __version__
from edgeproxy.config import load
from edgeproxy.errors import EdgeProxyError
from edgeproxy.server import check_world
from edgeproxy.server import run as serve

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeproxy")
def main() -> None:
    """Run or check a SIP edge proxy."""


@main.command()
@_FILE
def run(file: Path) -> None:
    """Serve as FILE says, in the foreground, until SIGTERM; prints `ready` when it serves."""
    try:
        serve(load(file))
    except EdgeProxyError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@main.command()
@_FILE
def check(file: Path) -> None:
    """Tell everything that is wrong with FILE; the verdict is that of starting with it."""
    try:
        check_world(load(file))
    except EdgeProxyError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(f"{file}: ok")
