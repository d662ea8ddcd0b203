"""Values that several nodes share: shares of limits, counters, sets with expiry."""

from edgeproxy.shared.connect import connect
from edgeproxy.shared.store import CONNECTIONS, Ask, Beat, Grant, Store, StoreFailed

__all__ = ["CONNECTIONS", "Ask", "Beat", "Grant", "Store", "StoreFailed", "connect"]
