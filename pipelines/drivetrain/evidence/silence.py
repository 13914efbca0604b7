"""Silence: a stretch of decisions without a single outcome, where many would be usual.

Where a missing outcome stands for a 0, an outage of whoever reports looks like customers who stopped buying. The two
differ in one respect: customers who buy less still buy now and then. A stretch of n decisions without any outcome,
where each usually has one with chance p, has probability (1 - p)^n <= exp(-n p). At n p = 20 that is 2e-9, and 5e-5
still where outcomes have become half as frequent; so it is nobody's choice but an outage, or a change so complete that
a person must look.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from drivetrain.evidence.intervals import Bools, Floats

EXPECTED: Final = 20.0
"""Outcomes that a silent stretch would usually have had."""
LEAST: Final = 30
"""Outcomes from which on it is known what is usual."""
_MEMORY: Final = 200.0
"""Outcomes over which the usual is averaged: another custom of reporting is the usual one after that many."""


class Silence:
    """Follows matured decisions in decision order; the same whatever their batches.

    An outcome takes up to `margin` seconds to come, so an outage has already eaten outcomes of decisions that long
    before the last one that has one, and of those as long after the first one that has one again.
    """

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._gaps = 0.0  # decisions for each outcome: a sum and its weight
        self._weight = 0.0
        self._outcomes = 0
        self._run = 0  # decisions since the last one with an outcome
        self._last = -np.inf  # when that one was made
        self._began: float | None = None
        self._until: float | None = None

    @property
    def silent(self) -> bool:
        """Whether no outcome has come again yet."""
        return self._began is not None and self._until is None

    @property
    def run(self) -> int:
        """Decisions since the last one with an outcome."""
        return self._run

    @property
    def usual(self) -> float:
        """Outcomes for each decision, lately and outside of silences; 0 while unknown."""
        return self._weight / self._gaps if self._outcomes >= LEAST else 0.0

    @property
    def open_since(self) -> float:
        """Decisions from then on may yet turn out to be part of a silence."""
        return self._last - self._margin

    def update(self, at: Floats, answered: Bools) -> tuple[Bools, float | None]:
        """Add matured decisions: when each was made, in order, and whether it has an outcome; both [rows].

        Which rows a silence makes worthless, and since when rows of earlier updates are as well (None: none are).
        """
        worthless = np.zeros(len(at), dtype=bool)
        since = self._began
        if self._until is not None:
            worthless |= at < self._until
        first = 0
        for end in [*np.flatnonzero(answered).tolist(), len(at)]:
            self._run += end - first
            if self._run * self.usual >= EXPECTED and not self.silent:
                self._began = self.open_since if self._began is None else min(self._began, self.open_since)
                self._until = None
                since = self._began if since is None else min(since, self._began)
            if self._began is not None and self._until is None:
                self._until = None if end == len(at) else float(at[end]) + self._margin
                worthless |= (at >= self._began) & (at < (np.inf if self._until is None else self._until))
            elif end < len(at):
                self._gaps += self._run + 1 - self._gaps / _MEMORY
                self._weight += 1 - self._weight / _MEMORY
                self._outcomes += 1
            if end == len(at):
                break
            self._last, self._run, first = float(at[end]), 0, end + 1
            if self._until is not None and self._last >= self._until:
                self._began = self._until = None
        return worthless, since

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        last = self._last if self._outcomes else None
        return {
            "usual": [self._gaps, self._weight, self._outcomes],
            "run": [self._run, last],
            "silence": [self._began, self._until],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same margin."""
        self._gaps, self._weight, self._outcomes = state["usual"]
        self._run, last = state["run"]
        self._last = -np.inf if last is None else last
        self._began, self._until = state["silence"]
