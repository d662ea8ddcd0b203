"""Handlers through the simulated edge: every verdict, every way to fail, and how modules compose."""

import asyncio
import json
import time
import weakref
from collections.abc import Callable

import msgspec
import pytest
import uvloop

from edgeproxy.policy import CONTINUE, Call, CallEnded, LookupFailed, Policy, PolicyError, Redirect, Reject, Relay, Reply, Verdict
from edgeproxy.policy.step import HandlerTask, start
from edgeproxy.testing import SimulatedEdge, request

GATEWAY, CORE = "203.0.113.1:5060", "198.51.100.1:5060"


def one(handler: Callable[..., object], *methods: str, **filters: str) -> Policy:
    policy = Policy()
    policy.on_request(*(methods or ("INVITE",)), **filters)(handler)
    return policy


def test_the_first_example_of_the_contract() -> None:
    class Options(msgspec.Struct, forbid_unknown_fields=True):
        domains: frozenset[str]

    policy = Policy(options=Options)

    @policy.on_request("MESSAGE")
    def only_local(call: Call, options: Options) -> Verdict:
        return CONTINUE if call.request_uri.host in options.domains else Reject(403)

    with SimulatedEdge(policy, options={"domains": ["example.net"]}) as edge:
        assert edge.receive(request("MESSAGE", "sip:bob@else.where")).status_code == 403
        relayed = edge.receive(request("MESSAGE", "sip:bob@example.net"))
        assert (relayed.method, relayed.to) == ("MESSAGE", CORE)
    with pytest.raises(PolicyError, match="options of policy: Object contains unknown field `domain`"):
        SimulatedEdge(policy, options={"domain": []})


def test_what_a_handler_reads_and_changes() -> None:
    seen: dict[str, object] = {}

    def decide(call: Call) -> Verdict:
        seen.update(
            method=call.method,
            user=call.from_uri.user,
            to=call.to_uri.host,
            peer=call.peer,
            source=call.source,
            subject=call.header("s"),
            two=call.headers("X-Two"),
            none=call.header("nope"),
            body=call.request.body,
            trace=len(call.trace_id),
        )
        call.set_header("X-Two", "three")
        call.remove_header("Subject")
        call.set_request_uri("sip:+49@example.net")
        call.note("class", "gold")
        return Relay(peer="gateway")

    with SimulatedEdge(one(decide)) as edge:
        out = edge.receive(request("INVITE", headers={"Subject": "hi", "X-Two": "one", "x-two": "two"}, body="v=0"))
        assert (out.first_line, out.to, out.headers("X-Two"), out.header("Subject")) == (
            "INVITE sip:+49@example.net SIP/2.0",
            GATEWAY,
            ["three"],
            None,
        )
        edge.respond(out, 486)
        (record,) = edge.records
    assert seen == {
        "method": "INVITE",
        "user": "alice",
        "to": "example.net",
        "peer": "subscribers",
        "source": ("192.0.2.77", 5060),
        # By its compact name.
        "subject": "hi",
        "two": ["one", "two"],
        "none": None,
        "body": b"v=0",
        "trace": 32,
    }
    assert (record["notes"], record["to_peer"], record["sent_request_uri"]) == ({"class": "gold"}, "gateway", "sip:+49@example.net")


@pytest.mark.parametrize(
    ("verdict", "status", "header"),
    [
        (Reject(486, "Too Busy", {"X-Why": "so"}), 486, ("X-Why", "so")),
        (Redirect(("sip:carol@example.net",)), 302, ("Contact", "<sip:carol@example.net>")),
        (None, 0, None),
        (CONTINUE, 0, None),
        (Relay(("sip:203.0.113.1",)), 0, None),
    ],
)
def test_verdicts(verdict: Verdict | None, status: int, header: tuple[str, str] | None) -> None:
    with SimulatedEdge(one(lambda _: verdict)) as edge:
        sent = edge.receive(request("INVITE"))
        assert sent.status_code == status
        if header:
            assert sent.header(header[0]) == header[1]


