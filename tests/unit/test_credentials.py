"""Credentials for workers: whoever asks is answered, whatever becomes of the table."""

import asyncio
import os
from typing import Any

from edgeproxy.errors import StorageError
from edgeproxy.server.credentials import CredentialService

QUESTION = (0, "alice", "edge.example", "edge.example", "alice")
KNOWN = ("clear", "secret", "", "", [])


class Engine:
    """Asks one question whenever it is rung."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.asked = 0
        self.told: asyncio.Queue[list[Any]] = asyncio.Queue()

    def user_descriptor(self) -> int:
        return self.reader

    def ring(self) -> None:
        os.write(self.writer, b"x")

    def credential_questions(self, _most: int) -> list[tuple[int, str, str, str, str]]:
        if self.asked:
            self.asked = 0
            return []
        os.read(self.reader, 1)
        self.asked = 1
        return [QUESTION]

    def give_credentials(self, answers: list[Any]) -> None:
        self.told.put_nowait(answers)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class Table:
    """Answers as the test says."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    async def fetch(self, users: list[tuple[str, str]], _seconds: float) -> dict[tuple[str, str], Any]:
        if self.fault:
            raise self.fault
        return {users[0]: KNOWN}


def test_a_fault_is_told_and_over_with_the_next_answer() -> None:
    states: list[int] = []
    lines: list[Any] = []
    engine, table = Engine(), Table()

    async def work() -> None:
        service = CredentialService(lambda _, **values: lines.append(values["values"]), lambda status, _: states.append(status))
        service.use(table, 1.0)  # type: ignore[arg-type]
        service.attach(engine)  # type: ignore[arg-type]
        for fault in (ValueError("odd row"), None, StorageError("gone")):
            table.fault = fault
            engine.ring()
            async with asyncio.timeout(5):
                answers = await engine.told.get()
            assert answers == [(QUESTION, fault is None, KNOWN if fault is None else None)]
        # For a while nobody is asked any more, and answered at once.
        table.fault = None
        engine.ring()
        async with asyncio.timeout(0.5):
            assert await engine.told.get() == [(QUESTION, False, None)]
        await service.stop()

    asyncio.run(work())
    engine.close()
    assert states == [-1, 1, -1]
    assert [line.get("error", line.get("problem")) for line in lines] == ["ValueError: odd row", "gone"]
