"""Management: an HTTP API on a UNIX socket, over TCP by choice, and metrics."""
