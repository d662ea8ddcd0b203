"""The store that a URL names."""

import importlib

from edgeproxy.errors import StorageError
from edgeproxy.shared.store import Store


def connect(url: str, prefix: str, deadline_seconds: float) -> Store:
    """Return the store of a URL, which connects when it is first asked; raise `StorageError` where its library is missing, or the URL is not for it."""
    mongo = url.startswith("mongodb")
    name, library, extra, kind = ("mongo", "pymongo", "mongo", "MongoStore") if mongo else ("redis", "redis", "redis", "RedisStore")
    try:
        module = importlib.import_module(f"edgeproxy.shared.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        raise StorageError(f"[shared] needs the package {library}: pip install edgeproxy[{extra}]") from error
    try:
        store: Store = getattr(module, kind)(url, prefix, deadline_seconds)
    except Exception as error:
        # Either library raises errors of its own here, and their texts may have the password in them.
        raise StorageError(f"[shared] url cannot be used: {type(error).__name__}") from None
    return store
