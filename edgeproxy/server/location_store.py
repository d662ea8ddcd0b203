"""Bindings on their way to the database and back: written behind, taken over at start."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any

from edgeproxy import _native
from edgeproxy.errors import RowRefused, StorageError
from edgeproxy.server.readable import readable

if TYPE_CHECKING:
    from edgeproxy.config.registrar import Registrar
    from edgeproxy.storage.location import LocationTable

Log = Callable[..., None]
State = Callable[[int, str], None]
ROUND_SECONDS = 0.5
"""How often the engine is asked for what is to be written, while it has any; it has that ready as often as the file says."""
QUIET_SECONDS = 5.0
"""How long at most nobody looks: a reload may leave something to be written, and what is over is swept."""
MOST = 5_000
"""Rows of one transaction."""
SWEEP_SECONDS = 600.0
"""How often rows are removed whose time is over: those that a crash or a full queue left behind."""
ANSWER_SECONDS = 20.0
"""Longest time for one transaction: a database that hangs is one that is gone."""
FINISH_SECONDS = 60.0
"""Longest time for the rest at the end."""
_PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Pauses after failures in a row."""


def canonical(registrar: "Registrar", user: str, domain: str) -> tuple[str, str]:
    """Return user and domain as the engine has them. Where domains do not count OpenSIPS leaves them out: it is the first one then."""
    first = registrar.domains[0] if registrar.domains else ""
    domain = (domain or first).lower()
    return user if registrar.is_case_sensitive(domain) else user.lower(), domain


def _age(binding: dict[str, Any]) -> tuple[int, int]:
    return binding["modified"], binding["cseq"]


