"""Wires it all: starts the engine, prints its log, changes its configuration, and ends it in order."""

from edgeproxy.server.check import check_world
from edgeproxy.server.control import Control
from edgeproxy.server.policies import compiled_cache
from edgeproxy.server.process import run

__all__ = ["Control", "check_world", "compiled_cache", "run"]
