"""One service that knows something of numbers: its cache, its circuit breaker, its counts."""

import asyncio
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import quote, unquote

import msgspec

from edgeproxy.config.lookup import Lookup
from edgeproxy.errors import CallEnded, LookupFailed

_NUMBER = re.compile(r"\+?[0-9A-Fa-f*#]{1,32}")
_SEPARATORS = re.compile(r"[-.() ]")

_EARLY = 0.01
"""Timers of the loop may be as much before their time."""


class _WrongValue(LookupFailed):
    """It is no number."""


class _Kept(NamedTuple):
    value: str
    fresh_until: float
    stale_until: float


class Service:
    """Answers from the cache where it can, asks where it must, and asks nobody while the service is out."""

    def __init__(self, name: str, terms: Lookup, database: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.terms = terms
        self.counts: Counter[str] = Counter()
        self._database = database
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._asked: dict[str, asyncio.Task[str]] = {}
        self._under_way = 0
        self._failures = 0
        self._out_until = 0.0

    def count(self, outcome: str) -> None:
        """Count what came of a lookup."""
        self.counts[outcome] += 1

    async def value_of(self, number: str, trace_id: str) -> str:
        """Return what the service says of a number, empty where it knows nothing; raise `LookupFailed`."""
        kept, now = self._kept.get(number), self._clock()
        if kept and now < kept.fresh_until:
            self.count("cached")
            return kept.value
        if kept and now < kept.stale_until:
            self.count("stale")
            if number not in self._asked and self._may_ask(now):
                self._start(number, trace_id)
            return kept.value
        asked = self._asked.get(number)
        if asked is None:
            self._refuse_unless_askable(now)
            asked = self._start(number, trace_id)
        # Of several calls that wait for one answer none ends it for the others.
        return await asyncio.shield(asked)

    async def watched(self, ask: Callable[[], Awaitable[str]]) -> str:
        """Ask in another way, with the same bounds and counts; raise `LookupFailed`."""
        self._refuse_unless_askable(self._clock())
        self._begin()
        try:
            return await self._bounded(ask)
        finally:
            self._under_way -= 1

    def _may_ask(self, now: float) -> bool:
        return now >= self._out_until and self._under_way < self.terms.concurrent

    def _refuse_unless_askable(self, now: float) -> None:
        if now < self._out_until:
            self.count("out")
            raise LookupFailed(f"it is out, {self._failures} failures in a row")
        if self._under_way >= self.terms.concurrent:
            self.count("busy")
            raise LookupFailed(f"{self._under_way} questions are under way")

    def _begin(self) -> None:
        """Take a place; at once, so that who asks in the same moment finds it taken."""
        if self._failures >= self.terms.breaker_failures:
            # One question tries whether it is back; all others see it out meanwhile.
            self._out_until = self._clock() + max(self.terms.breaker_seconds, self.terms.deadline_seconds)
        self._under_way += 1

    def _start(self, number: str, trace_id: str) -> "asyncio.Task[str]":
        self._begin()
        task = asyncio.get_running_loop().create_task(self._bounded(lambda: self._fetch(number, trace_id), number))
        self._asked[number] = task
        task.add_done_callback(lambda task: self._done(number, task))
        return task

    def _done(self, number: str, task: "asyncio.Task[str]") -> None:
        self._asked.pop(number, None)
        self._under_way -= 1
        if not task.cancelled():
            # Looked at, so that a failure nobody waited for is no complaint of the loop; it has been counted.
            task.exception()

    async def _bounded(self, ask: Callable[[], Awaitable[str]], number: str = "") -> str:
        began = self._clock()
        try:
            value = self._checked(await ask())
        except CallEnded:
            # The caller's end says nothing of the service.
            raise
        except Exception as error:
            # What a service answers may break more than its format.
            self._failures += 1
            wrong = isinstance(error, _WrongValue)
            self.count("wrong" if wrong else "slow" if self._clock() - began >= self.terms.deadline_seconds - _EARLY else "failed")
            if self._failures >= self.terms.breaker_failures:
                self._out_until = self._clock() + self.terms.breaker_seconds
            raise error if isinstance(error, LookupFailed) else LookupFailed(f"{type(error).__name__}: {error}") from error
        self._failures, self._out_until = 0, 0.0
        self.count("found" if value else "absent")
        if number:
            self._keep(number, value)
        return value

    def _checked(self, value: str) -> str:
        if not value or self.terms.result not in {"rn", "routing_number"}:
            return value
        # What only parts digits for readers belongs to `rn` (RFC 4694 section 4), and not to the number.
        number = _SEPARATORS.sub("", unquote(value))
        # What stands before it parts nothing: a number below zero is none.
        if not _NUMBER.fullmatch(number) or value.startswith(("-", ".")):
            raise _WrongValue(f"no number: {value[:64]}")
        return number

    def _keep(self, number: str, value: str) -> None:
        seconds = self.terms.cache_seconds if value else self.terms.absent_seconds
        if not seconds:
            return
        now = self._clock()
        self._kept[number] = _Kept(value, now + seconds, now + seconds + self.terms.stale_seconds)
        self._kept.move_to_end(number)
        while len(self._kept) > self.terms.cache_entries:
            self._kept.popitem(last=False)

    async def _fetch(self, number: str, trace_id: str) -> str:
        terms = self.terms
        if terms.statement:
            from edgeproxy.policy.sql import fetch  # noqa: PLC0415 - who asks no database needs no library for it

            rows = await fetch(self._database, terms.statement, {"number": number}, terms.deadline_seconds)
            return _text(next(iter(rows[0].values()), None)) if rows else ""
        from edgeproxy.policy.http import fetch_bytes  # noqa: PLC0415 - who asks no service needs no HTTP client

        url = terms.url.replace("{number}", quote(number, safe=""))
        body = await fetch_bytes(url, terms.headers, terms.deadline_seconds, trace_id)
        if body is None or not body.strip():
            return ""
        if terms.answer == "text":
            return _text(body.decode(errors="replace"))
        try:
            found = msgspec.json.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise LookupFailed(str(error)) from error
        for part in terms.field.split("."):
            if not isinstance(found, dict):
                raise LookupFailed(f"expected a JSON object, got: {type(found).__name__}")
            found = found.get(part)
            if found is None:
                return ""
        return _text(found)


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise LookupFailed(f"expected a text or a number, got: {type(value).__name__}")
    return str(value).strip()