def test_a_service_answers_other_requests_itself() -> None:
    with SimulatedEdge(one(lambda _: Reply(200, headers={"Content-Type": "text/plain"}, body="thanks"), "MESSAGE")) as edge:
        sent = edge.receive(request("MESSAGE", body="hello"))
        assert sent.status_code == 200
        assert sent.text.endswith("\r\n\r\nthanks")


def raising(_: Call) -> Verdict:
    raise ValueError("broken")


async def raising_later(_: Call) -> Verdict:
    await asyncio.sleep(0)
    raise ValueError("broken")


def exits(_: Call) -> Verdict:
    raise SystemExit(1)


async def exits_later(_: Call) -> Verdict:
    await asyncio.sleep(0)
    raise SystemExit(1)


async def two_at_once(call: Call) -> Verdict:
    await asyncio.gather(call.attempt("sip:203.0.113.1"), call.attempt("sip:203.0.113.2"))
    return CONTINUE


async def cancelled_at_once(_: Call) -> Verdict:
    raise asyncio.CancelledError


class Mute(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError("no text")


def mute(_: Call) -> Verdict:
    raise Mute


async def cancelled(_: Call) -> Verdict:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "handler",
    [
        raising,
        raising_later,
        cancelled,
        cancelled_at_once,
        exits,
        exits_later,
        mute,
        lambda _: Redirect("sip:203.0.113.1"),  # type: ignore[arg-type]
        lambda _: Relay("sip:203.0.113.1"),  # type: ignore[arg-type]
        lambda _: Reject(486, headers={"X-A": "x" * 70_000}),
        lambda _: Verdict(),
        lambda _: Reject(2**70),
        lambda _: Relay(("sip:203.0.113.1",), first_answer_seconds=float("inf")),
        lambda _: "nonsense",
        lambda _: Reject(200),
        lambda _: Relay(("not a uri",)),
        lambda _: Relay(),
        lambda _: Reject("x"),
    ],
)
def test_a_handler_that_fails_loses_no_request(handler: Callable[..., object]) -> None:
    with SimulatedEdge(one(handler)) as edge:
        sent = edge.receive(request("INVITE"))
        assert sent.status_code == 500
        assert int(sent.header("Retry-After") or 0) > 0
        assert edge.receive(request("MESSAGE")).method == "MESSAGE", "others go on"


def test_two_attempts_at_once_are_a_fault_and_not_a_wait_without_end() -> None:
    with SimulatedEdge(one(two_at_once)) as edge:
        # The first attempt is made, and ends as attempts do; what the handler raised has ended its say.
        edge.receive(request("INVITE"))
        edge.wait()
        assert str(edge.failures[0]["error"]).startswith("PolicyError: attempts of this call are under way")


def test_a_handler_that_never_answers_is_ended_at_its_deadline() -> None:
    ended = []

    async def hangs(call: Call) -> None:
        try:
            await asyncio.sleep(3_600)
        except CallEnded as error:
            ended.append(error.status_code)
            raise

    with SimulatedEdge(one(hangs), deadline_seconds=0.5) as edge:
        edge.receive(request("INVITE"))
        assert edge.advance(0.4) == []
        assert [sent.status_code for sent in edge.advance(0.2)] == [500]
        edge.wait()
        assert ended == [500]
        assert [failure["error"] for failure in edge.failures] == ["no verdict on the request within its deadline (500 ms)"]


def test_attempts_in_series_until_one_answers() -> None:
    tried: list[tuple[str, int]] = []

    async def serial(call: Call) -> Verdict:
        call.set_header("X-Try", "yes")
        async for failure in call.attempts(["sip:203.0.113.1", "sip:203.0.113.2", "sip:203.0.113.3"]):
            tried.append((failure.target, failure.status_code))  # noqa: PERF401 - the loop that users write
        return call.best_response(otherwise=Reject(480))

    with SimulatedEdge(one(serial)) as edge:
        first = edge.receive(request("INVITE"))
        assert (first.to, first.header("X-Try")) == (GATEWAY, "yes")
        ack, second = edge.respond(first, 486)
        assert (ack.method, second.to, second.header("X-Try")) == ("ACK", "203.0.113.2:5060", "yes")
        (ok,) = edge.respond(second, 200)
        assert (ok.status_code, tried) == (200, [("sip:203.0.113.1", 486)])
        edge.wait()
        assert edge.failures == []


