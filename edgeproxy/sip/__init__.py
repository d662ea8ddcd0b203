"""SIP values as Python sees them; the native side makes them, and reads them only where they are asked for."""

from edgeproxy._native import Question, Request, TraceEntry, Uri, long_name

__all__ = ["Question", "Request", "TraceEntry", "Uri", "long_name"]
