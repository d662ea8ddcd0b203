"""Handlers that wait no longer for their attempts, or decide while those are under way."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from edgeproxy.policy import CONTINUE, Call, Policy, Reject, Verdict
from edgeproxy.testing import Response, SimulatedEdge, request

CORE, OTHER = "198.51.100.1:5060", "203.0.113.1:5060"
Handler = Callable[[Call], Awaitable[Verdict]]


def deciding(handler: Handler) -> Policy:
    policy = Policy()
    policy.on_request()(handler)
    return policy


def last_to(edge: SimulatedEdge, to: str) -> Response:
    return next(message for message in reversed(edge.sent) if message.to == to)


async def limited(call: Call, *to: str) -> None:
    """Try `to` for two seconds, which a task of simulated time ends."""
    attempt = asyncio.ensure_future(call.attempt(*to))
    await call.sleep(2)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt


@pytest.mark.parametrize("rings", [True, False])
def test_a_verdict_after_a_time_limit_of_its_own_is_carried_out(rings: bool) -> None:
    async def decide(call: Call) -> Verdict:
        await limited(call, "sip:198.51.100.1")
        call.note("tried", "long enough")
        return Reject(480, "Too Slow")

    with SimulatedEdge(deciding(decide), deadline_seconds=30) as edge:
        relayed = edge.receive(request("INVITE"))
        if rings:
            edge.respond(relayed, 180)
        sent = edge.advance(2.1)
        assert [message.first_line for message in sent if message.status_code >= 200] == ["SIP/2.0 480 Too Slow"]
        if not rings:
            # What answers later must not ring on (RFC 3261 section 9.1).
            sent = edge.respond(relayed, 180)
        assert [message.method for message in sent if message.to == CORE and not message.status_code][-1:] == ["CANCEL"]
        (record,) = edge.records
        assert (record["status_code"], record["notes"], record["attempts"][0]["status_code"]) == (480, {"tried": "long enough"}, 408)
        assert edge.failures == []


def test_the_next_attempt_is_made_and_an_early_answer_of_the_first_still_counts() -> None:
    async def decide(call: Call) -> Verdict:
        await limited(call, "sip:198.51.100.1")
        failure = await call.attempt("sip:203.0.113.1")
        if failure is None:
            return CONTINUE
        assert failure.target == "sip:203.0.113.1"
        return Reject(failure.status_code)

    for first_answers in (False, True):
        with SimulatedEdge(deciding(decide), deadline_seconds=30) as edge:
            first = edge.receive(request("INVITE"))
            edge.respond(first, 180)
            second = next(message for message in edge.advance(2.1) if message.to == OTHER)
            assert second.method == "INVITE"
            sent = edge.respond(first, 200) if first_answers else edge.respond(second, 486)
            assert [message.status_code for message in sent if message.status_code >= 200] == [200 if first_answers else 486]
            assert edge.failures == []


def test_whoever_decides_beside_attempts_of_its_own_ends_them() -> None:
    async def decide(call: Call) -> Verdict:
        task = asyncio.ensure_future(call.attempt("sip:198.51.100.1"))
        await call.sleep(1)
        if call.request_uri.user == "raise":
            raise ValueError("on purpose")
        assert not task.done()
        return Reject(486)

    for user, code, failures in (("bob", 486, 0), ("raise", 408, 1)):
        with SimulatedEdge(deciding(decide), deadline_seconds=30) as edge:
            edge.respond(edge.receive(request("INVITE", f"sip:{user}@example.net")), 180)
            sent = edge.advance(1.1)
            assert [message.status_code for message in sent if message.status_code >= 200] == [code]
            assert last_to(edge, CORE).method == "CANCEL"
            assert len(edge.failures) == failures


def test_other_requests_are_given_up_as_well() -> None:
    async def decide(call: Call) -> Verdict:
        await limited(call, "sip:198.51.100.1")
        return Reject(480)

    with SimulatedEdge(deciding(decide), deadline_seconds=30) as edge:
        assert edge.receive(request("MESSAGE")).to == CORE
        assert [message.status_code for message in edge.advance(2.1) if message.status_code] == [480]


def test_a_part_of_a_request_makes_no_attempts() -> None:
    policy = Policy()

    @policy.on_branch("INVITE")
    async def look(branch: Call) -> Verdict:
        await branch.attempt("sip:203.0.113.1")
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        (failure,) = edge.failures
        assert "no attempts can be made in a hook" in str(failure["error"])


def test_a_timeout_of_asyncio_around_an_attempt_ends_it() -> None:
    async def decide(call: Call) -> Verdict:
        try:
            async with asyncio.timeout(0.05):
                await call.attempt("sip:198.51.100.1")
        except TimeoutError:
            return Reject(480)
        return CONTINUE

    with SimulatedEdge(deciding(decide), deadline_seconds=30) as edge:
        edge.respond(edge.receive(request("INVITE")), 180)
        time.sleep(0.1)
        assert [message.status_code for message in edge.advance(0.01) if message.status_code] == [480]
        assert edge.failures == []


def test_a_coroutine_that_returns_nonsense_is_named() -> None:
    async def decides_wrongly(call: Call) -> Verdict:
        await call.sleep(1)
        return "404"  # type: ignore[return-value]

    with SimulatedEdge(deciding(decides_wrongly), deadline_seconds=30) as edge:
        edge.receive(request("INVITE"))
        assert [message.status_code for message in edge.advance(1.1) if message.status_code] == [500]
        (failure,) = edge.failures
        assert "decides_wrongly returned str, expected a verdict" in str(failure["error"])
