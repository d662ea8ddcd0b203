"""Fraud on several nodes at once: each tells what it counts, and adds what others said last to its own."""

import asyncio
import math
import time
import uuid
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeproxy import _native
from edgeproxy.server.shares import Shares
from edgeproxy.shared import Store, StoreFailed

ROUND_SECONDS = 1.0
KEPT_SECONDS = 5.0
"""How long what a node counted is added without another word from it."""
MOST = 2_000
"""Users and prefixes that a node tells of, those who call now first, and bars, those that last longest."""
GROUP, BARRED, UNBARRED = "fraud", "barred", "unbarred"
UNBARRED_SECONDS = 86_400
"""How long a node may be silent and still hear that an account may call again."""
UNBARRED_AT_ONCE = 10
WRITTEN_SECONDS = 10.0
"""After this time bars are written down again: the store may have been emptied."""
LIFTED_SECONDS = KEPT_SECONDS + 2 * ROUND_SECONDS
"""How long the word of a node that barred an account may still stand after another lifted that."""
SLACK_SECONDS = 2
"""Bars are told in whole seconds: by how much later one must end to be another than one that was lifted."""
_PARTED = "\x1f"
_Count = Annotated[int, Meta(ge=0, lt=1 << 32)]
_Row = tuple[
    str, _Count, Annotated[int, Meta(ge=0, lt=1 << 32)], _Count, _Count, _Count, _Count, int, Annotated[int, Meta(ge=0, lt=1 << 16)]
]


class _Said(msgspec.Struct):
    """What one node says."""

    process: str
    rows: list[_Row]
    barred: list[tuple[str, _Count, int]]
    """Accounts, for how many more seconds, and when that ends by this node's clock: by that one bar is known from the next."""


