"""`edgeproxy limits`: what keys have of limits, and may have."""

from pathlib import Path

import click
import msgspec

from edgeproxy.admin.client import ask
from edgeproxy.admin.limits import KeyView
from edgeproxy.cli.common import CONTROL, show, table, told

_KEY = click.argument("key", required=False, default="")


class _Answer(msgspec.Struct):
    keys: list[KeyView]
    set: dict[str, dict[str, int]]


@click.group()
def limits() -> None:
    """Show and change what callers may have of calls and requests."""


@limits.command("list")
@click.argument("name", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Keys at most, the fullest first.")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@CONTROL
def list_keys(name: str, limit: int, raw: bool, control: Path) -> None:
    """Show the keys of the limit NAME, or of all, with what they have at this moment."""

    def work() -> None:
        answer = ask(control, "GET", "/limits", query={"name": name, "limit": str(limit)})
        if raw:
            show(answer)
            return
        found = msgspec.json.decode(answer, type=_Answer)
        head = ["limit", "counts", "key", "used", "most", "in hand", "refused lately"]
        table(head, [_row(row) for row in found.keys])
        # What operators set holds for keys without calls, too.
        set_ = [
            [own, key or "(every other key)", str(most)] for own, keys in sorted(found.set.items()) for key, most in sorted(keys.items())
        ]
        if mine := [row for row in set_ if name in {"", row[0]}]:
            click.echo()
            table(["set by operators", "key", "most"], mine)

    told(work)


def _row(key: KeyView) -> list[str]:
    """Return one line; what is in hand counts only where nodes share."""
    in_hand = "" if key.share is None else str(key.share)
    return [key.limit, key.counts, key.key, str(key.used), str(key.most), in_hand, "yes" if key.at_limit else ""]


@limits.command("set")
@click.argument("name")
@click.argument("most", type=click.IntRange(0, (1 << 32) - 1))
@_KEY
@CONTROL
def set_limit(name: str, most: int, key: str, control: Path) -> None:
    """Let KEY of the limit NAME have MOST, or every key of it; it holds over reloads and restarts until `limits reset`."""
    told(lambda: show(ask(control, "PUT", "/limits", {"name": name, "key": key, "most": most})))


@limits.command()
@click.argument("name")
@_KEY
@CONTROL
def reset(name: str, key: str, control: Path) -> None:
    """Go back to what file and database say of KEY of the limit NAME, or of every key that has no number of its own."""
    told(lambda: show(ask(control, "PUT", "/limits", {"name": name, "key": key, "most": None})))


@limits.command()
@click.argument("name")
@_KEY
@CONTROL
def end(name: str, key: str, control: Path) -> None:
    """End the calls that KEY of the limit NAME has, or all that it counts: BYE to both sides, or CANCEL and 480."""
    told(lambda: show(ask(control, "POST", "/limits/end", {"name": name, "key": key})))
