"""Where a candidate loses: its effect on the KPI by slice, which explains a rejection and decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.levers.grid import Floats
from drivetrain.serving.maturation import Cohort

_NAME_LIMIT = 64


@dataclass(slots=True)
class _Sums:
    """Sums over a slice's units: v, v x, (v x)^2."""

    weight: float = 0.0
    total: float = 0.0
    square: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.weight

    @property
    def losing(self) -> bool:
        """Whether the candidate's mean effect lies two standard errors below 0."""
        return self.weight > 0 and self.total < -2 * self.square**0.5


class LosingSlices:
    """Sums of the units' increments by the values of each slice column."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._sums: dict[str, _Sums] = {}

    def feed(self, cohort: Cohort, weight: Floats, increment: Floats) -> None:
        """Adds units: their weights, and the KPI's increments in its good direction, [rows]."""
        for column in self._columns:
            values = cohort.labels(log.CONTEXT_PREFIX + column)
            names, inverse = np.unique(values.astype(str), return_inverse=True)
            for index, value in enumerate(names.tolist()):
                sums = self._sums.setdefault(f"{column}={value}"[:_NAME_LIMIT], _Sums())
                rows = inverse == index
                sums.weight += float(weight[rows].sum())
                sums.total += float((weight * increment)[rows].sum())
                sums.square += float(((weight * increment)[rows] ** 2).sum())

    def names(self) -> list[str]:
        """Slices in which the candidate loses, the worst first."""
        return sorted(
            (name for name, sums in self._sums.items() if sums.losing), key=lambda name: self._sums[name].mean
        )

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        return {name: [sums.weight, sums.total, sums.square] for name, sums in self._sums.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same columns."""
        self._sums = {name: _Sums(*sums) for name, sums in state.items()}
