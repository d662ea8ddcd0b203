"""A policy process: `python -m edgeproxy.server.policy_process`, started by the server with its orders on standard input.

The first line in is a `Orders`; the first line out is the list of hooks, or what is wrong with the modules.
"""

import asyncio
import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec
import uvloop

from edgeproxy import _native
from edgeproxy.errors import PolicyError
from edgeproxy.events import make
from edgeproxy.policy.call import Call
from edgeproxy.policy.chain import Chain
from edgeproxy.policy.compiled import place_of, source_of
from edgeproxy.policy.dispatch import Dispatcher, Log, described
from edgeproxy.policy.load import event_names, hooks, load
from edgeproxy.policy.lookup import Lookups
from edgeproxy.policy.values import PolicyValues
from edgeproxy.server import logs, printed
from edgeproxy.server.policy_orders import DRAIN, Counts, Hello, Orders, Told, changed_at

BATCH = 64
"""Questions handled before verdicts leave."""
LOOK_SECONDS = 0.1
"""Between two looks whether a process that drains may end."""
QUIET_LOOKS = 10
"""How many of them must find it idle."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Load the modules, tell what they want, and serve until the server ends or says so."""
    # The server's end must be ours, however it comes about: nobody else would tell us to go.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Whoever signals all of a group means the server, which drains first and then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Unbuffered: what follows the first line is for the loop to read.
    orders = msgspec.json.decode(os.fdopen(0, "rb", 0, closefd=False).readline(), type=Orders)
    # Modules may print, and so may what they start; that must not be taken for our answer.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    printer = logs.LogPrinter(*logs.configure())
    if orders.descriptors:
        printed.take_over(partial(_say, printer, mask=orders.mask_identities))
    try:
        modules = load(orders.modules, Path(orders.directory), Path(orders.cache), orders.places)
        lookups = Lookups(orders.lookups, orders.peer_lookups, orders.trusted, orders.database) if orders.peer_lookups else None
        deadlines, statuses = orders.deadlines, orders.statuses
        if lookups:
            # Before all others: what they find is what those decide on.
            modules.insert(0, (lookups.policy, object()))
            deadlines, statuses = [lookups.deadline_seconds, *deadlines], [500, *statuses]
        found = hooks(modules, deadlines, statuses, orders.kinds)
        hello = Hello(
            hooks=found,
            events=event_names(modules),
            files=_files(Path(orders.directory), [module.module for module in orders.modules], Path(orders.cache)),
        )
    except PolicyError as error:
        hello = Hello(faults=str(error))
    if orders.descriptors and not hello.faults:
        _import_early(orders, list(hello.files))
    out.write(msgspec.json.encode(hello) + b"\n")
    out.flush()
    if hello.faults or not orders.descriptors:
        return
    Call.database = orders.database
    Call.values = PolicyValues(orders.values)
    if os.geteuid() != 0:
        # Under systemd the right to bind low ports is inherited; a policy has no use for it.
        _native.give_up_capabilities()
    # A handler that spins must not hold up the workers, where there is no processor for each.
    # Not an increment: the server that starts us may have become nice itself.
    os.setpriority(os.PRIO_PROCESS, 0, max(orders.nice, os.nice(0)))
    _native.take_short_turns()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _run(runner.get_loop(), _serve(orders, Chain(modules, orders.kinds, statuses), Tally(out, lookups), printer), printer)
    printer.finish()


def _import_early(orders: Orders, files: list[str]) -> None:
    """Import what is heavy before the process is asked anything: its loop is that of all handlers, and the first to ask a service would hold up all."""
    texts = [_bytes(Path(file)) for file in files]
    lookups = orders.lookups.values() if orders.peer_lookups else ()
    if any(b"http_json" in text for text in texts) or any(lookup.url for lookup in lookups):
        # A policy that asks nobody needs no HTTP client, nor the library for databases.
        importlib.import_module("edgeproxy.policy.http")
    if orders.database and (any(b"sql" in text for text in texts) or any(lookup.statement for lookup in lookups)):
        importlib.import_module("edgeproxy.policy.sql").import_driver(orders.database)


