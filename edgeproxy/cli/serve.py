"""Commands that need no running proxy: serve, check, compile."""

from pathlib import Path

import click

from edgeproxy.admin.api import management
from edgeproxy.cli.common import told
from edgeproxy.config import load
from edgeproxy.policy.compiled import compile_module
from edgeproxy.server.check import check_world
from edgeproxy.server.policies import compiled_cache
from edgeproxy.server.process import run as serve

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_FILE
def run(file: Path) -> None:
    """Serve as FILE says, in the foreground, until SIGTERM; prints `ready` when it serves."""
    told(lambda: serve(load(file), management))


@click.command()
@_FILE
def check(file: Path) -> None:
    """Tell everything that is wrong with FILE; the verdict is that of starting with it."""
    told(lambda: check_world(load(file)))
    click.echo(f"{file}: ok")


@click.group()
def policy() -> None:
    """Work on policy modules."""


@policy.command("compile")
@_FILE
def compile_policies(file: Path) -> None:
    """Compile the policy modules of FILE with Cython, for the next start or reload; a changed source runs interpreted until then."""

    def work() -> None:
        loaded = load(file)
        for module in loaded.config.policy:
            place = compile_module(module.module, file.resolve().parent, compiled_cache(loaded))
            click.echo(f"{module.module}: {place}")

    told(work)
