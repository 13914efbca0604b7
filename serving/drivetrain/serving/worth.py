"""What decisions were worth: the KPI over the monitoring window, against the holdout and against what was promised."""

from datetime import datetime
from typing import Any, Final

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import KpiEvidence
from drivetrain.levers.assignment import Arm
from drivetrain.levers.grid import Floats
from drivetrain.serving.judged import Realised
from drivetrain.serving.maturation import Cohort

_BUCKETS: Final = 24
"""Parts of the window that are forgotten one by one."""
_LEVEL: Final = 0.95
_SUMS: Final = 13


class Worth:
    """Sums by part of the window: rows, KPI, its square; the same for stable's units, the holdout, and promises.

    And how many decisions were answered, and how many of them a person overrode.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self._length = config.monitoring.window.total_seconds() / _BUCKETS
        self._buckets: dict[int, list[float]] = {}

    def feed(self, cohort: Cohort, outcome: Realised) -> None:
        """Adds a matured cohort."""
        known = np.isfinite(outcome.kpi)
        if not known.any():
            return
        arm = cohort.texts(log.ARM)
        held = np.asarray(arm == Arm.HOLDOUT.value, dtype=bool)
        stable = np.asarray(arm == Arm.STABLE.value, dtype=bool)
        promised = cohort.numbers(log.EXPECTED_VALUE)
        bucket = np.floor(cohort.seconds / self._length).astype(np.int64)
        for number in np.unique(bucket[known]).tolist():
            rows = known & (bucket == number)
            sums = self._buckets.setdefault(number, [0.0] * _SUMS)
            for place, part in ((0, rows), (3, rows & stable), (6, rows & held)):
                sums[place] += float(part.sum())
                sums[place + 1] += float(outcome.kpi[part].sum())
                sums[place + 2] += float((outcome.kpi[part] ** 2).sum())
            valued = rows & np.isfinite(promised)
            sums[9] += float((promised[valued] - outcome.kpi[valued]).sum())
            sums[10] += float(valued.sum())
            sums[11] += float((rows & (~outcome.missing | outcome.overridden)).sum())
            sums[12] += float((rows & outcome.overridden).sum())
        latest = max(self._buckets)
        for number in [number for number in self._buckets if number <= latest - _BUCKETS]:
            del self._buckets[number]

    def report(self, now: datetime) -> KpiEvidence | None:
        """The window's figures, None before the first matured decision."""
        total = self._total(now)
        rows = int(total[0])
        if rows == 0:
            return None
        mean = float(total[1] / rows)
        radius = _radius(rows, float(total[2] / rows - mean**2))
        versus = float(total[4] / total[3] - total[7] / total[6]) if total[3] and total[6] else None
        return KpiEvidence(
            mean=mean,
            lower=mean - radius if radius is not None else None,
            upper=mean + radius if radius is not None else None,
            versus_holdout=versus,
            promised=mean + float(total[9] / total[10]) if total[10] else None,
            decisions=rows,
        )

    def compliance(self, now: datetime) -> dict[str, str]:
        """What status says of decisions that people overrode in the window: nothing while there are none."""
        answered, overridden = self._total(now)[11:13].tolist()
        if not overridden:
            return {}
        return {"compliance": f"{1 - overridden / answered:.1%} of {answered:.0f} decisions were applied as decided"}

    def _total(self, now: datetime) -> Floats:
        recent = now.timestamp() / self._length - 2 * _BUCKETS  # what matures is older than what is decided
        sums = [values for number, values in self._buckets.items() if number > recent] or [[0.0] * _SUMS]
        return np.asarray(np.array(sums).sum(axis=0), dtype=np.float64)

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        return {"length": self._length, "buckets": {str(number): sums for number, sums in self._buckets.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state of the same window."""
        if state["length"] == self._length:
            self._buckets = {int(number): list(sums) for number, sums in state["buckets"].items()}


def _radius(rows: int, variance: float) -> float | None:
    """Half-width of an asymptotic 95 % confidence sequence (Waudby-Smith et al. 2024), tuned for this many rows."""
    if rows < 100 or variance <= 0:
        return None
    alpha = 1 - _LEVEL
    odds = -2 * np.log(alpha)
    precision = (odds + np.log(odds + 1)) / (rows * variance)
    spread = (rows * variance + 1 / precision) * np.log((rows * variance * precision + 1) / alpha**2)
    return float(np.sqrt(spread) / rows)
