"""Wires it all: starts the engine, prints its log, and ends it in order."""

from edgeproxy.server.check import check_world
from edgeproxy.server.process import run

__all__ = ["check_world", "run"]