def test_attempts_that_all_fail_end_with_the_best_response_or_another() -> None:
    for last, expected in ((404, 404), (408, 480)):

        async def serial(call: Call, last: int = last) -> Verdict:
            async for failure in call.attempts(["sip:203.0.113.1"]):
                assert failure.status_code == last
            return call.best_response(otherwise=Reject(480))

        with SimulatedEdge(one(serial)) as edge:
            first = edge.receive(request("INVITE"))
            sent = edge.respond(first, 404) if last == 404 else edge.advance(33)
            assert {message.status_code for message in sent if message.status_code} == {expected}


def test_a_caller_who_gives_up_ends_the_loop() -> None:
    ended = []

    async def serial(call: Call) -> Verdict:
        try:
            async for _ in call.attempts(["sip:203.0.113.1", "sip:203.0.113.2"]):
                pass
        except CallEnded as error:
            ended.append(error.status_code)
            raise
        return CONTINUE

    with SimulatedEdge(one(serial)) as edge:
        invite = request("INVITE", call_id="gone")
        first = edge.receive(invite)
        edge.respond(first, 180)
        edge.receive(invite.replace(b"INVITE", b"CANCEL"))
        sent = edge.respond(first, 487)
        assert [message.status_code for message in sent] == [0, 487]
        edge.wait()
        assert (ended, edge.failures) == ([487], [])


def test_modules_are_asked_in_order_until_one_decides() -> None:
    asked: list[str] = []

    def step(name: str, verdict: Verdict | None) -> Policy:
        async def waits(_: Call) -> Verdict | None:
            asked.append(name)
            await asyncio.sleep(0)
            return verdict

        def decides(_: Call) -> Verdict | None:
            asked.append(name)
            return verdict

        return one(waits if name.startswith("w") else decides)

    with SimulatedEdge(step("p1", None), step("w2", CONTINUE), step("p3", Reject(603)), step("w4", Reject(404))) as edge:
        edge.receive(request("INVITE"))
        edge.wait()
        assert (edge.sent[-1].status_code, asked) == (603, ["p1", "w2", "p3"])


def test_filters_choose_by_method_and_by_name_or_kind_of_peer() -> None:
    with SimulatedEdge(one(lambda _: Reject(403), "INVITE", peer="gateway")) as edge:
        assert edge.receive(request("INVITE")).method == "INVITE"
        assert edge.receive(request("INVITE"), GATEWAY).status_code == 403
        assert edge.receive(request("MESSAGE"), GATEWAY).method == "MESSAGE"
    with pytest.raises(PolicyError, match="no peer or kind of peer phones; there are: core, gateway, subscribers"):
        SimulatedEdge(one(lambda _: None, "INVITE", peer="phones"))


def test_the_end_of_calls_is_told_with_their_record() -> None:
    told: list[tuple[object, object]] = []
    policy = Policy()

    @policy.on_final(peer="subscribers")
    async def note(record: dict[str, object]) -> None:
        await asyncio.sleep(0)
        told.append((record["outcome"], record["status_code"]))

    with SimulatedEdge(policy) as edge:
        edge.respond(edge.receive(request("INVITE")), 486)
        edge.wait()
        assert told == [("failed", 486)]


def test_a_handler_of_ends_that_fails_keeps_nobody_else_from_being_told() -> None:
    told: list[object] = []
    first, second = Policy(), Policy()

    @first.on_final()
    def fail(record: dict[str, object]) -> None:
        raise RuntimeError(record["call_id"])

    @second.on_final()
    def note(record: dict[str, object]) -> None:
        told.append(record["outcome"])

    with SimulatedEdge(first, second) as edge:
        edge.respond(edge.receive(request("INVITE")), 486)
        edge.wait()
        assert told == ["failed"]


