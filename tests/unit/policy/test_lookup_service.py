"""A lookup's cache, circuit breaker and bounds, on a clock of the test's own."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from edgeproxy.config.lookup import Lookup
from edgeproxy.errors import LookupFailed
from edgeproxy.policy.lookup_service import Service


class Asked(Service):
    """Answers from a list; records who was asked about what."""

    def __init__(self, terms: Lookup, *answers: str | Exception | Awaitable[str]) -> None:
        self.now = 0.0
        super().__init__("lnp", terms, "", lambda: self.now)
        self.answers = list(answers)
        self.asked: list[str] = []

    async def _fetch(self, number: str, _: str) -> str:
        self.asked.append(number)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else await answer


def terms(**more: object) -> Lookup:
    return Lookup(
        url="http://x/{number}",
        cache_seconds=100,
        absent_seconds=10,
        stale_seconds=50,
        breaker_failures=2,
        result="note",
        breaker_seconds=5,
        **more,
    )  # type: ignore[arg-type]


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_answers_serve_while_they_are_fresh_and_stale_ones_while_they_are_asked_for_anew() -> None:
    async def work() -> None:
        service = Asked(terms(), "1", "2", "", "3")
        assert [await service.value_of("49", "") for _ in range(3)] == ["1", "1", "1"]
        service.now = 120
        assert await service.value_of("49", "") == "1"
        await settle()
        assert await service.value_of("49", "") == "2"
        assert await service.value_of("50", "") == ""
        service.now = 129
        assert await service.value_of("50", "") == ""
        service.now = 500
        assert await service.value_of("50", "") == "3"
        assert service.asked == ["49", "49", "50", "50"]
        assert service.counts == {"found": 3, "absent": 1, "cached": 4, "stale": 1}

    run(work)


def test_calls_that_wait_for_one_number_share_a_question_and_one_that_gives_up_ends_it_for_nobody() -> None:
    async def work() -> None:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        service = Asked(terms(), answer)
        waiting = [asyncio.create_task(service.value_of("49", "")) for _ in range(3)]
        await settle()
        waiting[0].cancel()
        await settle()
        answer.set_result("7")
        assert await asyncio.gather(*waiting[1:]) == ["7", "7"]
        assert service.asked == ["49"]

    run(work)


def test_after_failures_in_a_row_nobody_is_asked_until_one_question_has_tried_again() -> None:
    async def work() -> None:
        service = Asked(terms(), LookupFailed("a"), "1", LookupFailed("b"), LookupFailed("c"), LookupFailed("d"), "2", "3")

        async def ask(number: str) -> str:
            try:
                return await service.value_of(number, "")
            except LookupFailed as error:
                return f"failed: {error}"

        assert [await ask("1"), await ask("2")] == ["failed: a", "1"]
        assert [await ask("3"), await ask("4")] == ["failed: b", "failed: c"]
        assert (await ask("5")).startswith("failed: it is out")
        # What is kept serves meanwhile, stale as well.
        service.now = 4.9
        assert await ask("2") == "1"
        service.now = 5
        assert await ask("6") == "failed: d"
        assert (await ask("7")).startswith("failed: it is out")
        service.now = 10
        assert [await ask("8"), await ask("9")] == ["2", "3"]
        assert service.counts == {"failed": 4, "found": 3, "out": 2, "cached": 1}

    run(work)


def test_a_value_that_is_no_number_is_a_failure_and_not_kept() -> None:
    async def work() -> None:
        service = Asked(Lookup(url="http://x/{number}"), "+1x", "-1", "+1555")
        for _ in range(2):
            with pytest.raises(LookupFailed, match="no number"):
                await service.value_of("49", "")
        assert await service.value_of("49", "") == "+1555"
        assert service.counts == {"wrong": 2, "found": 1}

    run(work)


def test_questions_of_one_moment_are_bounded_too() -> None:
    async def work() -> None:
        answers: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        service = Asked(terms(concurrent=2), *answers, LookupFailed("a"), LookupFailed("b"), "x")
        at_once = asyncio.gather(*(service.value_of(str(number), "") for number in range(20)), return_exceptions=True)
        await settle()
        for answer in answers:
            answer.set_result("x")
        assert [value for value in await at_once if value == "x"] == ["x", "x"]
        assert service.counts == {"busy": 18, "found": 2}
        # Nor do several try together whether one that is out is back.
        for number in ("a", "b"):
            with pytest.raises(LookupFailed):
                await service.value_of(number, "")
        service.now = 5
        found = await asyncio.gather(*(service.value_of(f"again{number}", "") for number in range(5)), return_exceptions=True)
        assert [value for value in found if value == "x"] == ["x"]
        assert service.counts["out"] == 4

    run(work)


def test_while_one_question_tries_again_all_others_see_it_out() -> None:
    async def work() -> None:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        service = Asked(terms(), LookupFailed("a"), LookupFailed("b"), answer)
        for number in ("1", "2"):
            with pytest.raises(LookupFailed):
                await service.value_of(number, "")
        service.now = 5
        trial = asyncio.create_task(service.value_of("3", ""))
        await settle()
        with pytest.raises(LookupFailed, match="out"):
            await service.value_of("4", "")
        answer.set_result("x")
        assert await trial == "x"

    run(work)


def test_questions_under_way_and_answers_kept_are_bounded() -> None:
    async def work() -> None:
        answers: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        service = Asked(terms(concurrent=2, cache_entries=2), *answers, "c", "a")
        waiting = [asyncio.create_task(service.value_of(str(number), "")) for number in range(2)]
        await settle()
        with pytest.raises(LookupFailed, match="2 questions are under way"):
            await service.value_of("2", "")
        for answer in answers:
            answer.set_result("x")
        await asyncio.gather(*waiting)
        assert await service.value_of("2", "") == "c"
        # The oldest has gone.
        assert await service.value_of("0", "") == "a"
        assert service.counts == {"busy": 1, "found": 4}

    run(work)
