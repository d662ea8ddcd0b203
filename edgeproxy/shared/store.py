"""What a store of shared values can do, whichever it is."""

from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from edgeproxy.errors import EdgeProxyError

P = ParamSpec("P")
T = TypeVar("T")
CONNECTIONS = 8
"""Questions that are under way at once; a connection that is new costs several ways there and back."""


class StoreFailed(EdgeProxyError):  # noqa: N818 - named for what callers do about it
    """The store did not answer, or not as it should."""


def told_by(*errors: type[Exception]) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Let what a client raises be told as `StoreFailed`."""

    def tells(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(method)
        async def answered(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await method(*args, **kwargs)
            except errors as error:
                raise StoreFailed(f"{type(error).__name__}: {error}") from error

        return answered

    return tells


class Beat(NamedTuple):
    """What a store says to a node that is alive."""

    known: bool
    """It knew the node: what that was granted stands."""
    unsettled_seconds: float
    """For how long it grants nothing new, since nodes that it does not know of may have places."""
    short: list[tuple[str, float]]
    """Keys that some node looks for places of, and for how many seconds."""


class Ask(NamedTuple):
    """What a node asks of a key."""

    key: str
    keep: int
    """Places that it has and keeps."""
    need: int
    """As many as it has use for."""
    used: int
    """As many as are in use."""
    extra: int
    """And more, where they are not short."""
    most: int
    """As many as all nodes may have."""


class Grant(NamedTuple):
    """What it gets."""

    quota: int
    """Places that are its own."""
    spare: int
    """Those that others have and do not use."""


class Values(Protocol):
    """Counters, and sets with expiry; every method raises `StoreFailed` where it does not answer as it should. Deadlines are the caller's."""

    async def add(self, key: str, by: int, seconds: float) -> int:
        """Add to a counter, which begins at 0 and lives so many seconds from its first addition on; return what it is."""
        ...

    async def fetch(self, key: str) -> int:
        """Return what a counter is, 0 for one that is not there."""
        ...

    async def put(self, group: str, members: Sequence[tuple[str, float]]) -> None:
        """Put members into a set, each for so many seconds; one that is there gets that time anew."""
        ...

    async def discard(self, group: str, members: Sequence[str]) -> None:
        """Take members out of a set."""
        ...

    async def members(self, group: str) -> dict[str, float]:
        """Return the members of a set with the seconds that each has left."""
        ...


class Store(Values, Protocol):
    """What several nodes share besides: places of limits, as leases."""

    async def open(self) -> None:
        """Connect as often as `CONNECTIONS` says, so that no question pays for that."""
        ...

    async def beat(self, node: str, lease_seconds: float) -> Beat:
        """Say that a node is alive: what it was granted holds for so many seconds."""
        ...

    async def balance(self, node: str, lease_seconds: float, asks: Sequence[Ask]) -> list[Grant]:
        """Return what a node gets of each key; all nodes together never get more than the key may have, but for what they keep."""
        ...

    async def leave(self, node: str) -> None:
        """Give back all that a node has."""
        ...

    async def add_all(self, counts: Sequence[tuple[str, int, float]]) -> list[int]:
        """As `Values.add` for many counters: key, what is added, and seconds of each."""
        ...

    async def publish(self, group: str, name: str, text: str, seconds: float) -> None:
        """Say something under a name, instead of what it said before; it is forgotten after so many seconds."""
        ...

    async def published(self, group: str) -> dict[str, str]:
        """Return what each name of a group says."""
        ...

    async def clear(self, keys: Sequence[str]) -> None:
        """Let counters begin anew."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
