"""Management: an HTTP API on a UNIX socket, over TCP by choice, and metrics."""

from edgeproxy.admin.api import management

__all__ = ["management"]
