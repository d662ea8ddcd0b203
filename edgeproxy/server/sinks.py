"""Who is told of events outside: the sinks of the file, and those that operators added for a while."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from edgeproxy.errors import ConfigError
from edgeproxy.events import Bus
from edgeproxy.events.delivery import Delivery
from edgeproxy.events.sink import Sink
from edgeproxy.events.transport import missing_extra

STOP_SECONDS = 2.0
"""How long what waits may still be told at the end."""
Log = Callable[..., object]


class Sinks:
    """The deliveries of a running proxy."""

    def __init__(self, bus: Bus, log: Log) -> None:
        self._bus = bus
        self._log = log
        self._node = ""
        self._running: dict[str, tuple[Delivery, int]] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        """The ends of those that were added at run time."""
        self._past = {"told": 0, "failed": 0, "dropped": 0}
        self._ending: dict[asyncio.Task[None], Delivery] = {}

    def use(self, sinks: Mapping[str, Sink], node: str) -> None:
        """Tell those of a configuration; one that is as before goes on, and so do those of operators."""
        self._node = node
        for name in list(self._running):
            if name not in self._expiries and (name not in sinks or sinks[name] != self._running[name][0].sink):
                self._end(name)
        for name, sink in sinks.items():
            if name in self._expiries:
                # The file has it now.
                self.remove(name)
            if name not in self._running:
                self._begin(name, sink)

    def _begin(self, name: str, sink: Sink) -> None:
        delivery = Delivery(name, sink, self._node, self._log)
        self._running[name] = (delivery, self._bus.subscribe(sink.names, delivery.take, f"sink {name}"))

    def _end(self, name: str) -> None:
        delivery, number = self._running.pop(name)
        self._bus.unsubscribe(number)
        task = asyncio.create_task(delivery.stop(STOP_SECONDS))
        self._ending[task] = delivery
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        delivery = self._ending.pop(task)
        for key in self._past:
            self._past[key] += getattr(delivery, key)

    def add(self, name: str, sink: Sink, seconds: float) -> None:
        """Tell one more for so many seconds, or go on telling it; raise `ConfigError` where that cannot be."""
        if name in self._running and name not in self._expiries:
            raise ConfigError(f"events.sink.{name} is one of the file")
        if sink.command:
            # Whoever may use the API is not thereby somebody who may run programs here.
            raise ConfigError("only the file can name a command")
        if sink.place.scheme in {"file", "unix"}:
            # What is told comes from the network in part: it must not be written wherever somebody likes.
            raise ConfigError("only the file can name a place of this machine's file system")
        if fault := sink.problem():
            raise ConfigError(f"{fault[0]}: {fault[1]}" + (f"\nhint: {fault[2]}" if fault[2] else ""))
        if extra := missing_extra(sink):
            raise ConfigError(f"{sink.place.scheme} needs the extra {extra}: pip install edgeproxy[{extra}]")
        if name in self._running and self._running[name][0].sink != sink:
            self._end(name)
        if name not in self._running:
            self._begin(name, sink)
        if name in self._expiries:
            self._expiries[name].cancel()
        self._expiries[name] = asyncio.get_running_loop().call_later(seconds, self._expire, name)

    def remove(self, name: str) -> None:
        """Tell one that was added no more; raise `ConfigError` where there is none."""
        if name not in self._expiries:
            raise ConfigError(f"no sink {name} was added at run time")
        self._expiries.pop(name).cancel()
        self._end(name)

    def _expire(self, name: str) -> None:
        self.remove(name)
        self._log("a sink's time is over", values={"sink": name})

    async def stop(self) -> None:
        """Tell what waits, and end all."""
        for name in list(self._expiries):
            self.remove(name)
        for name in list(self._running):
            self._end(name)
        await asyncio.gather(*self._ending)

    def status(self) -> list[dict[str, Any]]:
        """Return what is known of each."""
        now = asyncio.get_running_loop().time()
        return [
            {
                "name": name,
                "to": delivery.sink.shown,
                "events": delivery.sink.events,
                "expires_in": round(self._expiries[name].when() - now) if name in self._expiries else None,
                "waiting": delivery.waiting,
                "told": delivery.told,
                "failed": delivery.failed,
                "dropped": delivery.dropped,
                "problem": delivery.problem,
            }
            for name, (delivery, _) in sorted(self._running.items())
        ]

    def counters(self) -> dict[str, int]:
        """Return what came of deliveries to all, those that have ended among them."""
        running = [delivery for delivery, _ in self._running.values()] + list(self._ending.values())
        return {f"sink_{key}": past + sum(getattr(delivery, key) for delivery in running) for key, past in self._past.items()}
