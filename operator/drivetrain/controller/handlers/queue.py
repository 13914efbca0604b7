"""The keyed work queue: workers that run one reconcile per key at a time, when the schedule says so."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from drivetrain.controller.handlers.race import until_one_ends
from drivetrain.controller.handlers.schedule import Schedule

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Wake-ups go in, `work(key)` is called; time is the event loop's own clock.

    `work` returns after how many seconds to run again (None: only when woken). If it raises, the key backs off and
    `on_failure` is told, so that one object that nobody foresaw does not stop the others; `fatal` ends `run`.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        rng: random.Random,
        fatal: type[Exception],
        on_failure: Callable[[K, Exception, float], None],
    ) -> None:
        self._work = work
        self._fatal = fatal
        self._on_failure = on_failure
        self._schedule: Schedule[K] = Schedule(rng)
        self._changed = asyncio.Event()
        self._began: float | None = None
        """When `run` was called; keys may be woken long before, in a process that waits to lead."""

    def wake(self, key: K, delay: float = 0.0) -> None:
        """Make the key due after `delay` seconds at the latest."""
        self._schedule.wake(key, _now(), delay)
        self._changed.set()

    def depth(self) -> int:
        """Return how many keys are due and not running."""
        return self._schedule.depth(_now())

    def oldest_age(self) -> float:
        """Return for how many seconds the key that is due longest has waited since the work began; 0 before."""
        now = _now()
        return 0.0 if self._began is None else min(self._schedule.oldest_age(now), now - self._began)

    async def run(self, workers: int) -> None:
        """Work until cancelled, on at most `workers` keys at once."""
        self._began = _now()
        await until_one_ends(*(self._serve() for _ in range(workers)))

    async def _serve(self) -> None:
        while True:
            key = await self._take()
            try:
                wake_after = await self._work(key)
            except self._fatal:
                raise
            except Exception as error:
                at_least = float(getattr(error, "retry_after", 0.0))
                self._on_failure(key, error, self._schedule.failed(key, _now(), at_least))
            else:
                self._schedule.done(key, _now(), wake_after)
            self._changed.set()

    async def _take(self) -> K:
        while (key := self._schedule.take(_now())) is None:
            self._changed.clear()
            due = self._schedule.next_due()
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                continue  # a key is due now
        return key


def _now() -> float:
    return asyncio.get_running_loop().time()