def test_the_first_step_runs_without_a_task_and_whatever_asyncio_offers_works_in_it() -> None:
    async def at_once(call: Call) -> Verdict:
        assert not isinstance(asyncio.current_task(), asyncio.Task)
        return Reject(486)

    async def with_timeout(call: Call) -> Verdict:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return Reject(504)
        return CONTINUE

    async def in_a_group(call: Call) -> Verdict:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(asyncio.sleep(0.001, 480))
        return Reject(first.result())

    for handler, status in ((at_once, 486), (with_timeout, 504), (in_a_group, 480)):
        with SimulatedEdge(one(handler)) as edge:
            edge.receive(request("INVITE"))
            edge.wait()
            assert (edge.sent[-1].status_code, edge.failures) == (status, [])


def test_a_lookup_that_fails_is_told_as_such() -> None:
    async def asks(call: Call) -> Verdict:
        try:
            await call.http_json("http://127.0.0.1:9/", deadline_seconds=0.2)
        except LookupFailed as error:
            call.note("lookup", str(error)[:30])
            return Reject(480)
        return CONTINUE

    with SimulatedEdge(one(asks)) as edge:
        edge.receive(request("INVITE"))
        edge.wait()
        assert edge.sent[-1].status_code == 480
        assert edge.records[0]["notes"]["lookup"].startswith("http://127.0.0.1:9/")


def test_a_wrong_handler_is_refused_where_it_is_declared() -> None:
    policy = Policy()
    with pytest.raises(PolicyError, match="expected parameters for the call and, if wished, the options"):
        policy.on_request("INVITE")(lambda: None)
    with pytest.raises(PolicyError, match="expected methods in capital letters, got: 'invite'"):
        policy.on_request("invite")
    with pytest.raises(PolicyError, match="a handler must be a function"):
        policy.on_request("INVITE")("nothing")  # type: ignore[type-var]


def test_a_handler_whose_end_was_never_told_is_ended_after_all() -> None:
    ended = []

    async def waits(call: Call) -> None:
        try:
            await call.attempt("sip:203.0.113.1")
        except CallEnded:
            ended.append(call.call_id)
            raise

    with SimulatedEdge(one(waits)) as edge:
        edge.receive(request("INVITE", call_id="lost"))
        edge._dispatcher.forget_lost()
        assert ended == []
        edge._dispatcher.forget_lost(seconds=-1)
        edge.wait()
        assert (ended, edge.failures) == (["lost"], [])


def test_a_timeout_that_is_due_before_the_task_begins_is_one_of_the_handler() -> None:
    async def late() -> str:
        try:
            async with asyncio.timeout(0.005):
                time.sleep(0.02)
                await asyncio.sleep(60)
        except TimeoutError:
            return "the handler heard of it"
        return "no timeout"

    async def work() -> str:
        _, task = start(late(), asyncio.get_running_loop())
        assert task
        return str(await task)

    # The loop of the processes runs timers before tasks.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(work()) == "the handler heard of it"


def test_whoever_is_cancelled_before_its_task_begins_hears_why() -> None:
    heard: list[BaseException] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            heard.append(error)
            raise

    async def work() -> None:
        _, task = start(waits(), asyncio.get_running_loop(), lambda: CallEnded(487))
        assert task
        task.cancel()
        with pytest.raises(CallEnded):
            await task

    asyncio.run(work())
    assert [type(error) for error in heard] == [CallEnded]