class SharedFraud:
    """What one node tells of fraud figures, and hears of others'."""

    def __init__(self, engine: _native.Engine, node: str, log: Callable[..., None], kept_at: float) -> None:
        """`kept_at` is when the bars were kept that this node took over at its start, seconds since 1970; 0 where it took over none."""
        self._engine = engine
        self._node = node
        self._process = uuid.uuid4().hex
        self._has_said = False
        """Before, what stands under our name is of the process that was here before."""
        self._log = log
        self._kept_at = kept_at
        self._heard_at = time.monotonic()
        self._rows: list[_Row] = []
        self._bars: dict[str, dict[str, float]] = {}
        """Of each other node, until when it barred whom: that holds though the node may be gone for a while. And of this one what a process
        before it wrote down and did not keep."""
        self._unbar: set[str] = set()
        """Accounts that may call again, which others are to be told."""
        self._said: dict[str, dict[str, int]] = {}
        """When those bars end, as each node said last."""
        self._lifted: dict[str, tuple[float, dict[str, float]]] = {}
        """Those whose bar was lifted a moment ago: until when the word of who barred them does not count, and when those bars were to end. One
        that ends later is another."""
        self._words: set[str] | None = None
        """What was said of lifted bars, as this node knows; None before it looked."""
        self._written: set[str] = set()
        """Accounts barred by this node that stand in the store, for whoever starts while it is gone."""
        self._written_at = 0.0
        self._faults: set[str] = set()
        """What is wrong, as it was told once."""
        self.failures = 0
        """Rounds in which the store did not answer."""

    @property
    def barred(self) -> dict[str, tuple[int, str]]:
        """Accounts that others barred: for how many more seconds, and by which node."""
        now = time.monotonic()
        return {user: (round(until - now), node) for node, bars in self._bars.items() for user, until in bars.items() if until - now >= 1}

    def unbar(self, user: str) -> bool:
        """Let an account call again by every node; false where none of the others barred it."""
        found = user in self.barred
        self._unbar.add(user)
        self._lift(user)
        self._use()
        return found

    async def run(self, shares: Shares) -> None:
        """Tell and hear until cancelled."""
        try:
            while True:
                try:
                    await self._round(shares)
                    self._mended("store")
                except (StoreFailed, TimeoutError) as error:
                    self.failures += 1
                    self._fault("store", "fraud figures of other nodes are not heard", str(error) or "no answer in time")
                    if time.monotonic() - self._heard_at > KEPT_SECONDS:
                        self._rows = []
                        self._use()
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            self._engine.hear_fraud([], [])

    def _use(self) -> None:
        self._engine.hear_fraud(self._rows, list(self.barred))

    def _lift(self, user: str) -> None:
        for bars in self._bars.values():
            bars.pop(user, None)
        # One of a node that said of none before is another.
        ends = {node: said.get(user, -math.inf) for node, said in self._said.items()}
        self._lifted[user] = (time.monotonic() + LIFTED_SECONDS, ends)
        # Whoever lifts it takes it out of the store too: barred anew it is to be written again.
        self._written.discard(user)

    def _is_lifted(self, node: str, user: str, end: int) -> bool:
        """Whether the word of a node that barred an account is of before that was lifted."""
        return user in self._lifted and end < self._lifted[user][1].get(node, math.inf) + SLACK_SECONDS

    def _fault(self, what: str, text: str, problem: str) -> None:
        """Log what is wrong, once until it is mended."""
        if what not in self._faults:
            self._faults.add(what)
            self._log(text, level="error", values={"node": what, "problem": problem})

    def _mended(self, what: str) -> None:
        self._faults.discard(what)

    async def _round(self, shares: Shares) -> None:
        if self._words is None:
            await shares.use(self._hear_written)
        await shares.use(self._hear_unbarred)
        for user in list(self._unbar)[:UNBARRED_AT_ONCE]:
            await shares.use(lambda store, user=user: self._tell_unbarred(store, user))  # type: ignore[misc]
        # First: between what we said a round ago and now, another node of our name has said something too.
        self._hear(await shares.use(lambda store: store.published(GROUP)))
        rows = await asyncio.to_thread(self._engine.fraud_told, MOST)
        barred = sorted(self._own_bars().items(), key=lambda bar: -bar[1])[:MOST]
        await shares.use(lambda store: self._write(store, barred))
        clock = round(time.time())
        text = msgspec.json.encode(_Said(self._process, rows, [(user, left, clock + left) for user, left in barred])).decode()
        await shares.use(lambda store: store.publish(GROUP, self._node, text, KEPT_SECONDS))
        self._has_said = True

    def _hear(self, heard: dict[str, str]) -> None:
        now = time.monotonic()
        self._rows = []
        for node, text in heard.items():
            said = self._read(node, text)
            if said is None:
                continue
            if node == self._node:
                if self._has_said and said.process != self._process:
                    self._fault(node, "another node that shares figures has the same name", "expected install.node to differ")
                continue
            self._rows += said.rows
            self._bars[node] = {user: now + left for user, left, end in said.barred if not self._is_lifted(node, user, end)}
            self._said[node] = {user: end for user, _, end in said.barred}
        self._lifted = {user: lifted for user, lifted in self._lifted.items() if lifted[0] > now}
        self._bars = {
            node: left for node, bars in self._bars.items() if (left := {user: until for user, until in bars.items() if until > now})
        }
        self._heard_at = now
        self._use()

    def _read(self, node: str, text: str) -> _Said | None:
        try:
            found = msgspec.json.decode(text, type=_Said)
        except msgspec.MsgspecError as error:
            self._fault(node, "fraud figures of another node cannot be read", str(error))
            return None
        if not all(0 <= row[7] < 1 << 64 for row in found.rows):
            self._fault(node, "fraud figures of another node cannot be read", "expected hashes of 64 bits")
            return None
        if found.process == self._process or node != self._node:
            self._mended(node)
        return found

    async def _hear_written(self, store: Store) -> None:
        """Hear of bars whose nodes may be gone."""
        now, kept = time.monotonic(), {user for user, _ in self._engine.barred()}
        for bar, left in (await store.members(BARRED)).items():
            user, _, node = bar.partition(_PARTED)
            if node != self._node or user not in kept:
                self._bars.setdefault(node, {})[user] = now + left

    def _own_bars(self) -> dict[str, int]:
        """Accounts that this node barred, or did before it was killed, and for how many more seconds."""
        now = time.monotonic()
        before = {user: round(until - now) for user, until in self._bars.get(self._node, {}).items() if until - now >= 1}
        return before | dict(self._engine.barred())

    async def _write(self, store: Store, barred: list[tuple[str, int]]) -> None:
        """Write down whom this node barred: what it says in each round is forgotten soon after it has gone. And now and then what others
        wrote: an emptied store knows of it no more, and they may be gone."""
        now, users = time.monotonic(), {user for user, _ in barred}
        again = now - self._written_at > WRITTEN_SECONDS
        fresh = [(self._bar(user), float(left)) for user, left in barred if again or user not in self._written]
        if again:
            there = await store.members(BARRED)
            others = [(f"{user}{_PARTED}{node}", until - now) for node, bars in self._bars.items() for user, until in bars.items()]
            fresh += [(bar, left) for bar, left in others if left >= 1 and bar not in there]
        if gone := self._written - users:
            await store.discard(BARRED, [self._bar(user) for user in gone])
        if fresh:
            await store.put(BARRED, fresh)
            # Whoever lifted one of them meanwhile may have looked before it was there.
            news = {word.partition(_PARTED)[0] for word in set(await store.members(UNBARRED)) - (self._words or set())}
            if late := [bar for bar, _ in fresh if bar.partition(_PARTED)[0] in news]:
                await store.discard(BARRED, late)
        self._written, self._written_at = users, now if again else self._written_at

    def _bar(self, user: str) -> str:
        return f"{user}{_PARTED}{self._node}"

    async def _hear_unbarred(self, store: Store) -> None:
        words = set(await store.members(UNBARRED))
        # Of what was said while this node was away, that counts which is younger than the bars that it kept.
        first = {word for word in words if self._kept_at and _said_at(word) > self._kept_at}
        news = first if self._words is None else words - self._words
        for word in news:
            user = word.partition(_PARTED)[0]
            self._engine.unbar(user)
            self._lift(user)
        self._words = words

    async def _tell_unbarred(self, store: Store, user: str) -> None:
        word = f"{user}{_PARTED}{time.time():.3f}{_PARTED}{uuid.uuid4().hex}"
        await store.put(UNBARRED, [(word, UNBARRED_SECONDS)])
        if of_others := [bar for bar in await store.members(BARRED) if bar.startswith(user + _PARTED)]:
            await store.discard(BARRED, of_others)
        self._unbar.discard(user)
        if self._words is not None:
            self._words.add(word)


def _said_at(word: str) -> float:
    """Return when a word was said that an account may call again, seconds since 1970; 0 for what is none."""
    try:
        return float(word.split(_PARTED)[1])
    except (IndexError, ValueError):
        return 0.0
