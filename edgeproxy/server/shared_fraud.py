"""Fraud on several nodes at once: each tells what it counts, and adds what others said last to its own."""

import asyncio
import time
from collections.abc import Callable

import msgspec

from edgeproxy import _native
from edgeproxy.server.shares import Shares
from edgeproxy.shared import Store, StoreFailed

ROUND_SECONDS = 1.0
KEPT_SECONDS = 5.0
"""How long what a node said counts without another word from it."""
MOST = 2_000
"""Users and prefixes that a node tells of, those who call now first."""
GROUP, UNBARRED = "fraud", "unbarred"
UNBARRED_SECONDS = 60
"""How long a node may be silent and still hear that an account may call again."""
Row = tuple[str, int, int, int, int, int, int, int]


class _Said(msgspec.Struct):
    """What one node says."""

    rows: list[Row]
    barred: list[tuple[str, int]]


class SharedFraud:
    """What one node tells of fraud figures, and hears of others'."""

    def __init__(self, engine: _native.Engine, node: str, log: Callable[..., None]) -> None:
        self._engine = engine
        self._node = node
        self._log = log
        self._heard_at = time.monotonic()
        self._unbar: set[str] = set()
        """Accounts that may call again, which others are to be told."""
        self._unbarred: set[str] = set()
        """Those of others, as this node knows."""
        self._unreadable: set[str] = set()
        self.barred: dict[str, tuple[int, str]] = {}
        """Accounts that others barred: for how many more seconds, and by which node."""

    def unbar(self, user: str) -> bool:
        """Let an account call again by every node; false where none of the others barred it."""
        self._unbar.add(user)
        return self.barred.pop(user, None) is not None

    async def run(self, shares: Shares) -> None:
        """Tell and hear until cancelled."""
        try:
            while True:
                try:
                    await self._round(shares)
                except (StoreFailed, TimeoutError):
                    # The store's silence is told elsewhere; after a while each node counts alone.
                    if time.monotonic() - self._heard_at > KEPT_SECONDS:
                        self._forget()
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            self._forget()

    def _forget(self) -> None:
        self.barred = {}
        self._engine.hear_fraud([], [])

    async def _round(self, shares: Shares) -> None:
        await shares.use(self._tell_unbarred)
        said = _Said(self._engine.fraud_told(MOST), self._engine.barred()[:MOST])
        text = msgspec.json.encode(said).decode()
        await shares.use(lambda store: store.publish(GROUP, self._node, text, KEPT_SECONDS))
        heard = await shares.use(lambda store: store.published(GROUP))
        others = {node: found for node, text in heard.items() if node != self._node and (found := self._read(node, text))}
        self.barred = {user: (left, node) for node, said in others.items() for user, left in said.barred if user not in self._unbar}
        self._engine.hear_fraud([row for said in others.values() for row in said.rows], list(self.barred))
        self._heard_at = time.monotonic()

    def _read(self, node: str, text: str) -> _Said | None:
        try:
            found = msgspec.json.decode(text, type=_Said)
        except msgspec.MsgspecError as error:
            if node not in self._unreadable:
                self._unreadable.add(node)
                self._log("fraud figures of another node cannot be read", level="error", values={"node": node, "problem": str(error)})
            return None
        self._unreadable.discard(node)
        return found

    async def _tell_unbarred(self, store: Store) -> None:
        if told := list(self._unbar):
            await store.put(UNBARRED, [(user, UNBARRED_SECONDS) for user in told])
            self._unbar.difference_update(told)
            self._unbarred.update(told)
        there = await store.members(UNBARRED)
        for user in there.keys() - self._unbarred:
            self._engine.unbar(user)
        self._unbarred = set(there)
