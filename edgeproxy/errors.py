"""Every exception that edgeproxy raises on purpose."""

import asyncio


class EdgeProxyError(Exception):
    """Base of all errors of edgeproxy; its text is meant for the operator."""


class ConfigError(EdgeProxyError):
    """The configuration file is wrong; the text has one line for each fault."""


class BindError(EdgeProxyError):
    """A listener's address cannot be had."""


class EngineError(EdgeProxyError):
    """The native engine cannot start for a reason outside the configuration."""


class PolicyError(EdgeProxyError):
    """A policy module cannot be loaded, or its handlers or options have the wrong shape."""


class StorageError(EdgeProxyError):
    """The database cannot be read, or does not have what is needed."""


class RowRefused(StorageError):  # noqa: N818 - the database is well, a row is not
    """The database is there and takes others, but not what this row says."""


class CallEnded(EdgeProxyError, asyncio.CancelledError):  # noqa: N818 - an end is no error
    """Raised in a handler whose request is over: the caller gave up, or the time for it has run out.

    A cancellation for whatever the handler waits in (locks, task groups, connections), which clean up after nothing else.
    """

    def __init__(self, status_code: int) -> None:
        super().__init__(f"the request is over with status {status_code}" if status_code else "the time for a decision is over")
        self.status_code = status_code


class LookupFailed(EdgeProxyError):  # noqa: N818 - named for what a policy does about it
    """A service outside gave no usable answer in time."""
