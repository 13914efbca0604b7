"""When which key is due: the pure half of the work queue. Times are seconds of one monotonic clock, given as `now`.

One reconcile per key at a time; wake-ups of a waiting key melt into one, those of a running key into one more run. A
failed key waits longer each time, and no wake-up shortens that: what makes it fail is the API, not the key.
"""

import heapq
import random
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
STALE_ENTRIES = 64
"""How many entries of the heap may be out of date, however few keys wait."""


@dataclass(slots=True)
class Schedule(Generic[K]):
    """The keys that wait, and the keys that run."""

    rng: random.Random
    _due: dict[K, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, K]] = field(default_factory=list)
    _pushed: int = 0
    _running: set[K] = field(default_factory=set)
    _woken: dict[K, float] = field(default_factory=dict)
    """Running keys to the time at which they are due again because of wake-ups meanwhile."""
    _failures: dict[K, int] = field(default_factory=dict)

    def wake(self, key: K, now: float, delay: float = 0.0) -> None:
        """Make the key due after `delay` seconds at the latest."""
        due = now + delay
        if key in self._running:
            self._woken[key] = min(due, self._woken.get(key, due))
        elif key not in self._failures and due < self._due.get(key, float("inf")):
            self._push(key, due)

    def take(self, now: float) -> K | None:
        """Return the key that has been due longest, which runs from now on, or None if nothing is due."""
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._running.add(key)
                return key
        return None

    def next_due(self) -> float | None:
        """Return when the next key becomes due, None while nothing waits."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def done(self, key: K, now: float, wake_after: float | None = None) -> None:
        """End a successful run; the key is due again after `wake_after`, or at a wake-up that came meanwhile."""
        self._running.discard(key)
        self._failures.pop(key, None)
        candidates = [self._woken.pop(key)] if key in self._woken else []
        candidates += [] if wake_after is None else [now + wake_after]
        if candidates:
            self._push(key, min(candidates))

    def failed(self, key: K, now: float, at_least: float = 0.0) -> float:
        """End a failed run; return after how many seconds it is tried again: doubling, half of it random."""
        self._running.discard(key)
        self._woken.pop(key, None)
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = min(FIRST_BACKOFF * 2.0 ** min(failures, 16), LONGEST_BACKOFF)
        delay = max(longest * (0.5 + 0.5 * self.rng.random()), at_least)
        self._push(key, now + delay)
        return delay

    def depth(self, now: float) -> int:
        """Return how many keys are due and not running."""
        return sum(due <= now for due in self._due.values())

    def oldest_age(self, now: float) -> float:
        """Return for how many seconds the key that is due longest has waited, 0 if none is due."""
        return max((now - due for due in self._due.values()), default=0.0) if self.depth(now) else 0.0

    def _push(self, key: K, due: float) -> None:
        self._due[key] = due
        self._pushed += 1
        heapq.heappush(self._heap, (due, self._pushed, key))
        if len(self._heap) > 2 * len(self._due) + STALE_ENTRIES:
            self._heap = [(at, number, each) for number, (each, at) in enumerate(self._due.items())]
            heapq.heapify(self._heap)
