"""Limits that several nodes share: asks the store for places before they are short, gives back what nobody here uses, and says what holds while the store is silent."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import Any, TypeVar

from edgeproxy import _native
from edgeproxy.config.shared import Shared
from edgeproxy.shared import CONNECTIONS, Ask, Store, StoreFailed, connect

T = TypeVar("T")
Log = Callable[..., None]
State = Callable[[int, str], None]
Key = tuple[str, str]
Asked = tuple[str, str, int, int, int, int, int]
MOST = 500
URGENT = CONNECTIONS - 3
"""Questions of waiting requests under way at once; those that come meanwhile go together with the next. The rest is for what is not urgent."""
OPEN_DEADLINES = 10
"""How many times longer than an answer a connection may take."""
"""Keys of one question."""
CANCEL_SECONDS = 0.2
BEAT_SECONDS = 0.1
"""How often a node says that it is alive, and hears which keys others look for places of."""
WALK_BEATS = 10
"""Every so many of them it looks for what it has too much of..."""
TELL_BEATS = 36_000
"""...and tells everything it has anew, so that the store may forget what nobody does so for in a day."""
FOR_EVER = (1 << 63) - 1
FENCE = 0.95
"""Part of a lease after which a node trusts it no more: clocks do not run alike."""


class Shares:
    """What one node does about one store."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a node has to do with a store
        self, engine: _native.Engine, terms: Shared, store: Store, node: str, log: Log, state: State
    ) -> None:
        self._engine = engine
        # What another store granted, or by another lease, is nothing here.
        engine.lapse_shares()
        self._terms = terms
        self._name = node
        self._log = log
        self._state = state
        self._store = store
        # Connections of its own: what policies ask must not keep limits waiting.
        self._values: Store | None = None
        self.node = self._named()
        """Another one after each start, and whenever what was granted is void: what that name has in the store is ours no more."""
        self._held: set[Key] = set()
        self._hungry: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._urgent: set[asyncio.Task[None]] = set()
        self._quiet = False
        """Nothing is asked: everything is being told, or this is the end."""
        self._turns = asyncio.Semaphore(2)
        self._doubtful = True
        self._up: bool | None = None
        self._told = False
        """The store has heard of this name."""
        self._unsettled = 0.0
        self.asked = self.failures = 0
        self._descriptor = engine.share_descriptor()
        self._listens = False
        self._listen()
        self._task = asyncio.create_task(self._run())

    @property
    def terms(self) -> Shared:
        """The terms that it goes by."""
        return self._terms

    def status(self) -> dict[str, Any]:
        """Return how it does."""
        return {
            "store": self._terms.shown,
            "up": bool(self._up),
            "node": self.node,
            "keys": len(self._held),
            "grants_in_seconds": round(self._unsettled, 1),
            "failures": self.failures,
        }

    def counters(self) -> dict[str, int]:
        """Return what it counted."""
        return {
            "shared_up": int(bool(self._up)),
            "shared_keys": len(self._held),
            "shared_asked": self.asked,
            "shared_failures": self.failures,
        }

    async def stop(self) -> None:
        """Give everything back."""
        while not self._task.done():
            # Again and again: a driver may make a failure of the store of it, after which the work would go on for ever.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_SECONDS)
        await self._hush()
        with contextlib.suppress(StoreFailed, TimeoutError):
            async with asyncio.timeout(self._deadline):
                await self._store.leave(self.node)
        with contextlib.suppress(StoreFailed, TimeoutError, OSError):
            async with asyncio.timeout(self._deadline):
                await self._store.close()
                if self._values:
                    await self._values.close()

    async def use(self, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """Do something with values of the store; raise `StoreFailed` or `TimeoutError` where it does not answer."""
        if self._up is False:
            raise StoreFailed("the store is silent")
        if self._values is None:
            self._values = connected(self._terms)
        async with asyncio.timeout(self._deadline):
            return await work(self._values)

    def _named(self) -> str:
        return f"{self._name}-{uuid.uuid4().hex[:12]}"

    @property
    def _deadline(self) -> float:
        return self._terms.deadline_milliseconds / 1_000

    async def _run(self) -> None:
        beats = 0
        while True:
            try:
                await self._beat(beats)
            except (StoreFailed, TimeoutError) as error:
                self._failed(error)
                await asyncio.sleep(self._terms.retry_seconds)
            except Exception as error:
                self._failed(error)
                await asyncio.sleep(max(self._terms.retry_seconds, 1.0))
            else:
                # Whoever waits for what others give back should not wait longer than it must.
                await asyncio.sleep(BEAT_SECONDS / 2 if self._hungry else BEAT_SECONDS)
            beats += 1

    async def _beat(self, beats: int) -> None:
        engine = self._engine
        if self._up is not True:
            async with asyncio.timeout(self._deadline * OPEN_DEADLINES):
                await self._store.open()
        sent, held = engine.moment(), engine.shares_hold()
        async with asyncio.timeout(self._deadline):
            beat = await self._store.beat(self.node, self._terms.lease_seconds)
        if self._told and (not held or (not beat.known and not beat.unsettled_seconds)):
            # Others may have what that name had; what it still has in the store must not come back to life with it.
            engine.lapse_shares()
            await self._store.leave(self.node)
            self.node = self._named()
            sent = engine.moment()
            async with asyncio.timeout(self._deadline):
                beat = await self._store.beat(self.node, self._terms.lease_seconds)
        self._unsettled = beat.unsettled_seconds
        if not beat.known or not held or self._doubtful or beats % TELL_BEATS == TELL_BEATS - 1:
            await self._tell_all()
        self._told = True
        settled = engine.moment() + round(beat.unsettled_seconds * 1_000_000) if beat.unsettled_seconds else 0
        engine.prolong_shares(sent + round(self._terms.lease_seconds * FENCE * 1_000_000), settled)
        if self._up is not True:
            self._up = True
            self._log("store of shared limits answers", values={"store": self._terms.shown, "grants_in_seconds": round(self._unsettled, 1)})
            self._state(1, "the store answers")
        named = [(*name.partition(":"), age) for name, age in beat.short]
        self._ask(engine.share_report([(limit, key, round(age * 1_000_000)) for limit, _, key, age in named]))
        hungry, self._hungry = list(self._hungry), set()
        self._ask(engine.share_ask(hungry))
        if beats % WALK_BEATS == 0:
            self._ask(engine.share_walk())

    async def _tell_all(self) -> None:
        """Tell a store that knows nothing of us, or of which we do not know what it did last, all that we have."""
        # What is under way would be told twice.
        await self._hush()
        try:
            asked = iter(self._engine.share_all())
            while batch := list(islice(asked, MOST)):
                await self._balance(batch)
            self._doubtful = False
        finally:
            self._quiet = False
            self._listen()

    async def _hush(self) -> None:
        """End every question under way, and let none begin."""
        self._quiet = True
        self._listen()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._doubtful = True
        # Until it has answered again.
        self._engine.hush_shares(FOR_EVER)
        if self._up is not False:
            self._up = False
            problem = str(error) or f"no answer within {self._deadline} s"
            self._log("store of shared limits is silent", level="error", values={"store": self._terms.shown, "problem": problem})
            self._state(-1, "the store is silent")

    def _listen(self) -> None:
        """Hear of requests that wait as long as there is somebody to ask for them: otherwise the descriptor would wake us for nothing."""
        wanted = not self._quiet and len(self._urgent) < URGENT
        if wanted and not self._listens:
            asyncio.get_running_loop().add_reader(self._descriptor, self._rung)
        elif self._listens and not wanted:
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._listens = wanted

    def _rung(self) -> None:
        """Ask for whoever waits, as far as there are connections; those that come meanwhile go together with the next."""
        while not self._quiet and len(self._urgent) < URGENT and (asked := self._engine.share_questions(MOST)):
            task = self._start(self._answer(asked))
            self._urgent.add(task)
            task.add_done_callback(self._urgent_done)
        self._listen()

    def _urgent_done(self, task: asyncio.Task[None]) -> None:
        self._urgent.discard(task)
        self._rung()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ask(self, asked: Sequence[Asked]) -> None:
        if self._quiet:
            # All of it is told anew, or not at all.
            self._engine.fail_shares([(limit, key) for limit, key, *_ in asked])
            return
        rest = iter(asked)
        while batch := list(islice(rest, MOST)):
            self._start(self._in_turn(batch))

    async def _in_turn(self, asked: list[Asked]) -> None:
        async with self._turns:
            await self._answer(asked)

    async def _answer(self, asked: list[Asked]) -> None:
        keys = [(limit, key) for limit, key, *_ in asked]
        try:
            if self._up is False:
                raise StoreFailed("the store is silent")
            await self._balance(asked)
        except (StoreFailed, TimeoutError) as error:
            if self._up is not False:
                self._failed(error)
            self._engine.fail_shares(keys)
        except asyncio.CancelledError:
            self._engine.fail_shares(keys)
            raise
        except Exception as error:
            # Whoever waits must go on.
            self._failed(error)
            self._engine.fail_shares(keys)

    async def _balance(self, asked: list[Asked]) -> None:
        self.asked += len(asked)
        questions = [Ask(f"{limit}:{key}", *numbers) for limit, key, *numbers in asked]
        async with asyncio.timeout(self._deadline):
            # Whoever waits in a pool for a connection is as good as not answered.
            grants = await self._store.balance(self.node, self._terms.lease_seconds, questions)
        given = [(one[0], one[1], grant.quota, grant.spare) for one, grant in zip(asked, grants, strict=True)]
        again, unknown = self._engine.give_shares(given)
        self._ask(again)
        for (limit, key, _, need, *_), grant in zip(asked, grants, strict=True):
            (self._held.add if grant.quota else self._held.discard)((limit, key))
            if grant.quota < need:
                self._hungry.add((limit, key))
        await self._give_back(unknown)

    async def _give_back(self, keys: Sequence[Key]) -> None:
        """Give back all places of keys that nobody here knows any more."""
        if not keys:
            return
        async with asyncio.timeout(self._deadline):
            asks = [Ask(f"{limit}:{key}", 0, 0, 0, 0, 0) for limit, key in keys]
            await self._store.balance(self.node, self._terms.lease_seconds, asks)
        self._held.difference_update(keys)

    async def keep_known(self) -> None:
        """Give back what is had of limits that are not shared any more, or count something else now."""
        gone = iter(self._engine.shares_unknown(list(self._held)))
        try:
            while batch := list(islice(gone, MOST)):
                await self._give_back(batch)
        except (StoreFailed, TimeoutError) as error:
            self._failed(error)


def connected(terms: Shared) -> Store:
    """Return the store of these terms, which connects when it is first asked; raise `StorageError` where that is not possible at all."""
    return connect(terms.place, terms.prefix, terms.deadline_milliseconds / 1_000)
