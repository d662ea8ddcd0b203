"""The command `edgeproxy`: arguments only."""

from edgeproxy.cli.main import main

__all__ = ["main"]
