"""Bindings on their way to the database and back: written behind, taken over at start."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgeproxy import _native
from edgeproxy.errors import RowRefused, StorageError

if TYPE_CHECKING:
    from edgeproxy.storage.location import LocationTable

Log = Callable[..., None]
State = Callable[[int, str], None]
ROUND_SECONDS = 0.5
"""How often the engine is asked for what is to be written; it has that ready as often as the file says."""
MOST = 5_000
"""Rows of one transaction."""
SWEEP_SECONDS = 600.0
"""How often rows are removed whose time is over: those that a crash or a full queue left behind."""
FINISH_SECONDS = 60.0
"""Longest time for the rest at the end."""
_PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Pauses after failures in a row."""


class LocationStore:
    """Writes what an engine has to the table `location`."""

    def __init__(self, log: Log, state: State) -> None:
        self._log = log
        self._state = state
        self._table: LocationTable | None = None
        self._waiting: dict[int, _native.BindingRow | None] = {}
        """What could not be written yet, by number: a row, or none where that is to go."""
        self._swept = time.monotonic()
        self.problem = ""
        """Why the last write failed; empty where it did not."""
        self.written = 0
        self.refused = 0
        """Rows that the database did not take."""

    def use(self, table: "LocationTable | None") -> None:
        """Write to `table` from now on; to none where bindings are kept in memory only, or may not be written."""
        self._table = table

    async def restore(self, table: "LocationTable", *, writable: bool) -> list[_native.BindingRow]:
        """Return the bindings that have not ended; raise `StorageError`. Rows of another registrar get our numbers."""
        started, rows, foreign = time.monotonic(), [], []
        async for binding in table.read(int(time.time())):
            number = _native.contact_id(binding["user"], binding["domain"], binding["contact"], binding["instance"], binding["reg_id"])
            if number != binding["contact_id"]:
                foreign.append((binding["contact_id"], number))
                binding["contact_id"] = number
                # We have a place of each; others note one for those behind a NAT only.
                binding["natted"] |= bool(binding["received"])
            rows.append(_native.BindingRow(**binding))
        if foreign and writable:
            await table.rename(foreign)
        values: dict[str, Any] = {
            "bindings": len(rows),
            "of_another_registrar": len(foreign),
            "seconds": round(time.monotonic() - started, 2),
        }
        self._log("bindings taken over", values=values)
        return rows

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

    def _failed(self, problem: str) -> None:
        if not self.problem:
            self._log("bindings not written", level="error", values={"problem": problem, "waiting": len(self._waiting)})
        self.problem = problem
        self._state(-1, "location: the database takes nothing")

    async def write(self, engine: _native.Engine) -> bool:
        """Write what waits; return whether there may be more. Raise `StorageError`: then it waits for the next time."""
        if not self._waiting:
            # Of several writes of one binding the last counts.
            self._waiting = dict(engine.location_writes(MOST))
        table = self._table
        if table is None:
            more, self._waiting = bool(self._waiting), {}
            return more
        if self._waiting:
            await self._put(table, self._waiting)
            self._waiting = {}
            self.problem = ""
            self._state(1, "location: written")
            return True
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            await table.sweep(int(time.time()) - 60)
        return False

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