@pytest.mark.parametrize("taken_back", [False, True])
def test_whoever_cancels_itself_in_its_first_step_is_cancelled_once_it_waits(taken_back: bool) -> None:
    async def cancels() -> str:
        task = asyncio.current_task()
        assert task
        assert (task.cancel(), task.cancelling()) == (True, 1)
        if taken_back:
            assert (task.uncancel(), task.cancelling()) == (0, 0)
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return f"cancelled, {task.cancelling()}"
        return "not cancelled"

    async def work() -> str:
        _, task = start(cancels(), asyncio.get_running_loop())
        assert task
        return str(await task)

    assert asyncio.run(work()) == ("not cancelled" if taken_back else "cancelled, 1")


def test_the_task_of_a_handler_is_one_and_the_same_before_and_after_it_waits() -> None:
    told: list[object] = []
    seen: list[object] = []

    async def handler() -> str:
        task = asyncio.current_task()
        assert task
        seen.append(task)
        task.set_name("mine")
        task.add_done_callback(lambda _: told.append("kept"))
        task.add_done_callback(told.append)
        assert (task.remove_done_callback(told.append), task.done(), task.get_coro().__name__) == (1, False, "handler")
        known = weakref.ref(task)
        await asyncio.sleep(0)
        assert (asyncio.current_task() is task, known() is task, task.get_name()) == (True, True, "mine")
        with pytest.raises(ValueError, match="thrown"):
            await asyncio.gather(asyncio.sleep(0, 1), fails())
        assert asyncio.current_task() is task
        return "done"

    async def fails() -> None:
        raise ValueError("thrown")

    async def at_once() -> str:
        task = asyncio.current_task()
        assert task
        seen.append(task)
        task.add_done_callback(lambda done: told.append(done is task))
        with pytest.raises(AttributeError, match="before the handler waits"):
            _ = task.nothing_like_that
        return "at once"

    async def work() -> None:
        outer = asyncio.current_task()
        _, task = start(handler(), asyncio.get_running_loop())
        assert asyncio.current_task() is outer
        assert task
        assert await task == "done"
        assert start(at_once(), asyncio.get_running_loop()) == ("at once", None)
        await asyncio.sleep(0)

    asyncio.run(work())
    assert told == ["kept", True]
    assert [task.done() for task in seen if isinstance(task, HandlerTask)] == [True, True]


class UnspeakableError(Exception):
    """What it says of itself ends the process, or so it thinks."""

    def __str__(self) -> str:
        raise self.args[0]


@pytest.mark.parametrize("raised", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()], ids=["exit", "cancel", "interrupt"])
def test_an_exception_whose_text_cannot_be_had_costs_its_own_request_alone(raised: BaseException) -> None:
    def fail(call: Call) -> Verdict:
        raise UnspeakableError(raised)

    with SimulatedEdge(one(fail)) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        (failure,) = edge.failures
        assert failure["error"] == "UnspeakableError: (its text cannot be had)"
        assert failure["call_id"]


def test_one_simulated_edge_is_open_at_a_time() -> None:
    with SimulatedEdge(one(lambda _: CONTINUE)), pytest.raises(RuntimeError, match="another SimulatedEdge is open"):
        SimulatedEdge(one(lambda _: CONTINUE))
    SimulatedEdge(one(lambda _: CONTINUE)).close()


def test_the_log_has_no_more_of_a_fault_than_a_line_can_hold() -> None:
    policy = Policy()

    @policy.on_request("INVITE")
    def decide(call: Call) -> Verdict:
        raise ValueError("x" * 1_000_000)

    with SimulatedEdge(policy) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        (failure,) = edge.failures
        assert str(failure["error"]).endswith("xxx... (1000000 characters)")
        assert len(str(failure["error"])) < 2_100


def test_a_fault_is_told_with_what_a_group_is_made_of_and_where_the_policy_raised_it() -> None:
    policy = Policy()

    async def fails() -> None:
        raise KeyError("the reason")

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        if call.request_uri.user == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
        json.loads("{bad")
        return CONTINUE

    with SimulatedEdge(policy) as edge:
        edge.receive(request("INVITE", "sip:group@example.net"))
        edge.receive(request("INVITE", "sip:library@example.net"))
        group, library = edge.failures
    assert group["error"] == "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception); KeyError: 'the reason'"
    assert str(library["error"]).startswith("JSONDecodeError: ")
    first = fails.__code__.co_firstlineno
    assert [failure["at"] for failure in (group, library)] == [f"{__file__}:{first + 1}", f"{__file__}:{first + 8}"]


