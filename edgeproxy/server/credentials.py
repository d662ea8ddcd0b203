"""Credentials for the workers: they ask for users whom they do not know, many at once, and are answered in time or told that nobody can."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeproxy.errors import StorageError

if TYPE_CHECKING:
    from edgeproxy import _native
    from edgeproxy.storage.subscribers import SubscriberTable

Log = Callable[..., None]
State = Callable[[int, str], None]
Told = tuple[tuple[int, str, str, str, str], bool, tuple[str, str, str, str, Sequence[tuple[str, str]]] | None]
MOST = 5_000
"""Users asked for at once."""
PAUSE_SECONDS = 1.0
"""How long nobody is asked after a failure: who waits then is answered at once."""


class CredentialService:
    """Answers the questions of an engine from the table `subscriber`."""

    def __init__(self, log: Log, state: State) -> None:
        self._log = log
        self._state = state
        self._engine: _native.Engine | None = None
        self._table: SubscriberTable | None = None
        self._deadline = 1.0
        self._task: asyncio.Task[None] | None = None
        self._silent_until = 0.0
        self._watched: int | None = None
        self._stopping = False

    def use(self, table: "SubscriberTable | None", deadline_seconds: float) -> None:
        """Ask `table` from now on."""
        self._table, self._deadline = table, deadline_seconds
        self._silent_until = 0.0

    def attach(self, engine: "_native.Engine") -> None:
        """Answer the questions of `engine`."""
        self._engine = engine
        self._watched = engine.user_descriptor()
        asyncio.get_running_loop().add_reader(self._watched, self._rung)

    async def stop(self) -> None:
        """Answer nothing any more."""
        self._stopping = True
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None
        if self._task:
            await self._task

    def _rung(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        engine = self._engine
        while engine and not self._stopping and (questions := engine.credential_questions(MOST)):
            try:
                answers = await self._told(questions)
            except Exception as error:
                # Whoever waits must hear something, and those who come later must be answered.
                self._state(-1, "credentials: not read")
                self._log("credentials not read", level="error", values={"error": f"{type(error).__name__}: {error}"})
                answers = [(question, False, None) for question in questions]
            engine.give_credentials(answers)

    async def _told(self, questions: list[tuple[int, str, str, str, str]]) -> list[Told]:
        table = self._table
        if table is None or time.monotonic() < self._silent_until:
            return [(question, False, None) for question in questions]
        users = list({(user, domain) for _, user, domain, _, _ in questions})
        try:
            async with asyncio.timeout(self._deadline):
                found = await table.fetch(users, self._deadline)
        except (TimeoutError, StorageError) as error:
            self._silent_until = time.monotonic() + PAUSE_SECONDS
            problem = str(error) or f"the database did not answer within {self._deadline} s"
            self._state(-1, "credentials: the database is silent")
            self._log("credentials not read", level="error", values={"users": len(users), "problem": problem})
            return [(question, False, None) for question in questions]
        self._state(1, "credentials: ready")
        return [(question, True, found.get((question[1], question[2]))) for question in questions]
