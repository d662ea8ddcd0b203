"""Values of one node: counters and sets in memory, by the same contract as those of a store."""

import time
from collections.abc import Callable, Sequence

from edgeproxy.shared.store import StoreFailed

MOST = 100_000
"""Counters and members at once."""


class MemoryValues:
    """Counters and sets with expiry; what is over makes room for what is new."""

    def __init__(self, now: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._counts: dict[str, tuple[int, float]] = {}
        self._sets: dict[str, dict[str, float]] = {}

    def _make_room(self, wanted: int) -> None:
        held = len(self._counts) + sum(len(members) for members in self._sets.values())
        if held + wanted <= self._most:
            return
        now = self._now()
        self._counts = {key: value for key, value in self._counts.items() if value[1] > now}
        left = {group: {member: until for member, until in members.items() if until > now} for group, members in self._sets.items()}
        self._sets = {group: members for group, members in left.items() if members}
        if len(self._counts) + sum(len(members) for members in self._sets.values()) + wanted > self._most:
            raise StoreFailed(f"no room for more than {self._most} values")

    async def add(self, key: str, by: int, seconds: float) -> int:
        """As `Values.add`."""
        now = self._now()
        count, until = self._counts.get(key, (0, 0.0))
        if until <= now:
            self._make_room(1)
            count, until = 0, now + seconds
        self._counts[key] = (count + by, until)
        return count + by

    async def fetch(self, key: str) -> int:
        """As `Values.fetch`."""
        count, until = self._counts.get(key, (0, 0.0))
        return count if until > self._now() else 0

    async def put(self, group: str, members: Sequence[tuple[str, float]]) -> None:
        """As `Values.put`."""
        self._make_room(len(members))
        now = self._now()
        self._sets.setdefault(group, {}).update({member: now + seconds for member, seconds in members})

    async def discard(self, group: str, members: Sequence[str]) -> None:
        """As `Values.discard`."""
        held = self._sets.get(group, {})
        for member in members:
            held.pop(member, None)

    async def members(self, group: str) -> dict[str, float]:
        """As `Values.members`."""
        now = self._now()
        return {member: until - now for member, until in self._sets.get(group, {}).items() if until > now}
