"""A carrier-grade SIP edge proxy: a native engine, tuned by one TOML file."""

from importlib.metadata import version

__version__ = version("edgeproxy")
