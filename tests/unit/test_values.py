"""Values of one node, and how policies reach them."""

import asyncio

import pytest

from edgeproxy.errors import LookupFailed
from edgeproxy.events import Event, name_of
from edgeproxy.policy import CONTINUE, Policy, Reject, raise_event
from edgeproxy.policy.call import Call
from edgeproxy.policy.values import PolicyValues
from edgeproxy.policy.verdict import Verdict
from edgeproxy.server.values import ValueService
from edgeproxy.shared import StoreFailed
from edgeproxy.shared.memory import MemoryValues
from edgeproxy.testing import SimulatedEdge, request


def test_counters_live_from_their_first_addition_and_members_on_their_own() -> None:
    clock = [0.0]

    async def work() -> None:
        values = MemoryValues(lambda: clock[0], most=3)
        assert [await values.add("c", by, 10) for by in (1, 4)] == [1, 5]
        clock[0] = 9
        assert await values.add("c", 1, 10) == 6
        assert await values.fetch("c") == 6
        clock[0] = 10
        assert (await values.fetch("c"), await values.add("c", 1, 10)) == (0, 1)
        await values.put("s", [("a", 5), ("b", 50)])
        with pytest.raises(StoreFailed, match="no room for more than 3"):
            await values.add("d", 1, 10)
        clock[0] = 16
        assert await values.members("s") == {"b": 44}
        assert await values.add("d", 1, 10) == 1, "what is over makes room"
        await values.discard("s", ["b", "nobody"])
        assert await values.members("s") == {}

    asyncio.run(work())


def test_a_policy_process_asks_over_its_sockets() -> None:
    async def work() -> None:
        raised: list[Event] = []
        service = ValueService(lambda: None, lambda event: len(raised) if raised.append(event) else 3)
        ways = [service.connect() for _ in range(2)]
        one, other = (PolicyValues(way.detach()) for way in ways)
        found = await asyncio.gather(*(values.add("calls", seconds=60) for values in (one, other) for _ in range(200)))
        assert sorted(found) == list(range(1, 401)), "one count for all processes"
        await one.put("seen", "a", "b", seconds=60)
        await other.discard("seen", "a")
        assert set(await one.members("seen")) == {"b"}
        assert await other.fetch("calls") == 400
        for wrong in ("", "x" * 256, "a\nb", "a\n", "\x85"):
            with pytest.raises(ValueError, match="a key is 1 to 255 characters"):
                await one.add(wrong, seconds=60)
        with pytest.raises(ValueError, match="seconds"):
            await one.add("k", seconds=0)
        assert await one.raise_event("X_SUSPECT", {"who": "bob", "calls": 7}) == 3
        assert [(name_of(event), event.parameters()) for event in raised] == [("X_SUSPECT", {"who": "bob", "calls": 7})]
        for name, parameters, fault in (
            ("E_PIKE_BLOCKED", {"ip": "192.0.2.1"}, "an event of your own begins with X_, got: E_PIKE_BLOCKED"),
            ("X_SUSPECT", {"score": 0.5}, "raise_event: Expected `int | str`, got `float`"),
            ("X_SUSPECT", {"text": "x" * 5_000}, "length <= 4096"),
        ):
            with pytest.raises(ValueError, match=fault):
                await one.raise_event(name, parameters)
        assert len(raised) == 1
        await one.close()
        await other.close()
        await service.stop()
        await asyncio.sleep(0.01)
        with pytest.raises(LookupFailed):
            await PolicyValues(deadline_seconds=0.1).fetch("k")

    asyncio.run(work())


def test_a_policy_counts_on_simulated_time() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        if await call.values.add(f"calls:{call.from_uri.user}", seconds=60) > 2:
            return Reject(403, "Too Many Today")
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        assert [edge.receive(request("INVITE")).text.split(" ")[0] for _ in range(3)] == ["INVITE", "INVITE", "SIP/2.0"]
        edge.advance(61)
        assert edge.receive(request("INVITE")).text.startswith("INVITE")


def test_a_policy_raises_events_of_its_own() -> None:
    policy, seen = Policy(), []

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        assert await raise_event("X_CALLS", who=call.from_uri.user, name="of the event") == 1
        return CONTINUE

    @policy.on_event("X_CALLS")
    def told(event: Event) -> None:
        seen.append(event.parameters())

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("INVITE", user="bob")).text.startswith("INVITE")
        assert edge.raised == [("X_CALLS", {"who": "bob", "name": "of the event"})]
        assert seen == [{"who": "bob", "name": "of the event"}]
        assert edge.failures == []
