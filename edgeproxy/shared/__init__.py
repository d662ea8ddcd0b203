"""Values that several nodes share: shares of limits, counters, sets with expiry."""

from edgeproxy.shared.connect import connect
from edgeproxy.shared.store import CONNECTIONS, Ask, Beat, Grant, Store, StoreFailed, Values

__all__ = ["CONNECTIONS", "Ask", "Beat", "Grant", "Store", "StoreFailed", "Values", "connect"]
