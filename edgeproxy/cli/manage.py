"""Commands to a running proxy."""

from pathlib import Path

import click

from edgeproxy.admin.client import ask, follow_events, show_trace
from edgeproxy.cli.common import CONTROL, show, told
from edgeproxy.errors import EdgeProxyError
from edgeproxy.events import typed

_MAYBE_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)


@click.command()
@_MAYBE_FILE
@CONTROL
def reload(file: Path | None, control: Path) -> None:
    """Apply FILE, or the file of the start as it is now: all of it, or none."""
    body = {"path": str(file.resolve())} if file else {}
    told(lambda: show(ask(control, "POST", "/reload", body)))


@click.command()
@_MAYBE_FILE
@CONTROL
def diff(file: Path | None, control: Path) -> None:
    """Tell what applying FILE would change, what it would refuse, and what was set at run time."""
    body = {"path": str(file.resolve())} if file else {}
    told(lambda: show(ask(control, "POST", "/diff", body)))


@click.command()
@click.argument("revision", type=click.IntRange(1), required=False)
@CONTROL
def rollback(revision: int | None, control: Path) -> None:
    """Apply the file that served before this one, or that of REVISION; `edgeproxy revisions` lists them."""
    told(lambda: show(ask(control, "POST", "/rollback", {"revision": revision} if revision else {})))


@click.command()
@CONTROL
def revisions(control: Path) -> None:
    """List the files that were applied and are kept, the oldest first."""
    told(lambda: show(ask(control, "GET", "/revisions")))


@click.command()
@CONTROL
def status(control: Path) -> None:
    """Tell what the running proxy is and how it does."""
    told(lambda: show(ask(control, "GET", "/status")))


@click.command()
@CONTROL
def metrics(control: Path) -> None:
    """Print every metric as Prometheus reads it."""
    told(lambda: click.echo(ask(control, "GET", "/metrics").decode(), nl=False))


@click.command()
@click.argument("call_id", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Calls shown at most, the oldest first.")
@CONTROL
def calls(call_id: str | None, limit: int, control: Path) -> None:
    """List live calls, or those with CALL_ID."""
    query = {"limit": str(limit)} | ({"call_id": call_id} if call_id else {})
    told(lambda: show(ask(control, "GET", "/calls", query=query)))


@click.command("end-call")
@click.argument("call_id")
@CONTROL
def end_call(call_id: str, control: Path) -> None:
    """End the live call CALL_ID: BYE to both sides, or CANCEL and 480 where it rings."""
    told(lambda: show(ask(control, "POST", "/calls/end", {"call_id": call_id})))


@click.command()
@click.argument("call_id", required=False)
@click.option("--user", default="", help="Calls that name USER in From, To or Request-URI.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until interrupted; without CALL_ID and --user only with that.")
@click.option("--messages", is_flag=True, help="Show whole messages, without credentials and media keys.")
@click.option("--mask", is_flag=True, help="Leave out users and display names.")
@CONTROL
def trace(  # noqa: PLR0913, PLR0917 - one parameter for each option
    call_id: str | None, user: str, follow: bool, messages: bool, mask: bool, control: Path
) -> None:
    """Draw the ladder of a recent call: messages with their times, retransmissions, and what was decided."""
    query = {"messages": str(messages).lower(), "mask": str(mask).lower()}
    query |= ({"call_id": call_id} if call_id else {}) | ({"user": user} if user else {})
    told(lambda: show_trace(control, query, follow=follow))


@click.command("log-level")
@click.argument("level", type=click.Choice(["error", "warning", "info", "debug", "file"]))
@CONTROL
def log_level(level: str, control: Path) -> None:
    """Set the log level until it is set again; `file` goes back to that of the file."""
    told(lambda: show(ask(control, "PUT", "/log-level", {"level": None if level == "file" else level})))


@click.command()
@CONTROL
def drain(control: Path) -> None:
    """Refuse new requests and end once nothing is under way, as SIGTERM does."""
    told(lambda: show(ask(control, "POST", "/drain", {})))


@click.group()
def events() -> None:
    """List, follow or try out events."""


@events.command("list")
@CONTROL
def list_events(control: Path) -> None:
    """List every event with its parameters and who listens to it."""
    told(lambda: show(ask(control, "GET", "/events")))


@events.command()
@click.argument("names", nargs=-1)
@CONTROL
def follow(names: tuple[str, ...], control: Path) -> None:
    """Print events as they come, one JSON object a line; those called NAMES, or all of the proxy."""
    told(lambda: follow_events(control, ",".join(names)))


@events.command("sinks")
@CONTROL
def list_sinks(control: Path) -> None:
    """List who is told of events outside, and what came of it."""
    told(lambda: show(ask(control, "GET", "/events/sinks")))


@events.command()
@click.argument("name")
@click.argument("to")
@click.argument("names", nargs=-1, required=True)
@click.option("--expires", type=click.IntRange(1, 31_536_000), default=3_600, show_default=True, help="For so many seconds.")
@CONTROL
def subscribe(name: str, to: str, names: tuple[str, ...], expires: int, control: Path) -> None:
    """Tell TO (a URL as in `events.sink.NAME.to`) of the events NAMES for a while, as the sink NAME; a restart ends that."""
    body = {"name": name, "sink": {"to": to, "events": list(names)}, "expires_seconds": expires}
    told(lambda: show(ask(control, "POST", "/events/sinks", body)))


@events.command()
@click.argument("name")
@CONTROL
def unsubscribe(name: str, control: Path) -> None:
    """Tell the sink NAME no more, which `subscribe` added."""
    told(lambda: show(ask(control, "POST", "/events/sinks/remove", {"name": name})))


@events.command("raise")
@click.argument("name")
@click.argument("parameters", nargs=-1)
@CONTROL
def raise_event(name: str, parameters: tuple[str, ...], control: Path) -> None:
    """Tell the event NAME with PARAMETERS (key=value) to whoever listens, to try a handler out."""

    def work() -> None:
        pairs = [parameter.partition("=") for parameter in parameters]
        if wrong := [parameter for parameter, (key, equals, _) in zip(parameters, pairs, strict=True) if not key or not equals]:
            raise EdgeProxyError(f"expected KEY=VALUE, got: {wrong[0]}")
        values = typed(name, {key: value for key, _, value in pairs})
        show(ask(control, "POST", "/events", {"event": name, "parameters": values}))

    told(work)