def _bytes(file: Path) -> bytes:
    """Return what is in a file; nothing where there is none, such as a build that may come."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _run(loop: asyncio.AbstractEventLoop, serving: Coroutine[Any, Any, None], printer: logs.LogPrinter) -> None:
    """Run a coroutine to its end, whatever ends the loop meanwhile."""
    task = loop.create_task(serving)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            # A task that a handler started wants the process to end: that is not its business, other handlers are at work here.
            printer.event("a task of a policy wanted its process to end, which goes on", level="error", values=described(error))


def _files(directory: Path, names: list[str], cache: Path) -> dict[str, int]:
    """Return the files that the modules are made of: themselves, whatever lies beside the configuration, and builds that may come."""
    places = {name: Path(file) for name, module in list(sys.modules.items()) if (file := getattr(module, "__file__", None))}
    own = [path for name, path in places.items() if name in names or path.is_relative_to(directory)]
    for name in names:
        # What runs may be a build of the source, and what is interpreted may be built by and by.
        if source := source_of(name, directory):
            own += [source, place_of(name, source, cache)]
    return {str(path): changed_at(path) for path in own}


class Tally:
    """Tells the server what came of lookups; where it does not read, it hears less often."""

    def __init__(self, out: IO[bytes], lookups: Lookups | None) -> None:
        self._out = out
        self._lookups = lookups
        self._told = Counts()
        self._rest = b""
        os.set_blocking(out.fileno(), False)

    def tell(self) -> None:
        """Tell what has changed."""
        if self._lookups is None:
            return
        counts = Counts({name: dict(service.counts) for name, service in self._lookups.services.items()})
        if not self._rest and counts != self._told:
            self._rest, self._told = msgspec.json.encode(counts) + b"\n", counts
        with contextlib.suppress(BlockingIOError):
            # A long line may not fit the pipe at once.
            while self._rest:
                self._rest = self._rest[os.write(self._out.fileno(), self._rest) :]


def _say(printer: logs.LogPrinter, event: str, level: str, values: dict[str, object], *, mask: bool) -> None:
    if mask:
        # The trace id stays, by which records and decisions name the call.
        values.pop("call_id", None)
    printer.event(event, level=level, values=values)


class Exchange:
    """Carries questions from the port to the handlers and verdicts back."""

    def __init__(self, port: _native.PolicyPort, chain: Chain, log: Log, workers: int) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._late = False
        self._closed = False
        self._log = log
        self.dispatcher = Dispatcher(chain, self._answer, log, workers)

    def close(self) -> None:
        """Nothing more is said: what handlers do when they are cancelled with the process is no decision on their calls, whose attempts go on."""
        self._closed = True

    def _answer(self, token: bytes, verdict: bytes) -> bool:
        if self._closed:
            return False
        sent = self._port.answer(token, verdict)
        # A verdict that comes out of a task leaves with the next turn of the loop, together with its like.
        if not self._late:
            self._late = True
            self._loop.call_soon(self._flush)
        return sent

    def _flush(self) -> None:
        self._late = False
        self._port.flush()

    def ready(self) -> None:
        """A worker rang."""
        self._port.answer_bell()
        self.take()

    def take(self) -> None:
        """Handle a batch, and go on later where there is more."""
        questions = self._port.take(BATCH)
        self._late = True
        try:
            for question in questions:
                try:
                    self.dispatcher.handle(question)
                except BaseException as error:
                    # A fault of ours, or what a policy raises where we look at it, costs its own request alone: those behind it are taken from the ring already.
                    self._log("fault in the policy process", described(error))
        finally:
            self._flush()
            # More of them wait their turn behind timers and handlers that go on.
            if len(questions) == BATCH or self._port.rest():
                self._loop.call_soon(self.take)


def tell_unseen_faults(log: Log) -> None:
    """Have one line of the log for each task and thread of a policy that fails where nobody waits for it."""
    loop = asyncio.get_running_loop()

    def fault(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        log(
            "a task of a policy failed",
            described(error) if isinstance(error, BaseException) else {"error": str(context.get("message", ""))},
        )

    def thread_fault(args: threading.ExceptHookArgs) -> None:
        # The log is the loop's; a thread may end after it.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(fault, loop, {"exception": args.exc_value})

    loop.set_exception_handler(fault)
    threading.excepthook = thread_fault


async def _serve(orders: Orders, chain: Chain, tally: Tally, printer: logs.LogPrinter) -> None:
    loop = asyncio.get_running_loop()
    port = _native.PolicyPort(orders.descriptors)
    stop, draining = asyncio.Event(), asyncio.Event()

    def log(event: str, values: dict[str, object]) -> None:
        _say(printer, event, "error", values, mask=orders.mask_identities)

    tell_unseen_faults(log)
    # Memory, our bell, and a bell for each worker.
    exchange = Exchange(port, chain, log, len(orders.descriptors) - 2)

    async def beat() -> None:
        while True:
            port.beat()
            printer.drain()
            exchange.dispatcher.forget_lost()
            tally.tell()
            await asyncio.sleep(orders.heartbeat_seconds / 4)

    rest = bytearray()

    def word() -> None:
        """The server tells of events, or that it ends."""
        data = os.read(0, 65_536)
        if not data:
            loop.remove_reader(0)
            stop.set()
            return
        rest.extend(data)
        *lines, last = rest.split(b"\n")
        rest[:] = last
        for line in lines:
            told = msgspec.json.decode(line, type=Told)
            if told.name == DRAIN:
                draining.set()
                continue
            exchange.dispatcher.event(make(told.name, told.at, told.values))

    async def drain() -> None:
        """End once no handler runs and none has for a while: a worker that is busy may still ask."""
        await draining.wait()
        quiet = 0
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            quiet = quiet + 1 if exchange.dispatcher.is_idle else 0
        stop.set()

    loop.add_reader(port.fileno(), exchange.ready)
    loop.add_reader(0, word)
    tasks = [asyncio.create_task(work) for work in (beat(), drain())]
    exchange.take()
    await stop.wait()
    exchange.close()
    for task in tasks:
        task.cancel()
    await Call.values.close()
    for name in ("edgeproxy.policy.http", "edgeproxy.policy.sql"):
        if name in sys.modules:
            await sys.modules[name].close()


if __name__ == "__main__":
    main()
