"""Who comes: covariate drift of the Context columns against the model's training contexts, window by window."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.model import Reference
from drivetrain.api.report import DetectorEvidence
from drivetrain.api.v1alpha1.rollout import Monitoring
from drivetrain.evidence.calibration import Severity
from drivetrain.evidence.covariate import ColumnEvidence, CovariatePlan, judge
from drivetrain.evidence.histogram import Bins, Histogram
from drivetrain.serving.alarm import NAMES, WARN_FACTOR, YEAR_DAYS
from drivetrain.serving.maturation import Cohort, instant

_SEVERE_DISTANCE: Final = 2.5
"""A severe covariate drift is this many times the distance from which drift matters (0.25 where that is 0.1)."""
_LEAST_ROWS: Final = 100
"""A column whose reference has fewer is not judged."""
_SHOWN: Final = 8
"""Columns that a report names; a Dataset may have hundreds."""


class Covariates:
    """Evidence on each column in the current window; an earlier decision counts in the window that is open."""

    def __init__(self, monitoring: Monitoring, reference: Reference | None) -> None:
        self._length = monitoring.window.total_seconds()
        declared = monitoring.drift.covariate
        rate, least = declared.false_alarms_per_year, declared.minimum_distance
        chances = CovariatePlan.of_rates(
            warn_per_year=rate * WARN_FACTOR,
            severe_per_year=rate,
            windows_per_year=timedelta(days=YEAR_DAYS) / monitoring.window,
        )
        self._plan = CovariatePlan(
            least, _SEVERE_DISTANCE * least, min(chances.warn_alpha, 0.5), min(chances.severe_alpha, 0.05)
        )
        self._bins = {
            column.name: (
                Bins(edges=column.edges, levels=column.categories),
                Histogram((*column.counts, column.nulls)),
            )
            for column in (reference.columns if reference is not None else ())
            if sum(column.counts) + column.nulls >= _LEAST_ROWS
        }
        self._window: int | None = None
        self._columns: dict[str, ColumnEvidence] = {}
        self._batches = 0

    def feed(self, cohort: Cohort) -> None:
        """Adds matured decisions, whatever became of them."""
        if not self._bins:
            return
        windows = np.floor(cohort.seconds / self._length).astype(np.int64)
        for window in np.unique(windows).tolist():
            if self._window is None or window > self._window:
                self._open(window)
            rows = cohort.where(windows == window)
            self._batches += 1
            for name, column in self._columns.items():
                column.update(self._histogram(name, rows), np.random.default_rng([self._batches, _seed(name)]))

    def evidence(self) -> DetectorEvidence:
        """What the current window says."""
        if not self._columns:
            return DetectorEvidence(message="Needs a model's training reference.")
        drifts = judge(self._columns, self._plan)
        worst = max(drifts.values(), key=lambda drift: (drift.severity, drift.distance))
        strongest = sorted(drifts.items(), key=lambda item: -item[1].distance)
        drifted = [name for name, drift in strongest if drift.severity is not Severity.NONE]
        return DetectorEvidence(
            severity=NAMES[worst.severity],
            message=f"Drifted: {_listed(drifted)}." if drifted else "No column drifted.",
            changed_at=instant((self._window or 0) * self._length * 1e6) if drifted else None,
            evidence={
                name: f"distance {drift.distance:.3f}, e {drift.evidence:.3g}" for name, drift in strongest[:_SHOWN]
            },
        )

    def state(self) -> dict[str, Any]:
        """What a restart needs to go on exactly."""
        return {
            "window": self._window,
            "columns": {name: column.state() for name, column in self._columns.items()},
            "batches": self._batches,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same reference."""
        self._batches = state["batches"]
        if state["window"] is not None:
            self._open(state["window"])
            for name, column in state["columns"].items():
                if name in self._columns:
                    self._columns[name].restore(column)

    def _open(self, window: int) -> None:
        self._window = window
        self._columns = {
            name: ColumnEvidence(reference, np.random.default_rng([window, _seed(name)]))
            for name, (_, reference) in self._bins.items()
        }

    def _histogram(self, name: str, cohort: Cohort) -> Histogram:
        bins, _ = self._bins[name]
        column = cohort.column(log.CONTEXT_PREFIX + name)
        if bins.levels:
            return bins.count_levels([None if value is None else str(value) for value in column.tolist()])
        return bins.count_numbers(column.astype(np.float64))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _seed(name: str) -> int:
    return int.from_bytes(name.encode()[:8], "big")
