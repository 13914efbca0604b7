"""Workers on the keyed queue, in virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from drivetrain.api.errors import FencedError
from drivetrain.controller.handlers.queue import WorkQueue
from tests.support.virtual_time import run


class Journal:
    """What happened when."""

    def __init__(self) -> None:
        self.starts: list[tuple[str, float]] = []
        self.failures: list[tuple[str, str]] = []
        self.running: set[str] = set()
        self.most_at_once = 0


def queue_of(
    journal: Journal, work: Callable[[str], Awaitable[float | None]], fatal: type[Exception] = FencedError
) -> WorkQueue[str]:
    async def recorded(key: str) -> float | None:
        assert key not in journal.running
        journal.starts.append((key, asyncio.get_running_loop().time()))
        journal.running.add(key)
        journal.most_at_once = max(journal.most_at_once, len(journal.running))
        try:
            return await work(key)
        finally:
            journal.running.discard(key)

    return WorkQueue(
        recorded,
        rng=random.Random(1),
        fatal=fatal,
        on_failure=lambda key, error, delay: journal.failures.append((key, str(error))),
    )


async def _for_a_while(queue: WorkQueue[str], seconds: float, workers: int = 2) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await queue.run(workers)


async def _slow(_: str) -> float | None:
    await asyncio.sleep(10.0)
    return None


async def _repeating(_: str) -> float | None:
    return 60.0


def test_a_key_runs_again_after_the_time_it_asks_for() -> None:
    journal = Journal()

    async def story() -> None:
        queue = queue_of(journal, _repeating)
        queue.wake("a")
        await _for_a_while(queue, 150.0)

    run(story())
    assert journal.starts == [("a", 0.0), ("a", 60.0), ("a", 120.0)]


def test_different_keys_run_side_by_side_up_to_the_number_of_workers() -> None:
    journal = Journal()

    async def story() -> None:
        queue = queue_of(journal, _slow)
        for key in "abc":
            queue.wake(key)
        await _for_a_while(queue, 30.0)

    run(story())
    assert journal.starts == [("a", 0.0), ("b", 0.0), ("c", 10.0)]
    assert journal.most_at_once == 2


def test_wake_ups_during_a_run_lead_to_one_more_run_after_it() -> None:
    journal = Journal()

    async def story() -> None:
        queue = queue_of(journal, _slow)
        queue.wake("a")
        loop = asyncio.get_running_loop()
        for moment in (1.0, 2.0, 3.0):
            loop.call_at(moment, queue.wake, "a")
        await _for_a_while(queue, 100.0)

    run(story())
    assert journal.starts == [("a", 0.0), ("a", 10.0)]


def test_what_was_due_before_the_work_began_waits_from_then_on() -> None:
    ages: list[float] = []

    async def story() -> None:
        queue, loop = queue_of(Journal(), _slow), asyncio.get_running_loop()
        for key in "abc":
            queue.wake(key)
        await asyncio.sleep(1000.0)  # another process leads
        ages.append(queue.oldest_age())
        loop.call_at(1004.0, lambda: ages.append(queue.oldest_age()))
        await _for_a_while(queue, 5.0, workers=1)

    run(story())
    assert ages == [0.0, 4.0]


def test_a_waiting_worker_is_woken_by_a_new_key() -> None:
    journal = Journal()

    async def story() -> None:
        queue = queue_of(journal, _slow)
        asyncio.get_running_loop().call_at(5.0, queue.wake, "a")
        await _for_a_while(queue, 20.0)

    run(story())
    assert journal.starts == [("a", 5.0)]


def test_an_error_that_nobody_foresaw_backs_off_its_own_key_only() -> None:
    journal = Journal()

    async def story() -> None:
        async def work(key: str) -> float | None:
            if key == "bad":
                raise KeyError("surprise")
            return 1.0

        queue = queue_of(journal, work)
        queue.wake("bad")
        queue.wake("good")
        await _for_a_while(queue, 20.5)

    run(story())
    assert [moment for key, moment in journal.starts if key == "good"] == [float(second) for second in range(21)]
    assert 4 <= len(journal.failures) <= 7
    assert set(journal.failures) == {("bad", "'surprise'")}


def test_a_fatal_error_ends_the_queue_as_itself() -> None:
    journal = Journal()

    async def story() -> None:
        async def work(key: str) -> float | None:
            if key == "bad":
                raise FencedError("another operator leads")
            await asyncio.sleep(1000.0)
            return None

        queue = queue_of(journal, work)
        queue.wake("good")
        queue.wake("bad")
        with pytest.raises(FencedError):
            await queue.run(2)

    run(story())
    assert journal.running == set()
