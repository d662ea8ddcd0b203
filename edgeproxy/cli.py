"""The command `edgeproxy`: arguments only."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from edgeproxy import __version__
from edgeproxy.admin import management
from edgeproxy.admin.client import ask, follow_events, show_trace
from edgeproxy.config import load
from edgeproxy.errors import EdgeProxyError
from edgeproxy.policy.compiled import compile_module
from edgeproxy.server import check_world, compiled_cache
from edgeproxy.server import run as serve

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_MAYBE_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
_CONTROL = click.option(
    "--control",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/edgeproxy/control.sock"),
    envvar="EDGEPROXY_CONTROL",
    show_default=True,
    show_envvar=True,
    help="Control socket of the running proxy, in its state directory.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeproxy")
def main() -> None:
    """Run, check or manage a SIP edge proxy."""


def _told(work: Callable[[], object]) -> None:
    """Run `work`; an error of ours is told in its own words, with exit code 1."""
    try:
        work()
    except EdgeProxyError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def _show(answer: bytes) -> None:
    click.echo(msgspec.json.format(answer, indent=2).decode())


@main.command()
@_FILE
def run(file: Path) -> None:
    """Serve as FILE says, in the foreground, until SIGTERM; prints `ready` when it serves."""
    _told(lambda: serve(load(file), management))


@main.command()
@_FILE
def check(file: Path) -> None:
    """Tell everything that is wrong with FILE; the verdict is that of starting with it."""
    _told(lambda: check_world(load(file)))
    click.echo(f"{file}: ok")


@main.group()
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

    _told(work)


@main.command()
@_MAYBE_FILE
@_CONTROL
def reload(file: Path | None, control: Path) -> None:
    """Apply FILE, or the file of the start as it is now: all of it, or none."""
    body = {"path": str(file.resolve())} if file else {}
    _told(lambda: _show(ask(control, "POST", "/reload", body)))


@main.command()
@_MAYBE_FILE
@_CONTROL
def diff(file: Path | None, control: Path) -> None:
    """Tell what applying FILE would change, what it would refuse, and what was set at run time."""
    body = {"path": str(file.resolve())} if file else {}
    _told(lambda: _show(ask(control, "POST", "/diff", body)))


@main.command()
@_CONTROL
def rollback(control: Path) -> None:
    """Apply the file that was applied before the last one."""
    _told(lambda: _show(ask(control, "POST", "/rollback", {})))


@main.command()
@_CONTROL
def status(control: Path) -> None:
    """Tell what the running proxy is and how it does."""
    _told(lambda: _show(ask(control, "GET", "/status")))


@main.command()
@_CONTROL
def metrics(control: Path) -> None:
    """Print every metric as Prometheus reads it."""
    _told(lambda: click.echo(ask(control, "GET", "/metrics").decode(), nl=False))


@main.command()
@click.argument("call_id", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Calls shown at most, the oldest first.")
@_CONTROL
def calls(call_id: str | None, limit: int, control: Path) -> None:
    """List live calls, or those with CALL_ID."""
    query = {"limit": str(limit)} | ({"call_id": call_id} if call_id else {})
    _told(lambda: _show(ask(control, "GET", "/calls", query=query)))


@main.command("end-call")
@click.argument("call_id")
@_CONTROL
def end_call(call_id: str, control: Path) -> None:
    """End the live call CALL_ID: BYE to both sides, or CANCEL and 480 where it rings."""
    _told(lambda: _show(ask(control, "POST", "/calls/end", {"call_id": call_id})))


@main.command()
@click.argument("call_id", required=False)
@click.option("--user", default="", help="Calls that name USER in From, To or Request-URI.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until interrupted; without CALL_ID and --user only with that.")
@click.option("--messages", is_flag=True, help="Show whole messages, without credentials and media keys.")
@click.option("--mask", is_flag=True, help="Leave out users and display names.")
@_CONTROL
def trace(  # noqa: PLR0913, PLR0917 - one parameter for each option
    call_id: str | None, user: str, follow: bool, messages: bool, mask: bool, control: Path
) -> None:
    """Draw the ladder of a recent call: messages with their times, retransmissions, and what was decided."""
    query = {"messages": str(messages).lower(), "mask": str(mask).lower()}
    query |= ({"call_id": call_id} if call_id else {}) | ({"user": user} if user else {})
    _told(lambda: show_trace(control, query, follow=follow))


@main.group()
def events() -> None:
    """List, follow or try out events."""


@events.command("list")
@_CONTROL
def list_events(control: Path) -> None:
    """List every event with its parameters and who listens to it."""
    _told(lambda: _show(ask(control, "GET", "/events")))


@events.command()
@click.argument("names", nargs=-1)
@_CONTROL
def follow(names: tuple[str, ...], control: Path) -> None:
    """Print events as they come, one JSON object a line; those called NAMES, or all of the proxy."""
    _told(lambda: follow_events(control, ",".join(names)))


@events.command("raise")
@click.argument("name")
@click.argument("parameters", nargs=-1)
@_CONTROL
def raise_event(name: str, parameters: tuple[str, ...], control: Path) -> None:
    """Tell the event NAME with PARAMETERS (key=value) to whoever listens, to try a handler out."""

    def work() -> None:
        pairs = [parameter.partition("=") for parameter in parameters]
        values = {key: int(value) if value.lstrip("-").isdigit() else value for key, _, value in pairs}
        _show(ask(control, "POST", "/events", {"event": name, "parameters": values}))

    _told(work)


@main.command("log-level")
@click.argument("level", type=click.Choice(["error", "warning", "info", "debug", "file"]))
@_CONTROL
def log_level(level: str, control: Path) -> None:
    """Set the log level until it is set again; `file` goes back to that of the file."""
    _told(lambda: _show(ask(control, "PUT", "/log-level", {"level": None if level == "file" else level})))


@main.command()
@_CONTROL
def drain(control: Path) -> None:
    """Refuse new requests and end once nothing is under way, as SIGTERM does."""
    _told(lambda: _show(ask(control, "POST", "/drain", {})))