def test_the_end_of_a_call_is_a_cancellation_for_all_that_its_handler_waits_in() -> None:
    policy, heard, gate = Policy(), [], asyncio.Semaphore(1)

    async def child(name: str) -> None:
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            heard.append((name, type(error)))
            raise

    @policy.on_request("INVITE")
    async def decide(call: Call) -> Verdict:
        try:
            match call.request_uri.user:
                case "lock":
                    async with gate:
                        await call.sleep(60)
                case "group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(child("group"))
                case "body":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(child("body"))
                        await call.sleep(60)
                case "wait":
                    await asyncio.wait_for(child("wait"), 60)
        except* CallEnded as ends:
            heard.append((call.request_uri.user, CallEnded))
            raise ends from None
        return CONTINUE

    with SimulatedEdge(policy, deadline_seconds=30) as edge:
        for turn, user in enumerate(("group", "body", "wait", "lock", "lock", "lock")):
            invite = request("INVITE", f"sip:{user}@example.net").decode()
            assert edge.receive(invite).status_code == 100
            head = "\r\n".join(line for line in invite.split("\r\n") if not line.startswith("Contact"))
            assert edge.receive(head.replace("INVITE", "CANCEL")).status_code == 487, turn
        assert edge.failures == []
    ended = [(user, kind) for name in ("group", "body", "wait") for user, kind in ((name, asyncio.CancelledError), (name, CallEnded))]
    assert heard == [*ended, *[("lock", CallEnded)] * 3]
    assert not gate.locked()


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        (lambda _: Redirect(()), "PolicyError: Redirect: expected one SIP URI at least"),
        (lambda _: Redirect(("not a uri",)), "PolicyError: Redirect: not a SIP URI: 'not a uri'"),
        (lambda _: Redirect(("sip:a@b>, <sip:evil@x",)), "PolicyError: Redirect: not a SIP URI: 'sip:a@b>, <sip:evil@x'"),
        (lambda _: Relay(("sip:a@b",), peer="core"), "PolicyError: Relay: expected either `to` or `peer`"),
        (lambda call: call.set_header("Via", "x"), "a verdict cannot be carried out: header field may not be changed: Via"),
        (lambda _: Reject("404"), "PolicyError: Reject: expected a status code of 300 to 699, got: '404'"),  # type: ignore[arg-type]
        (lambda _: Reject(200), "PolicyError: Reject: expected a status code of 300 to 699, got: 200"),
        (lambda _: Reply(180), "PolicyError: Reply: expected a status code of 200 to 699, got: 180"),
        (lambda _: Verdict(), "PolicyError: a handler returned a Verdict that decides nothing"),
        (lambda _: Relay(("tel:+49",)), "a verdict cannot be carried out: not a SIP URI with a host: tel:+49"),
        (lambda _: Redirect(("sip:a@b",), status_code=404), "PolicyError: Redirect: expected a status code of 300 to 399, got: 404"),
        (lambda _: Relay(peer="core", first_answer_seconds=-5), "PolicyError: first_answer_seconds: expected more than 0, got: -5"),
    ],
    ids=[
        "no contact",
        "no uri",
        "two contacts",
        "two wishes",
        "header",
        "code",
        "no refusal",
        "no final",
        "nothing",
        "target",
        "redirect",
        "seconds",
    ],
)
def test_why_a_verdict_is_not_carried_out_is_told(verdict: Callable[[Call], Verdict | None], why: str) -> None:
    with SimulatedEdge(one(verdict)) as edge:
        assert edge.receive(request("INVITE")).status_code == 500
        (failure,) = edge.failures
        assert str(failure["error"]).startswith(why)
        assert failure["call_id"]
