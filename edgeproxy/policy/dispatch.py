"""Questions in, verdicts out: runs handlers so that none of them can lose a request."""

import asyncio
import sysconfig
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path

import msgspec

import edgeproxy.errors
from edgeproxy.errors import CallEnded, PolicyError
from edgeproxy.events import Event, name_of
from edgeproxy.policy import at_hand
from edgeproxy.policy.call import Call
from edgeproxy.policy.chain import Chain, checked
from edgeproxy.policy.originate import Originator
from edgeproxy.policy.parts import Branch, ChosenRule, Part, PassingResponse
from edgeproxy.policy.step import Resumed, start
from edgeproxy.policy.verdict import CONTINUE, PLAIN_CONTINUE, Verdict, failed
from edgeproxy.sip import Question, Request

LONGEST_SECONDS = 3_700.0
"""No request is under way for longer: `setup_seconds` is an hour at most."""
MOST_BACKGROUND = 10_000
"""Handlers of ends and events that wait for something."""
MOST_FAULT_CHARACTERS = 2_000
"""Of the text of an exception, for the log."""
MOST_PARTS = 5
"""Of a group of exceptions, for the log."""
_LIBRARIES = (
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
    sysconfig.get_path("platlib"),
    str(Path(edgeproxy.errors.__file__).parent),
)
"""Where code lies that no integrator wrote."""
Log = Callable[[str, dict[str, object]], None]
Later = Callable[..., object]
"""Takes seconds, a function and its arguments, as `call_later` of a loop does; a test has its own time."""


