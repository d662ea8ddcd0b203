"""The stores of shared values, each against a real server: one contract, whichever it is."""

import asyncio
import gc
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.errors import StorageError
from edgeproxy.shared import Ask, Store, StoreFailed, connect
from edgeproxy.shared.balance import Held, balance
from tests.integration import brokers
from tests.integration.proxy import free_port

LEASE = 2.0


@pytest.fixture(scope="module", params=["redis", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    if request.param == "redis":
        with brokers.redis(folder) as port:
            yield f"redis://127.0.0.1:{port}/0"
    else:
        with brokers.mongo(folder) as port:
            yield f"mongodb://127.0.0.1:{port}/edge"


@asynccontextmanager
async def opened(url: str, *, settled: bool = True) -> AsyncIterator[Store]:
    """Open a store with names of its own; where it grants, a node watches, since a store that nobody is alive for knows nothing."""
    store = connect(url, f"t{uuid.uuid4().hex[:8]}", 5)

    async def watch() -> None:
        while True:
            await store.beat("watcher", LEASE)
            await asyncio.sleep(LEASE / 5)

    watching = asyncio.create_task(watch()) if settled else None
    try:
        if settled:
            await asyncio.sleep(LEASE + 0.3)
            assert (await store.beat("watcher", LEASE)).unsettled_seconds == 0
        yield store
    finally:
        if watching:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await store.close()


def run(url: str, work: Callable[[Store], Awaitable[None]], *, settled: bool = True) -> None:
    async def all_of_it() -> None:
        async with opened(url, settled=settled) as store:
            await work(store)

    asyncio.run(all_of_it())
    # What clients leave behind is not another test's.
    gc.collect()


def test_nodes_together_never_have_more_than_the_key_may_have(url: str) -> None:
    async def work(store: Store) -> None:
        async def quota(node: str, *numbers: int) -> int:
            keep, need, extra, most = numbers
            return (await store.balance(node, LEASE, [Ask("k", keep, need, need, extra, most)]))[0].quota

        for node in ("a", "b"):
            await store.beat(node, LEASE)
        assert await quota("a", 0, 1, 4, 10) == 4, "one, and its part of what is left"
        assert await quota("b", 0, 1, 4, 10) == 2
        assert await quota("b", 2, 9, 0, 10) == 6, "as many as there are"
        [(key, age)] = (await store.beat("a", LEASE)).short
        assert key == "k", "somebody looks for more"
        assert age < 0.5
        assert await quota("a", 1, 1, 0, 10) == 1
        assert await quota("b", 6, 9, 0, 10) == 9
        found = await store.balance("a", LEASE, [Ask("k", 1, 2, 2, 0, 10), Ask("other", 0, 2, 2, 0, 1)])
        assert [grant.quota for grant in found] == [1, 1]
        assert await quota("b", 0, 0, 0, 10) == 0
        assert await quota("a", 1, 2, 0, 5) == 2
        assert await quota("a", 3, 3, 0, 1) == 3, "what a node keeps it has"

    run(url, work)


def test_others_are_believed_to_use_all_their_places_once_they_said_so(url: str) -> None:
    async def work(store: Store) -> None:
        for node in ("a", "b"):
            await store.beat(node, LEASE)
        await store.balance("a", LEASE, [Ask("k", 0, 4, 4, 0, 4)])
        await asyncio.sleep(0.02)
        assert await store.balance("b", LEASE, [Ask("k", 0, 1, 1, 0, 4)]) == [(0, 1)], "what was said before may be so no more"
        await asyncio.sleep(0.02)
        await store.balance("a", LEASE, [Ask("k", 4, 4, 4, 0, 4)])
        assert await store.balance("b", LEASE, [Ask("k", 0, 1, 1, 0, 4)]) == [(0, 0)]
        await store.balance("a", LEASE, [Ask("k", 4, 4, 2, 0, 4)])
        assert await store.balance("b", LEASE, [Ask("k", 0, 1, 1, 0, 4)]) == [(0, 2)]
        for _ in range(12):
            await asyncio.sleep(0.1)
            await store.beat("a", LEASE)
        await store.balance("a", LEASE, [Ask("other", 0, 1, 1, 0, 4)])
        assert (await store.balance("b", LEASE, [Ask("k", 0, 1, 1, 0, 4)]))[0].spare > 0, "and only for a while"

    run(url, work)


def test_places_of_a_dead_node_come_back_and_those_of_one_that_leaves_at_once(url: str) -> None:
    async def work(store: Store) -> None:
        assert not (await store.beat("dead", LEASE)).known
        assert (await store.beat("dead", LEASE)).known
        await store.balance("dead", LEASE, [Ask("k", 0, 8, 8, 0, 10)])
        died = time.monotonic()
        assert await store.balance("alive", LEASE, [Ask("k", 0, 10, 10, 0, 10)]) == [(2, 1)]
        while (await store.balance("alive", LEASE, [Ask("k", 2, 10, 10, 0, 10)]))[0].quota < 10:
            assert time.monotonic() < died + LEASE + 0.5
            await store.beat("alive", LEASE)
            await asyncio.sleep(0.05)
        assert time.monotonic() > died + LEASE * 0.9, "not before its lease was over"
        await store.beat("alive", LEASE)
        await store.leave("alive")
        await store.beat("third", LEASE)
        assert await store.balance("third", LEASE, [Ask("k", 0, 10, 10, 0, 10)]) == [(10, 0)]
        assert not (await store.beat("alive", LEASE)).known

    run(url, work)


def test_an_empty_store_grants_nothing_new_for_a_lease_but_takes_what_nodes_have(url: str) -> None:
    async def work(store: Store) -> None:
        beat = await store.beat("a", LEASE)
        assert not beat.known
        assert 0.8 < beat.unsettled_seconds <= LEASE
        assert await store.balance("a", LEASE, [Ask("k", 4, 9, 9, 9, 10)]) == [(4, 0)]
        for _ in range(6):
            await asyncio.sleep(LEASE / 5)
            beat = await store.beat("a", LEASE)
        assert (beat.known, beat.unsettled_seconds) == (True, 0)
        assert await store.balance("a", LEASE, [Ask("k", 4, 9, 9, 0, 10)]) == [(9, 0)]
        # Whom it does not know any more may have what it granted: nobody was alive for a while.
        await asyncio.sleep(LEASE + 0.1)
        beat = await store.beat("b", LEASE)
        assert not beat.known
        assert beat.unsettled_seconds > 0.8
        assert not (await store.beat("a", LEASE)).known
        assert (await store.balance("b", LEASE, [Ask("k", 0, 5, 5, 0, 10)]))[0].quota == 0

    run(url, work, settled=False)


def test_many_at_once_get_no_place_twice(url: str) -> None:
    async def work(store: Store) -> None:
        # Old enough for a lease that a busy machine does not outlast.
        await asyncio.sleep(LEASE)
        nodes = [f"n{number}" for number in range(8)]
        for node in nodes:
            await store.beat(node, 2 * LEASE)
        got = await asyncio.gather(*(store.balance(node, 2 * LEASE, [Ask("k", 0, 3, 3, 2, 10)]) for node in nodes))
        assert sum(grant.quota for [grant] in got) == 10

    run(url, work)


def test_a_counter_lives_from_its_first_addition_on(url: str) -> None:
    async def work(store: Store) -> None:
        assert await store.fetch("c") == 0
        begun = time.monotonic()
        assert [await store.add("c", by, 0.8) for by in (2, 3)] == [2, 5]
        assert await store.fetch("c") == 5
        await asyncio.sleep(0.5)
        assert await store.add("c", 1, 0.8) == 6, "a later addition does not prolong it"
        await asyncio.sleep(max(0.0, begun + 1.0 - time.monotonic()))
        assert await store.fetch("c") == 0
        assert await store.add("c", 4, 0.8) == 4
        assert sorted(await asyncio.gather(*(store.add("d", 1, 60) for _ in range(5)))) == [1, 2, 3, 4, 5]

    run(url, work, settled=False)


def test_members_of_a_set_end_on_their_own(url: str) -> None:
    async def work(store: Store) -> None:
        assert await store.members("s") == {}
        await store.put("s", [("a", 0.4), ("b:c d", 60), ("e", 60)])
        assert {member: round(left) for member, left in (await store.members("s")).items()} == {"a": 0, "b:c d": 60, "e": 60}
        await store.discard("s", ["e"])
        await asyncio.sleep(0.5)
        assert set(await store.members("s")) == {"b:c d"}
        await store.put("s", [("b:c d", 0.05)])
        await asyncio.sleep(0.1)
        assert await store.members("s") == {}

    run(url, work, settled=False)


# The MongoDB driver forgets a socket whose connecting it cancels at its end; it is closed with the last reference.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_store_that_is_gone_says_so_without_its_password(tmp_path: Path) -> None:
    async def work() -> None:
        for url in (f"redis://u:secret@127.0.0.1:{free_port()}/0", f"mongodb://u:secret@127.0.0.1:{free_port()}/x"):
            store = connect(url, "p", 0.3)
            with pytest.raises(StoreFailed) as told:
                await store.beat("a", 1)
            assert "secret" not in str(told.value)
            await store.close()
        await asyncio.sleep(0.05)

    asyncio.run(work())
    gc.collect()
    with pytest.raises(StorageError, match="url cannot be used"):
        connect("mongodb://u:se@cret@127.0.0.1:1/x?nonsense", "p", 0.3)


@pytest.mark.alone
def test_a_store_that_is_held_is_an_error_in_time(tmp_path: Path) -> None:
    port = free_port()
    line = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with brokers.started(line, port, tmp_path) as server:

        async def work() -> None:
            store = connect(f"redis://127.0.0.1:{port}/0", "p", 0.3)
            await store.beat("a", 1)
            os.kill(server.pid, signal.SIGSTOP)
            begun = time.monotonic()
            with pytest.raises(StoreFailed):
                await store.beat("a", 1)
            assert time.monotonic() - begun < 1.5
            os.kill(server.pid, signal.SIGCONT)
            await store.beat("a", 1)
            await store.close()
            # Sockets are closed by the loop a turn later.
            await asyncio.sleep(0.05)

        asyncio.run(work())


ASKS = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 12), st.integers(0, 6))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10), st.lists(ASKS, max_size=30))
def test_the_rule_never_grants_more_and_never_less_than_there_is(most: int, asks: list[tuple[str, int, int]]) -> None:
    held: dict[str, int] = {}
    for node, need, extra in asks:
        keep = min(held.get(node, 0), need)
        entries = [Held(other, quota, quota) for other, quota in held.items()]
        grant = balance(entries, node, Ask("k", keep, need, need, extra, most), nodes=3, settled=True)
        free = most - sum(quota for other, quota in held.items() if other != node)
        assert min(need, free) <= grant.quota <= max(free, 0)
        held[node] = grant.quota
        assert sum(held.values()) <= most
    assert balance([], "a", Ask("k", 4, 9, 9, 9, 20), nodes=1, settled=False).quota == 4


