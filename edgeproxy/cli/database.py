"""`edgeproxy db`: the database of provisioned data."""

import asyncio
import sys

import click

from edgeproxy.cli.common import told
from edgeproxy.errors import StorageError
from edgeproxy.storage import Standing, check_database, lacking, shown, upgrade


@click.group("db")
def database() -> None:
    """Make, migrate and check the database of provisioned data, by its URL (sqlite:///, postgresql://, mysql://)."""


@database.command()
@click.argument("url")
def init(url: str) -> None:
    """Make the tables in an empty database."""

    def work() -> None:
        before, _ = asyncio.run(check_database(url))
        if before is not Standing.EMPTY:
            raise StorageError(f"{shown(url)}: expected an empty database, this one is {before.value}")
        asyncio.run(upgrade(url))
        click.echo(f"{shown(url)}: made")

    told(work)


@database.command("upgrade")
@click.argument("url")
def upgrade_database(url: str) -> None:
    """Migrate the tables to those of this version; an empty database gets all of them."""

    def work() -> None:
        before = asyncio.run(upgrade(url))
        click.echo(f"{shown(url)}: {'up to date' if before is Standing.OURS else 'upgraded'}")

    told(work)


@database.command()
@click.argument("url")
def check(url: str) -> None:
    """Tell what the database is and whether it has what is read; exit code 1 where it lacks something."""

    def work() -> None:
        standing, missing = asyncio.run(check_database(url))
        click.echo(f"{shown(url)}: {standing.value}")
        if missing and standing is not Standing.OURS:
            click.echo(f"missing tables: {', '.join(missing)}", err=True)
        if standing is Standing.OURS and (gone := asyncio.run(lacking(url))):
            missing = gone
            click.echo(f"missing: {', '.join(gone)}", err=True)
            if all(own.startswith("table ") for own in gone):
                click.echo("hint: edgeproxy db upgrade URL makes them again", err=True)
        if missing or standing in {Standing.OLD, Standing.NEWER}:
            sys.exit(1)

    told(work)
