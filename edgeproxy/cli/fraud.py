"""`edgeproxy fraud`: figures of users, bars, and what a profile would have said of calls that were."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from edgeproxy.admin.client import ask
from edgeproxy.admin.fraud import StatsView
from edgeproxy.cli.common import CONTROL, show, table, told
from edgeproxy.errors import ConfigError

MOST_PROBLEMS = 10
"""Lines that are no records, each told by itself."""


class _Answer(msgspec.Struct):
    figures: list[StatsView]
    barred: list[dict[str, Any]]


class _Record(msgspec.Struct):
    """What of a call record is looked at."""

    from_uri: str
    request_uri: str
    from_peer: str
    started_at: datetime
    ended_at: datetime
    answered_at: datetime | None = None
    id: str = ""
    refused_by: str = ""
    notes: dict[str, str] = {}


@click.group()
def fraud() -> None:
    """Show what accounts do, end bars, and try profiles out on call records."""


@fraud.command("show")
@click.argument("user", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Rows, those with the most calls first.")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def show_figures(user: str, limit: int, raw: bool, control: Path) -> None:
    """Show the figures of USER (user@domain), or of all, and who is barred."""

    def work() -> None:
        answer = ask(control, "GET", "/fraud", query={"user": user, "limit": str(limit)})
        if raw:
            show(answer)
            return
        found = msgspec.json.decode(answer, type=_Answer)
        head = ["user", "profile", "prefix", "rule", "calls a minute", "total", "at once", "in a row"]
        table(head, [[str(value) for value in msgspec.structs.astuple(row)] for row in found.figures])
        for one in found.barred:
            click.echo(f"barred: {one['user']}, for {one['left_seconds']} s more, by {one['node']}")

    told(work)


@fraud.command()
@click.argument("user")
@CONTROL
def unbar(user: str, control: Path) -> None:
    """Let USER (user@domain) call again."""
    told(lambda: show(ask(control, "POST", "/fraud/unbar", {"user": user})))


@fraud.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--profile", type=click.IntRange(1), help="Let every call go by this profile.")
@click.option("--refused", is_flag=True, help="Count calls that were refused, too.")
@click.option("--json", "raw", is_flag=True, help="Print each alarm as a JSON object a line.")
def replay(file: Path, records: tuple[Path, ...], profile: int | None, refused: bool, raw: bool) -> None:
    """Tell what the `[fraud]` of FILE would have said of the calls in RECORDS (JSON lines), and change nothing.

    The profile of a call is that of its note `account.fraud_profile`, of its peer, or the default.
    """

    def work() -> None:
        from edgeproxy.server.fraud_replay import alarms, configured  # noqa: PLC0415 - a question to a proxy needs no engine

        config, faults = asyncio.run(configured(file))
        for fault in faults:
            click.echo(fault, err=True)
        problems: list[str] = []
        calls = _once(_calls(records, refused=refused, problems=problems))
        for problem in problems[:MOST_PROBLEMS]:
            click.echo(f"{problem}; left out", err=True)
        if len(problems) > MOST_PROBLEMS:
            click.echo(f"{len(problems) - MOST_PROBLEMS} more lines are no call records; left out", err=True)
        if problems and not calls:
            raise ConfigError("no call record among them")
        found = alarms(config, calls, profile)
        if raw:
            for alarm in found:
                click.echo(msgspec.json.encode(alarm))
            return
        head = ["time", "event", "user", "called", "rule", "figure", "value", "threshold"]
        table(head, [[a.time, a.event, a.user, a.called_number, str(a.rule_id), a.param, str(a.value), str(a.threshold)] for a in found])
        counts = Counter((alarm.event, alarm.param) for alarm in found)
        click.echo(f"{len(calls)} calls, {len(found)} alarms" + "".join(f"; {count} {e} {p}" for (e, p), count in sorted(counts.items())))

    told(work)


def _once(records: Iterator[_Record]) -> list[_Record]:
    """Return each call once, telling how many stand in several files: a copy beside the original must raise no alarm."""
    seen: set[str] = set()
    calls: list[_Record] = []
    again = 0
    for record in records:
        if record.id and record.id in seen:
            again += 1
            continue
        seen.add(record.id)
        calls.append(record)
    if again:
        click.echo(f"{again} records are of calls that were read already; left out", err=True)
    return calls


def _calls(files: tuple[Path, ...], *, refused: bool, problems: list[str]) -> Iterator[_Record]:
    """Give the records of files; a line that is none, such as one that a crash cut short, is told in `problems`."""
    from edgeproxy.cli.transfer import progress  # noqa: PLC0415 - other commands draw no bar

    with progress("reading records", sum(file.stat().st_size for file in files)) as step:
        for file in files:
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    step(len(line))
                    try:
                        record = msgspec.json.decode(line, type=_Record)
                    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                        problems.append(f"{file}:{number}: not a call record: {error}")
                        continue
                    if refused or not record.refused_by:
                        yield record
