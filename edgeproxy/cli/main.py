"""The command `edgeproxy`: which module has which command."""

import click

from edgeproxy import __version__
from edgeproxy.cli.lazy import LazyGroup

_COMMANDS = {
    "run": ("serve", "run"),
    "check": ("serve", "check"),
    "policy": ("serve", "policy"),
    "reload": ("manage", "reload"),
    "diff": ("manage", "diff"),
    "rollback": ("manage", "rollback"),
    "revisions": ("manage", "revisions"),
    "status": ("manage", "status"),
    "metrics": ("manage", "metrics"),
    "calls": ("manage", "calls"),
    "end-call": ("manage", "end_call"),
    "trace": ("manage", "trace"),
    "events": ("manage", "events"),
    "log-level": ("manage", "log_level"),
    "drain": ("manage", "drain"),
    "db": ("database", "database"),
    "routes": ("routes", "routes"),
    "peers": ("peers", "peers"),
    "fraud": ("fraud", "fraud"),
    "limits": ("limits", "limits"),
    "location": ("users", "location"),
    "ban": ("users", "ban"),
}


@click.group(cls=LazyGroup, later=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeproxy")
def main() -> None:
    """Run, check or manage a SIP edge proxy."""