def test_scripts_and_rule_agree(tmp_path: Path) -> None:
    """The script of Redis says what the rule in Python says, over a walk of questions."""

    async def work(store: Store) -> None:
        held: dict[str, Held] = {}
        for node in ("a", "b", "c"):
            await store.beat(node, 60)
        state = 7
        for _ in range(300):
            state = state * 1_103_515_245 + 12_345 & 0x7FFFFFFF
            node, need, extra, most = "abc"[state % 3], state // 3 % 9, state // 27 % 5, 6 + state // 135 % 6
            keep = min(held[node].quota if node in held else 0, need)
            ask = Ask("walk", keep, need, need, extra, most)
            [grant] = await store.balance(node, LEASE, [ask])
            rule = balance(held.values(), node, ask, nodes=4, settled=True)
            assert grant.quota == rule.quota
            assert grant.spare >= rule.spare
            held[node] = Held(node, grant.quota, min(need, grant.quota))

    with brokers.redis(tmp_path) as port:

        async def all_of_it() -> None:
            async with opened(f"redis://127.0.0.1:{port}/0") as store:
                await work(store)

        asyncio.run(all_of_it())


def test_what_a_node_says_replaces_what_it_said_and_is_forgotten_with_it(url: str) -> None:
    async def work(store: Store) -> None:
        assert await store.published("g") == {}
        await store.publish("g", "a:1", "x" * 100_000, 60)
        await store.publish("g", "b", "first", 60)
        await store.publish("g", "b", '{"ä": 2}', 2)
        await store.publish("h", "c", "other", 60)
        assert await store.published("g") == {"a:1": "x" * 100_000, "b": '{"ä": 2}'}
        await asyncio.sleep(2.2)
        assert set(await store.published("g")) == {"a:1"}

    run(url, work, settled=False)
