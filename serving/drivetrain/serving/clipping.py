"""Where metrics without bounds are clipped: measured on a rollout's first units, which then enter no sequence.

An asymptotic sequence needs a finite variance, not bounds; clipping far beyond what was seen keeps single outliers from
deciding a rollout. The range is fixed before the first unit counts, so it cannot favour an arm.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from drivetrain.api.interval import Interval
from drivetrain.evidence.intervals import Bounds, Floats

SAMPLE: Final = 200
"""Units that measure the ranges."""
REACH: Final = 4.0
"""A range goes this many times the spread of those units beyond the least and the greatest of them."""


class Clipping:
    """The clipping ranges of some metrics; ends that are known stay as they are."""

    def __init__(self, known: Mapping[str, Interval]) -> None:
        """`known`: metric to its range, at least one end of which is infinite."""
        self._known = known
        self._seen: dict[str, Interval] = {}
        self._rows = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that need a range."""
        return tuple(self._known)

    @property
    def ready(self) -> bool:
        """Whether every range is measured: enough units, and not all alike."""
        enough = self._rows >= SAMPLE and all(seen.low < seen.high for seen in self._seen.values())
        return not self._known or enough

    def add(self, values: Mapping[str, Floats]) -> int:
        """Adds units in decision order as far as they are needed; how many those were, whatever comes in a batch."""
        if self.ready:
            return 0
        count = len(values[self.names[0]])
        lows, highs = {}, {}
        taken = max(SAMPLE - self._rows, 0)
        for name, known in self._known.items():
            seen = self._seen.get(name)
            column = np.clip(values[name], known.low, known.high)
            lows[name] = np.minimum.accumulate(np.append(np.inf if seen is None else seen.low, column))[1:]
            highs[name] = np.maximum.accumulate(np.append(-np.inf if seen is None else seen.high, column))[1:]
            differ = lows[name] < highs[name]
            taken = max(taken, int(differ.argmax()) + 1 if differ.any() else count)
        taken = min(taken, count)
        if taken:
            self._seen = {name: Interval(lows[name][taken - 1], highs[name][taken - 1]) for name in self.names}
            self._rows += taken
        return taken

    def bounds(self, name: str) -> Bounds:
        """The range of one metric, once ready."""
        known, seen = self._known[name], self._seen[name]
        beyond = REACH * (seen.high - seen.low)
        return Bounds(max(known.low, seen.low - beyond), min(known.high, seen.high + beyond))

    def in_words(self) -> str:
        """What a reader of the evidence must know, '' where every metric is bounded."""
        if not self._known:
            return ""
        if not self.ready:
            return f"The first {SAMPLE} units measure where {', '.join(self.names)} without bounds is clipped."
        ranges = ((name, self.bounds(name)) for name in self.names)
        clipped = ", ".join(f"{name} to [{range_.minimum:.4g}, {range_.maximum:.4g}]" for name, range_ in ranges)
        return f"Without declared bounds the interval is asymptotic, and clipped: {clipped}."[:1024]

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        return {
            "rows": self._rows,
            "seen": {name: [float(seen.low), float(seen.high)] for name, seen in self._seen.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same metrics."""
        self._rows = state["rows"]
        self._seen = {name: Interval(*ends) for name, ends in state["seen"].items()}
