"""The TOML file: its tables, what is wrong with it, and the document that crosses to the native side."""

from edgeproxy.config.document import to_document
from edgeproxy.config.loader import Loaded, load, load_text
from edgeproxy.config.root import Config

__all__ = ["Config", "Loaded", "load", "load_text", "to_document"]
