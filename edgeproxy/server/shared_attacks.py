"""Attacks on several nodes at once: failed authentications of all of them count together, and what one bans others do not listen to either."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address

from edgeproxy import _native
from edgeproxy.events import Event
from edgeproxy.server.shares import Shares
from edgeproxy.shared import Store, StoreFailed

ROUND_SECONDS = 0.5
LOOK_ROUNDS = 4
"""Every so many of them what others banned is looked for."""
MOST = 2_000
"""Pairs of source and user in one round; more count on this node alone."""
GROUP, LET_IN = "bans", "let in"
LET_IN_SECONDS = 86_400
"""How long a node may be silent and still hear that a source was let in again."""
SLACK_SECONDS = 10
"""By how much longer another node's ban must be to count for a source that is banned here already."""
OVER = "its time is over"
ELSEWHERE = "another node does not listen to it"
LET_IN_ELSEWHERE = "another node listens to it again"
Pair = tuple[str, str]


class SharedAttacks:
    """What one node tells of attacks, and hears of others'."""

    def __init__(self, engine: _native.Engine, window_seconds: int) -> None:
        self._engine = engine
        self.window_seconds = window_seconds
        self._ours: dict[str, float] = {}
        """Sources that this node banned, and until when, that others are to be told."""
        self._let_in: set[str] = set()
        """Those that were let in again before their time, that others are to be told."""
        self._heard: set[str] = set()
        """Those that others let in again, as this node knows."""
        self._rounds = 0
        self.uncounted = 0
        """Failures that only this node knows of."""

    def take(self, event: Event) -> bool:
        """Note a ban that came or went."""
        values: Mapping[str, int | str] = event.parameters()
        source, seconds = str(values["ip"]), int(values.get("seconds", 0))
        reason = values.get("reason")
        if reason in {ELSEWHERE, LET_IN_ELSEWHERE}:
            return True
        if seconds:
            self._ours[source] = time.monotonic() + seconds
            self._let_in.discard(source)
        elif reason != OVER:
            self._ours.pop(source, None)
            self._let_in.add(source)
        return True

    async def run(self, shares: Shares) -> None:
        """Tell and hear until cancelled."""
        while True:
            failures = self._engine.take_failures(20 * MOST)
            try:
                await shares.use(lambda store, failures=failures: self._count(store, failures))  # type: ignore[misc]
                await shares.use(self._tell_bans)
                if self._rounds % LOOK_ROUNDS == 0:
                    await shares.use(self._look)
            except (StoreFailed, TimeoutError):
                # The store's silence is told elsewhere; meanwhile each node counts alone.
                self.uncounted += len(failures)
            self._rounds += 1
            await asyncio.sleep(ROUND_SECONDS)

    async def _count(self, store: Store, failures: list[tuple[str, str, bool]]) -> None:
        pairs = Counter((source, user) for source, user, cleared in failures if not cleared)
        if cleared := [f"fail:pair:{source}|{user}" for source, user, cleared in failures if cleared]:
            await store.clear(cleared[:MOST])
        if not pairs:
            return
        counted: dict[Pair, int] = dict(pairs.most_common(MOST))
        self.uncounted += pairs.total() - sum(counted.values())
        users, sources = Counter[str](), Counter[str]()
        for (source, user), count in counted.items():
            users[user] += count
            sources[source] += count
        keys = {
            **{f"fail:pair:{source}|{user}": count for (source, user), count in counted.items()},
            **{f"fail:user:{user}": count for user, count in users.items()},
            **{f"fail:source:{source}": count for source, count in sources.items()},
        }
        totals = dict(zip(keys, await store.add_all([(key, count, self.window_seconds) for key, count in keys.items()]), strict=True))
        self._engine.raise_failures(
            [
                (
                    ip_address(source),
                    user,
                    totals[f"fail:pair:{source}|{user}"],
                    totals[f"fail:user:{user}"],
                    totals[f"fail:source:{source}"],
                )
                for source, user in counted
            ]
        )

    async def _tell_bans(self, store: Store) -> None:
        now = time.monotonic()
        if told := [(source, until - now) for source, until in self._ours.items() if until > now]:
            await store.put(GROUP, told[:MOST])
            for source, _ in told[:MOST]:
                self._ours.pop(source, None)
            await store.discard(LET_IN, [source for source, _ in told[:MOST]])
        if let_in := list(self._let_in)[:MOST]:
            await store.discard(GROUP, let_in)
            await store.put(LET_IN, [(source, LET_IN_SECONDS) for source in let_in])
            self._let_in.difference_update(let_in)
            self._heard.update(let_in)

    async def _look(self, store: Store) -> None:
        there, let_in = await store.members(GROUP), await store.members(LET_IN)
        # A ban of this node's own stands as it is, one that another made goes by that.
        bans = self._engine.bans()
        ours = {source: left if reason == ELSEWHERE else math.inf for source, _, left, reason, _ in bans}
        for source, _, seconds, reason, _ in bans:
            if reason != ELSEWHERE and seconds >= 1 and source not in there and source not in let_in and source not in self._let_in:
                # A store that was emptied knows of it no more.
                self._ours.setdefault(source, time.monotonic() + seconds)
        for source, left in there.items():
            if left >= 1 and source not in self._let_in and left > ours.get(source, -SLACK_SECONDS) + SLACK_SECONDS:
                self._engine.ban_with_others(ip_address(source), round(left), ELSEWHERE)
        for source in let_in.keys() - self._heard:
            self._engine.unban(ip_address(source), LET_IN_ELSEWHERE)
        self._heard = set(let_in)
