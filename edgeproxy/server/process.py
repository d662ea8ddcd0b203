"""The life of the server process: start, serve, drain, stop."""

import asyncio
import signal
import sys

import uvloop

from edgeproxy import _native
from edgeproxy.config import Loaded, to_document
from edgeproxy.server import logs
from edgeproxy.server.check import check_world
from edgeproxy.server.notify import notify
from edgeproxy.server.policies import Policies


def run(loaded: Loaded) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the drain at once.

    Raise `ConfigError`, `PolicyError`, `BindError` or `EngineError` where it cannot start.
    """
    check_world(loaded)
    logs.configure()
    _native.set_log_level(loaded.config.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(loaded))


async def _serve(loaded: Loaded) -> None:
    printer = logs.LogPrinter()
    loop = asyncio.get_running_loop()
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    policies = Policies(loaded, printer.event)
    hooks = await policies.start()
    try:
        engine = _native.Engine(to_document(loaded.config, hooks), policies.links)
    except BaseException:
        await policies.stop()
        raise
    policies.watch(engine)
    loop.add_signal_handler(signal.SIGUSR1, lambda: printer.event("counters", values=engine.counters()))
    printing = asyncio.create_task(_print_logs(printer))
    try:
        printer.event("serving", values={"listeners": [listener.address for listener in loaded.config.install.listener.values()]})
        print("ready", flush=True)
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        await _drain(engine, printer, stop_now)
    finally:
        await policies.stop()
        await asyncio.to_thread(engine.stop)
        printing.cancel()
        printer.event("stopped", values=engine.counters())
        printer.drain()
        sys.stderr.flush()


async def _drain(engine: _native.Engine, printer: logs.LogPrinter, stop_now: asyncio.Event) -> None:
    """Refuse new calls and wait for those that are live, as long as the configuration allows."""
    printer.event("draining", values={"at_most_seconds": engine.drain_seconds})
    engine.drain()
    deadline = asyncio.get_running_loop().time() + engine.drain_seconds
    while not engine.is_drained() and asyncio.get_running_loop().time() < deadline and not stop_now.is_set():
        await asyncio.sleep(0.1)


async def _print_logs(printer: logs.LogPrinter) -> None:
    while True:
        printer.drain()
        await asyncio.sleep(logs.ROUND_SECONDS)
