"""What nodes tell each other of bars and bans, and how long that stands."""

import asyncio
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any

import pytest

from edgeproxy.events.guarding import BanRemoved
from edgeproxy.server import shared_attacks, shared_fraud
from edgeproxy.server.shared_attacks import SharedAttacks
from edgeproxy.server.shared_fraud import SharedFraud
from edgeproxy.shared.memory import MemoryValues
from edgeproxy.shared.store import Store


class Memory(MemoryValues):
    """A store that one test has for itself, on the test's own time."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.said: dict[str, str] = {}

    async def publish(self, _group: str, name: str, text: str, _seconds: float) -> None:
        self.said[name] = text

    async def published(self, _group: str) -> dict[str, str]:
        return dict(self.said)

    async def use(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """Ask as `Shares.use` does."""
        return await work(self)


class Engine:
    """Bars and bans of one node."""

    def __init__(self, bars: dict[str, int]) -> None:
        self.bars = bars
        self.heard: list[str] = []
        self.let_in: list[str] = []

    def barred(self) -> list[tuple[str, int]]:
        return list(self.bars.items())

    def unbar(self, user: str) -> None:
        self.bars.pop(user, None)

    def fraud_told(self, _most: int) -> list[Any]:
        return []

    def hear_fraud(self, _rows: list[Any], barred: list[str]) -> None:
        self.heard = barred

    def bans(self) -> list[Any]:
        return []

    def unban(self, source: IPv4Address, _reason: str) -> None:
        self.let_in.append(str(source))


class Time:
    """The test's own time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        for module in (shared_attacks, shared_fraud):
            monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
            monkeypatch.setattr(module.time, "time", lambda: 1_700_000_000 + self.now)


def test_a_bar_outlives_an_emptied_store_and_the_restart_of_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)

    def node(name: str, bars: dict[str, int]) -> tuple[SharedFraud, Engine]:
        engine = Engine(bars)
        return SharedFraud(engine, name, lambda *_, **__: None, 0.0), engine  # type: ignore[arg-type]

    async def work() -> None:
        store: Any = Memory(lambda: time.now)
        first, _ = node("first", {"alice": 3_600})
        second, heard = node("second", {})
        for one in (first, second):
            await one._round(store)
        assert heard.heard == ["alice"]
        # The first one is gone, what all wrote is lost, and a while later the second one goes too.
        emptied: Any = Memory(lambda: time.now)
        time.now += shared_fraud.WRITTEN_SECONDS + 1
        await second._round(emptied)
        later, found = node("third", {})
        emptied.said.clear()
        await later._round(emptied)
        assert found.heard == ["alice"]
        # Once it is lifted nobody writes it again.
        assert later.unbar("alice")
        for _ in range(2):
            time.now += shared_fraud.WRITTEN_SECONDS + 1
            for one in (later, second):
                await one._round(emptied)
        assert (found.heard, heard.heard, await emptied.members(shared_fraud.BARRED)) == ([], [], {})

    asyncio.run(work())


def test_a_bar_by_another_node_just_after_one_was_lifted_holds_everywhere_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)

    async def work() -> None:
        store: Any = Memory(lambda: time.now)
        engines = [Engine({"alice": 600}), Engine({}), Engine({})]
        nodes = [SharedFraud(engine, name, lambda *_, **__: None, 0.0) for engine, name in zip(engines, "abc", strict=True)]  # type: ignore[arg-type]
        for one in nodes * 2:
            await one._round(store)
        assert engines[2].heard == ["alice"]
        nodes[2].unbar("alice")
        for one in (*nodes[::-1], *nodes):
            await one._round(store)
        assert [engine.heard for engine in engines] == [[], [], []]
        time.now += 1
        engines[1].bars["alice"] = 600
        for one in (nodes[1], nodes[0], nodes[2]):
            await one._round(store)
        assert [engine.heard for engine in engines] == [["alice"], [], ["alice"]]

    asyncio.run(work())


def test_a_bar_that_is_written_while_it_is_lifted_does_not_stay_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)

    class Crossed(Memory):
        """A store at which somebody else lifts the bar just before it is written."""

        async def put(self, name: str, values: Any) -> None:
            if name == shared_fraud.BARRED:
                await super().put(shared_fraud.UNBARRED, [("alice\x1f1700001000.000\x1fx", 86_400.0)])
            await super().put(name, values)

    async def work() -> None:
        store: Any = Crossed(lambda: time.now)
        engine = Engine({"alice": 600, "bob": 600})
        one = SharedFraud(engine, "one", lambda *_, **__: None, 0.0)  # type: ignore[arg-type]
        await one._round(store)
        assert list(await store.members(shared_fraud.BARRED)) == ["bob\x1fone"]
        await one._round(store)
        assert engine.bars == {"bob": 600}

    asyncio.run(work())


def test_a_bar_that_is_made_anew_after_it_was_lifted_holds_everywhere_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)

    async def work() -> None:
        store: Any = Memory(lambda: time.now)
        mine, heard = Engine({"alice": 600}), Engine({})
        first, second = (SharedFraud(engine, name, lambda *_, **__: None, 0.0) for name, engine in (("first", mine), ("second", heard)))  # type: ignore[arg-type]
        for one in (first, second):
            await one._round(store)
        assert heard.heard == ["alice"]
        time.now += 3
        mine.bars.clear()
        first.unbar("alice")
        # Barred again before anybody was told of the first time.
        mine.bars["alice"] = 600
        await first._round(store)
        assert list(await store.members(shared_fraud.BARRED)) == ["alice\x1ffirst"]
        await second._round(store)
        assert heard.heard == ["alice"]
        # The word of a node that has not heard yet does not count.
        mine.bars.clear()
        second.unbar("alice")
        await second._round(store)
        time.now += 1
        await second._round(store)
        assert heard.heard == []

    asyncio.run(work())


@pytest.mark.parametrize(("hours", "heard"), [(23, ["192.0.2.7"]), (25, [])])
def test_who_is_let_in_again_is_heard_of_for_a_day(hours: int, heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)

    async def work() -> None:
        store: Store = Memory(lambda: time.now)  # type: ignore[assignment]
        away = Engine({})
        one, late = SharedAttacks(Engine({}), 60), SharedAttacks(away, 60)  # type: ignore[arg-type]
        one.take(BanRemoved(at=0, ip="192.0.2.7", reason="operator"))
        await one._tell_bans(store)
        time.now += hours * 3_600
        await late._look(store)
        assert away.let_in == heard

    asyncio.run(work())
