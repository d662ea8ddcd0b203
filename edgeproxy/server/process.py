"""The life of the server process: start, serve, drain, stop."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType

import uvloop

from edgeproxy import _native
from edgeproxy.config import Loaded
from edgeproxy.errors import EdgeProxyError
from edgeproxy.server import logs
from edgeproxy.server.check import check_addresses
from edgeproxy.server.control import Control
from edgeproxy.server.log_writer import hold_standard_descriptors
from edgeproxy.server.notify import notify
from edgeproxy.server.privileges import become_user
from edgeproxy.server.state_lock import held_alone

_GIVE_UP_SECONDS = 5.0
"""How long a start that is given up may take to put away what it has."""
Management = Callable[[Control], AbstractAsyncContextManager[None]]


def run(loaded: Loaded, management: Management) -> None:
    """Serve until SIGTERM or SIGINT, with `management` beside the engine; a second signal ends the drain at once.

    Raise `ConfigError`, `PolicyError`, `BindError` or `EngineError` where it cannot start.
    """
    hold_standard_descriptors()
    check_addresses(loaded)
    become_user(loaded)
    printer = logs.LogPrinter(*logs.configure())
    _native.set_log_level(loaded.config.log.level)
    state = Path(loaded.config.install.state_directory)
    # Before anything there is read or written: it is that of the other one, where there is another.
    with held_alone(state), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(loaded, management, printer))


async def _serve(loaded: Loaded, management: Management, printer: logs.LogPrinter) -> None:
    loop = asyncio.get_running_loop()
    control = Control(loaded, printer)
    control.standing.watch(loop)
    stop_now = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def on_end() -> None:
        if control.draining.is_set():
            stop_now.set()
        else:
            control.drain()

    def on_reload() -> None:
        task = loop.create_task(_reload(control))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        _handle(number, on_end)
    for number in (signal.SIGUSR1, signal.SIGHUP):
        # While it starts there is nothing to tell or to reload; they must not end it.
        _handle(number, lambda: None)
    if not await _started(control):
        return
    _handle(signal.SIGUSR1, lambda: printer.event("counters", values=control.counters()))
    _handle(signal.SIGHUP, on_reload)
    control.standing.run(printer.run)
    control.standing.run(lambda: control.announcer.run(control.engine))
    try:
        async with management(control):
            control.serves()
            printer.event("serving", values={"listeners": [listener.address for listener in loaded.config.install.listener.values()]})
            with contextlib.suppress(OSError):
                # Whoever started us may have closed it, or given us a disk that is full.
                os.write(1, b"ready\n")
            _notify(printer, "READY=1")
            await control.draining.wait()
            _notify(printer, "STOPPING=1")
            await _drain(control, stop_now)
    finally:
        control.announcer.pump()
        control.standing.stop()
        await control.stop()
        printer.event("stopped", values=control.counters())
        printer.finish()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            # All is put away: a signal in the last moments must not make a failure of a clean end.
            signal.signal(number, signal.SIG_IGN)


async def _started(control: Control) -> bool:
    """Start; false where whoever waits for a database, say, is told to end meanwhile."""
    starting, ended = asyncio.create_task(control.start()), asyncio.create_task(control.draining.wait())
    await asyncio.wait((starting, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if starting.done():
        await starting
        return True
    starting.cancel()
    await asyncio.wait((starting,), timeout=_GIVE_UP_SECONDS)
    control.printer.event("ended before it served")
    control.printer.finish()
    return False


def _handle(number: signal.Signals, work: Callable[[], None]) -> None:
    """Let the loop do `work` at each signal.

    Not by the loop's own handlers: taking one of those away leaves a moment in which the signal ends the process.
    """
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(work)

    signal.signal(number, on_signal)
    signal.siginterrupt(number, False)


def _notify(printer: logs.LogPrinter, state: str) -> None:
    """Tell the service manager; one that is gone must not take the proxy with it."""
    try:
        notify(state)
    except OSError as error:
        values = {"socket": os.environ.get("NOTIFY_SOCKET"), "error": str(error)}
        printer.event("the service manager cannot be told", level="error", values=values)


async def _reload(control: Control) -> None:
    """SIGHUP: apply the file of the start as it is now."""
    try:
        await control.reload(control.read())
    except EdgeProxyError as error:
        control.printer.event("reload refused", level="error", values={"error": str(error)})


async def _drain(control: Control, stop_now: asyncio.Event) -> None:
    """Refuse new calls and wait for those that are live, as long as the configuration allows."""
    engine, seconds = control.engine, control.loaded.config.install.drain_seconds
    control.printer.event("draining", values={"at_most_seconds": seconds})
    engine.drain()
    deadline = asyncio.get_running_loop().time() + seconds
    while not engine.is_drained() and asyncio.get_running_loop().time() < deadline and not stop_now.is_set():
        await asyncio.sleep(0.1)