async def _in_time(work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await work
    except TimeoutError:
        raise StorageError(f"location: the database did not answer within {ANSWER_SECONDS:.0f} s") from None


class LocationStore:
    """Writes what an engine has to the table `location`."""

    def __init__(self, log: Log, state: State) -> None:
        self._log = log
        self._state = state
        self._table: LocationTable | None = None
        self._waiting: dict[int, _native.BindingRow | None] = {}
        """What could not be written yet, by number: a row, or none where that is to go."""
        self._missed: set[int] = set()
        """What was to be removed when writing was switched off, by number: it is still in the table."""
        self._gone: list[int] = []
        """Rows of another registrar that are older ones of the same bindings, to be removed once we serve."""
        self._foreign: list[tuple[int, int]] = []
        """Others of its, by its number and ours, to be renumbered then: a start that fails has changed nothing."""
        self._swept = time.monotonic()
        self.problem = ""
        """Why the last write failed; empty where it did not."""
        self.written = 0
        self.refused = 0
        """Rows that the database did not take."""

    def use(self, table: "LocationTable | None") -> None:
        """Write to `table` from now on; to none where bindings are kept in memory only, or may not be written."""
        if table is None:
            self._missed |= {number for number, row in self._waiting.items() if row is None}
        elif self._missed:
            self._waiting |= dict.fromkeys(self._missed)
            self._missed.clear()
        self._table = table

    async def restore(
        self, table: "LocationTable", registrar: "Registrar", domains: Collection[str], *, writable: bool
    ) -> list[_native.BindingRow]:
        """Return the bindings in these domains that have not ended; raise `StorageError`.

        Rows of another registrar get our numbers once they are written to, but for those of other domains, which may be another one's still.
        """
        started = time.monotonic()
        self._log("bindings are read")
        kept: dict[int, tuple[int, dict[str, Any]]] = {}
        gone: list[int] = []
        served, elsewhere = {domain.lower() for domain in domains}, 0
        async for binding in table.read(int(time.time())):
            user, domain = canonical(registrar, binding["user"], binding["domain"])
            if domain not in served:
                elsewhere += 1
                continue
            old, number = (
                binding["contact_id"],
                _native.contact_id(user, domain, binding["contact"], binding["instance"], binding["reg_id"]),
            )
            binding |= {"user": user, "domain": domain, "contact_id": number}
            if number != old:
                # We have a place of each; others note one for those behind a NAT only.
                binding["natted"] |= bool(binding["received"])
            if number in kept and _age(kept[number][1]) >= _age(binding):
                gone.append(old)
                continue
            if number in kept:
                gone.append(kept[number][0])
            kept[number] = (old, binding)
        foreign = [(old, number) for number, (old, _) in kept.items() if number != old]
        if writable:
            self._foreign, self._gone = foreign, gone
        values: dict[str, Any] = {
            "bindings": len(kept),
            "of_another_registrar": len(foreign),
            "in_domains_not_served": elsewhere,
            "seconds": round(time.monotonic() - started, 2),
        }
        self._log("bindings taken over", values=values)
        return [_native.BindingRow(**binding) for _, binding in kept.values()]

    async def run(self, engine: _native.Engine) -> None:
        """Write what comes, until cancelled."""
        failures = 0
        while True:
            try:
                while await self.write(engine):
                    pass
                failures = 0
            except Exception as error:
                # Whatever it is: bindings are written again once it is over.
                self._failed(str(error) if isinstance(error, StorageError) else f"{type(error).__name__}: {error}")
                failures += 1
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1] if failures else ROUND_SECONDS)
            if not failures:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_SECONDS):
                        await readable(engine.location_descriptor())

    def _failed(self, problem: str) -> None:
        if not self.problem:
            self._log("bindings not written", level="error", values={"problem": problem, "waiting": len(self._waiting)})
        self.problem = problem
        self._state(-1, "location: the database takes nothing")

    async def write(self, engine: _native.Engine) -> bool:
        """Write what waits; return whether there may be more. Raise `StorageError`: then it waits for the next time."""
        table = self._table
        if table is not None and (self._gone or self._foreign):
            # First: what is written from now on has our numbers.
            await self._renumber(table)
            return True
        if not self._waiting:
            # Of several writes of one binding the last counts.
            self._waiting = dict(engine.location_writes(MOST))
        if table is None:
            more, self._waiting = bool(self._waiting), {}
            return more
        if self._waiting:
            await _in_time(self._put(table, self._waiting))
            if self.problem:
                self._log("bindings are written again", values={"waited": len(self._waiting)})
            self._waiting = {}
            self.problem = ""
            self._state(1, "location: written")
            return True
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            await _in_time(table.sweep(int(time.time()) - 60))
        return False

    async def _renumber(self, table: "LocationTable") -> None:
        if self._gone:
            await _in_time(table.rename([], self._gone[:MOST]))
            del self._gone[:MOST]
        else:
            await _in_time(table.rename(self._foreign[:MOST], []))
            del self._foreign[:MOST]

    async def _put(self, table: "LocationTable", part: dict[int, "_native.BindingRow | None"]) -> None:
        """Write `part`; where the database refuses a row of it, halves of it, down to that row. Raise `StorageError` where it takes nothing."""
        try:
            await table.write([row for row in part.values() if row is not None], [number for number, row in part.items() if row is None])
        except RowRefused as error:
            if len(part) <= 1:
                row = next(iter(part.values()))
                with contextlib.suppress(RowRefused):
                    # What a phone says of itself must not cost it its binding: some databases do not take every character.
                    if row is not None:
                        await table.write([row], [], plain=True)
                        self.written += 1
                        return
                self.refused += 1
                self._log("a binding cannot be written", level="error", values={"contact_id": next(iter(part)), "problem": str(error)})
                return
            numbers = list(part)
            for half in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
                await self._put(table, {number: part[number] for number in half})
        else:
            self.written += len(part)

    async def finish(self, engine: _native.Engine) -> None:
        """Write the rest, once the workers have ended."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                while await self.write(engine):
                    pass
        except (StorageError, TimeoutError) as error:
            self._log("bindings not written", level="error", values={"problem": str(error), "waiting": len(self._waiting)})

    def status(self) -> dict[str, Any]:
        """Return how writing does."""
        state = "off" if self._table is None else "behind" if self.problem else "ready"
        return {"state": state, "problem": self.problem, "written": self.written, "refused": self.refused, "waiting": len(self._waiting)}
