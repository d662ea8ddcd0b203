"""What the server itself has to say on the bus, and the way of native events onto it."""

import asyncio
import os
import time

from edgeproxy import _native
from edgeproxy.config import Loaded
from edgeproxy.events import IDENTIFYING, Bus, CoreLog, CoreStatusChanged, Event, from_engine, name_of
from edgeproxy.server.logs import LogPrinter
from edgeproxy.server.policies import Policies
from edgeproxy.server.readable import readable

ROUND_SECONDS = 0.1
"""How long native events gather while more come: the first one is published at once."""
MOST = 2_048
"""Events taken at once: more wait, and what finds no place to wait is counted."""


class Announcer:
    """The bus of a running proxy with its standing listeners: the log and the policies."""

    def __init__(self, printer: LogPrinter) -> None:
        self._printer = printer
        self._engine: _native.Engine | None = None
        self._names: list[str] = []
        self.bus = Bus(self._listen)
        self._standing: list[int] = []
        self._states: dict[str, int] = {}
        self._masks = False

    def _listen(self, names: list[str]) -> None:
        self._names = names
        # Lines of the log become events only where somebody wants them.
        self._printer.listener = self._log_line if "E_CORE_LOG" in names else None
        if self._engine:
            self._engine.listen(names)

    def attach(self, engine: _native.Engine) -> None:
        """Take the events of `engine` from now on."""
        self._engine = engine
        engine.listen(self._names)

    def stand(self, loaded: Loaded, policies: Policies) -> None:
        """Let the log and the policies listen as the configuration says, instead of as the last one said."""
        last, self._standing = self._standing, []
        self._masks = loaded.config.log.mask_identities
        if names := loaded.config.events.log:
            self._standing.append(self.bus.subscribe(names, self._to_log, "log"))
        if names := policies.events:
            self._standing.append(self.bus.subscribe(names, policies.tell, "policies"))
        for number in last:
            self.bus.unsubscribe(number)

    def _to_log(self, event: Event) -> bool:
        parameters = event.parameters()
        if self._masks:
            named = parameters if name_of(event).startswith("X_") else IDENTIFYING & parameters.keys()
            parameters |= {name: "(masked)" for name in named if isinstance(parameters[name], str)}
        self._printer.event(name_of(event), values={"at": event.time_text, "parameters": parameters})
        return True

    def _log_line(self, time_text: str, level: str, part: str, message: str) -> None:
        at = time.time_ns() // 1_000
        self.bus.publish(CoreLog(at=at, time=time_text, pid=os.getpid(), level=level, module=part, function="", prefix="", message=message))

    def state(self, identifier: str, status: int, details: str) -> None:
        """Tell that a part of the proxy is ready, or no more, where that is news."""
        old = self._states.get(identifier, 0)
        self._states[identifier] = status
        if old != status and self.bus.listens("E_CORE_SR_STATUS_CHANGED"):
            at = time.time_ns() // 1_000
            self.bus.publish(
                CoreStatusChanged(at=at, group="edgeproxy", identifier=identifier, status=status, details=details, old_status=old)
            )

    @property
    def states(self) -> dict[str, int]:
        """How each part does: negative is not ready."""
        return dict(self._states)

    def pump(self) -> int:
        """Publish native events that came; return how many."""
        if self._engine is None:
            return 0
        taken = self._engine.take_events(MOST)
        for name, wall, values in taken:
            self.bus.publish(from_engine(name, wall, values))
        return len(taken)

    async def run(self, engine: _native.Engine) -> None:
        """Publish the native events of `engine` as they come."""
        while True:
            while self.pump() == MOST:
                await asyncio.sleep(0)
            await asyncio.sleep(ROUND_SECONDS)
            await readable(engine.event_descriptor())