class Dispatcher:
    """Runs the chain for each question; `send` takes a token and a verdict, and is false where there is no room."""

    def __init__(self, chain: Chain, send: Callable[[bytes, bytes], bool], log: Log, workers: int = 1, later: Later | None = None) -> None:
        self._chain = chain
        self._send = send
        self._log = log
        self._later = later
        self._originator = Originator(send, workers)
        for policy in chain.policies:
            policy.originator = self._originator
        self._running: dict[bytes, tuple[Call, asyncio.Task[object], float]] = {}
        self._background: dict[asyncio.Task[object], dict[str, object]] = {}
        """With what a line of the log says of each."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.handled = 0
        self.failures = 0

    @property
    def is_idle(self) -> bool:
        """Whether no handler waits for anything."""
        return not self._running and not self._background and self._originator.is_idle

    def forget_lost(self, seconds: float = LONGEST_SECONDS) -> None:
        """End handlers whose request must be over: the word of its end may have found no room in the queue.

        One whose call was answered may go on as long as it wants.
        """
        now = time.monotonic()
        for key, (call, task, since) in list(self._running.items()):
            if now - since > seconds and call.ended_with is None:
                self._running.pop(key)
                call.ended(0)
                task.cancel()

    def handle(self, question: Question) -> None:
        """Take one question; its verdict is sent now or when its handler is done."""
        if request := question.request:
            self._ask(question, request)
            return
        event = question.event
        if event == "final":
            self._tell(question)
        elif event == "answer":
            self._originator.answered(question)
        elif found := self._running.get(question.key):
            call, task, _ = found
            if event == "failed":
                call.learn(question.variables)
                call.failed(question.token, question.status_code, question.target, question.message)
                if then := call.then:
                    self._running.pop(question.key)
                    then()
            else:
                call.ended(question.status_code, question.message)
                if task.done():
                    # What it decided while its attempts were under way comes too late.
                    self._running.pop(question.key)
                elif isinstance(call, Part) or not 200 <= question.status_code < 300:
                    self._running.pop(question.key)
                    task.cancel()

    def _ask(self, question: Question, request: Request) -> None:
        if question.is_late:
            # A process that has more to do than it can would else spend its time on verdicts that come too late, those
            # behind them included. The worker does at the deadline what the configuration says.
            return
        event = question.event
        call = self._object(event, question, request)
        if variables := question.variables:
            call.learn(variables)
        loop = self._loop or self._running_loop()
        self.handled += 1
        at_hand.call = call
        try:
            verdict, task = self._chain.start(call, loop, event)
        except BaseException as error:
            # A policy may raise anything; what it raises must not end the round of others' questions.
            self._failed(call, error)
            return
        finally:
            at_hand.call = None
        if task is None:
            self._decide(call, verdict)
            return
        if isinstance(coroutine := task.get_coro(), Resumed):
            coroutine.seen.call, coroutine.seen.after_step = call, call.keep_what_came_after
        key = question.key
        self._running[key] = (call, task, time.monotonic())
        if isinstance(call, Branch | ChosenRule | PassingResponse):
            # Nobody tells of its end but the deadline.
            (self._later or loop.call_later)(question.deadline_seconds, _end_part, call, task)
        task.add_done_callback(lambda task: self._done(key, call, task))

    def _object(self, event: str, question: Question, request: Request) -> Call:
        """Return what the handlers of a hook take."""
        if event == "request":
            # First, since nearly all are.
            return Call(request, question.token, self._send)
        if event == "branch":
            return Branch(request, question.token, self._send, question.target, question.status_code)
        if event == "route":
            return ChosenRule(request, question.token, self._send, question.target)
        if event == "response":
            return PassingResponse(request, question.token, self._send, question.target, question.status_code)
        call = Call(request, question.token, self._send)
        call.failed_with = question.status_code
        return call

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _done(self, key: bytes, call: Call, task: asyncio.Task[object]) -> None:
        running = self._running.pop(key, None)
        if call.ended_with is not None:
            self._done_late(call, task)
        elif running and call.ends_attempts_for(lambda: self._conclude(call, task)):
            # It decided without waiting for its attempts: the engine ends them first.
            self._running[key] = running
        else:
            self._conclude(call, task)

    def _done_late(self, call: Call, task: asyncio.Task[object]) -> None:
        """A handler is done whose request is over."""
        if not task.cancelled() and (error := task.exception()) and not _is_end(error):
            self._failed(call, error)
            return
        try:
            call.keep()
        except Exception as nonsense:
            # Values of any type may stand in notes and variables.
            self._failed(call, nonsense)

    def _conclude(self, call: Call, task: asyncio.Task[object]) -> None:
        """A handler is done, and nothing of its request is under way."""
        error = CallEnded(0) if task.cancelled() else task.exception()
        if error:
            self._failed(call, error)
            return
        try:
            self._decide(call, checked(task.result(), task.get_coro()))
        except PolicyError as nonsense:
            self._failed(call, nonsense)

    def _decide(self, call: Call, verdict: Verdict) -> None:
        if verdict is CONTINUE and call.is_plain:
            self._send(call.token, PLAIN_CONTINUE)
            return
        try:
            encoded = call.encoded(verdict)
        except Exception as error:
            # Values of any type or size may stand in a verdict.
            self._failed(call, error)
            return
        self._send(call.token, encoded)

    def _failed(self, call: Call, error: BaseException) -> None:
        self.failures += 1
        if call.ended_with is None:
            self._send(call.token, failed(self._chain.failed_status(call)))
        self._log("a policy failed", {"call_id": call.call_id, "trace_id": call.trace_id, **described(error)})

    def _tell(self, question: Question) -> None:
        try:
            record = msgspec.json.decode(question.message, type=dict[str, object])
        except msgspec.DecodeError as error:
            self.failures += 1
            self._log("a record cannot be read", described(error))
            return
        named = {name: record.get(name, "") for name in ("call_id", "trace_id")}
        for hook, options in self._chain.handlers("final", "INVITE", str(record.get("from_peer", ""))):
            try:
                made = hook.handler(record, options) if hook.takes_options else hook.handler(record)
                if isinstance(made, Coroutine):
                    self._start_background(made, named)
            except BaseException as error:
                # The others are told all the same.
                self.failures += 1
                self._log("a policy failed at the end of a call", {**named, **described(error)})

    def _start_background(self, made: Coroutine[object, object, object], named: dict[str, object]) -> None:
        """Run a handler that nobody waits for, unless too many run already."""
        if len(self._background) >= MOST_BACKGROUND:
            made.close()
            self._log("too many handlers of ends and events wait: one is left out", dict(named))
            return
        _, task = start(made, asyncio.get_running_loop())
        if task:
            self._background[task] = named
            task.add_done_callback(self._told)

    def event(self, event: Event) -> None:
        """Tell handlers of an event."""
        for hook, options in self._chain.event_handlers(name_of(event)):
            try:
                made = hook.handler(event, options) if hook.takes_options else hook.handler(event)
                if isinstance(made, Coroutine):
                    self._start_background(made, {"on": name_of(event)})
            except BaseException as error:
                self.failures += 1
                self._log("a policy failed at an event", described(error))

    def _told(self, task: asyncio.Task[object]) -> None:
        named = self._background.pop(task, {})
        if not task.cancelled() and (error := task.exception()):
            self.failures += 1
            self._log("a policy failed after the fact", {**named, **described(error)})


def _end_part(call: Call, task: asyncio.Task[object]) -> None:
    """The engine waits no longer for a verdict on a part of a request, and has told so."""
    if not task.done():
        call.ended(0)
        task.cancel()


def _is_end(error: BaseException) -> bool:
    """Whether it says nothing but that the call is over; a task group hands on in a group what its own body is ended by."""
    return isinstance(error, BaseExceptionGroup) and error.split(asyncio.CancelledError)[1] is None


def _place(error: BaseException) -> str:
    """Return file and line of an exception: the last within what the integrator wrote, not in a library that he called."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)] or frames
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


def _leaves(error: BaseException) -> list[BaseException]:
    """Return what a group is made of, as far as a line of the log has room for it."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions[:MOST_PARTS] for leaf in _leaves(part)][:MOST_PARTS]


def described(error: BaseException) -> dict[str, object]:
    """Return what a log line says of an exception: its text, those of what a group is made of, and where the integrator's code raised it."""
    leaves = _leaves(error)
    told = leaves if leaves[0] is error else [error, *leaves]
    return {"error": "; ".join(_text(one) for one in told), "at": _place(leaves[0])}


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = "(its text cannot be had)"
    if len(text) > MOST_FAULT_CHARACTERS:
        text = f"{text[:MOST_FAULT_CHARACTERS]}... ({len(text)} characters)"
    return f"{type(error).__name__}: {text}"
