"""How many outcomes come after their decisions matured, and whether that is too many to judge by.

A late outcome was counted as missing, which `whenMissing: Zero` takes for a 0: a burst of them (a stalled caller, a
starved machine) looks like customers who stopped buying. Both arms of a rollout suffer alike, but a detector that
compares with the past would cry drift.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import numpy as np

from drivetrain.levers.grid import Floats

LIMIT: Final = 0.02
"""Share of late outcomes among matured decisions above which outcomes are not compared with the past."""
_PARTS: Final = 4
"""Parts of one maturation time that are counted apart."""
_SPAN: Final = 2 * _PARTS
"""Parts that are looked back upon: two maturation times."""


class Lateness:
    """Counts matured decisions and late outcomes by when the decision was made."""

    def __init__(self, matures_after: timedelta) -> None:
        self._length = matures_after.total_seconds() / _PARTS
        self._matured: dict[int, int] = {}
        self._late: dict[int, int] = {}

    def late(self, decided: Floats) -> None:
        """Adds outcomes that came too late, by when their decisions were made, seconds since 1970."""
        self._add(self._late, decided)

    def matured(self, decided: Floats) -> None:
        """Adds matured decisions, by when they were made."""
        self._add(self._matured, decided)
        first = max(self._matured) - _SPAN + 1
        self._matured = {part: count for part, count in self._matured.items() if part >= first}
        self._late = {part: count for part, count in self._late.items() if part >= first}

    @property
    def share(self) -> float:
        """Late outcomes for each decision matured over the last two maturation times."""
        matured = sum(self._matured.values())
        return sum(self._late.values()) / matured if matured else 0.0

    @property
    def began(self) -> float | None:
        """When the first decision with a late outcome was made, to a part; None while few are late."""
        return min(self._late) * self._length if self.share > LIMIT else None

    def in_words(self) -> dict[str, str]:
        """What status says: nothing while all come in time."""
        if not self._late or not self._matured:
            return {}
        return {
            "outcomes": f"{self.share:.1%} of the decisions got one later than maturesAfter, which changes no evidence"
        }

    def state(self) -> dict[str, Any]:
        """What a restart needs; late outcomes are read from the log again."""
        return {"matured": {str(part): count for part, count in self._matured.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same maturation time."""
        self._matured = {int(part): count for part, count in state["matured"].items()}

    def _add(self, counts: dict[int, int], decided: Floats) -> None:
        parts, numbers = np.unique(np.floor(decided / self._length).astype(np.int64), return_counts=True)
        for part, number in zip(parts.tolist(), numbers.tolist(), strict=True):
            counts[part] = counts.get(part, 0) + number
