"""`edgeproxy routes import` and `export`."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgeproxy.cli.common import told
from edgeproxy.server.row_judge import judge
from edgeproxy.storage.transfer import KINDS, export_rows, import_rows


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Draw a bar on standard error for as long as the context lasts; what is given goes it on by so much."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, advance=count)


@click.command("import")
@click.argument("url")
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--replace", is_flag=True, help="Remove all rows that are there first.")
@click.option("--skip-bad", is_flag=True, help="Take the good rows and leave out the bad ones; by default nothing is taken then.")
@click.option("--into-opensips", is_flag=True, help="Write even where the database is OpenSIPS's.")
def import_csv(url: str, kind: str, file: Path, replace: bool, skip_bad: bool, into_opensips: bool) -> None:  # noqa: PLR0913, PLR0917
    """Take rows of FILE (CSV whose first line names the columns) into the database at URL."""

    def work() -> None:
        # As bytes: what cannot be read is told with its line by the import itself.
        with file.open("rb") as lines:
            total = max(sum(1 for _ in lines) - 1, 0)
        with progress(f"importing {kind}", total) as step:
            done = asyncio.run(
                import_rows(url, kind, file, replace=replace, skip_bad=skip_bad, foreign=into_opensips, step=step, judge=judge)
            )
        for fault in done.faults:
            click.echo(fault, err=True)
        click.echo(f"{done.taken} rows taken, {done.fault_count} left out")
        if done.fault_count:
            sys.exit(1)

    told(work)


@click.command("export")
@click.argument("url")
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export_csv(url: str, kind: str, file: Path) -> None:
    """Write the rows of the database at URL into FILE as CSV."""

    def work() -> None:
        with progress(f"exporting {kind}", None) as step:
            count = asyncio.run(export_rows(url, kind, file, step=step))
        click.echo(f"{count} rows written to {file}")

    told(work)
