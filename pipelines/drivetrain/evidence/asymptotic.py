"""Asymptotic confidence sequence for a weighted mean of increments without usable bounds.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences" (Annals of Statistics, 2024): the Gaussian-mixture boundary in its form for means that vary over time
(Lindeberg/Lyapunov), started late so that its error holds over all times after the start. With V the sum of squared
deviations of v x, the bounds lie sqrt((V + 1 / r) log((V r + 1) / alpha^2)) / sum(v) on either side of the estimate.
"""

from typing import Final, TypedDict

import numpy as np

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.intervals import Bools, Floats, Interval

MINIMUM_PER_ARM: Final = 100
"""Matured outcomes per arm before which nothing is claimed: the theory speaks about large samples only."""

_TIGHTEST_AT: Final = 10  # multiples of the information at the start, where the mixture is tightest
_LEAST_DEVIATION: Final = 1e-4  # of the scale; below it the estimated width collapses faster than the theory holds


class AsymptoticState(TypedDict):
    """What a sequence of one run persists: counts per arm, five sums, and the mixture's precision (0: not started)."""

    counts: list[float]
    sums: list[float]
    precision: float


class AsymptoticSequence:
    """Two-sided asymptotic confidence sequence for sum(v x) / sum(v), with at least 100 matured outcomes per arm.

    `scale` is the width of the declared clipping range: a metric whose increments deviate by less than 1e-4 of it gets
    no bounds at all. `runs` is the shape of independent runs updated together; () is one run.
    """

    def __init__(self, *, alpha: float, scale: float, runs: tuple[int, ...] = ()) -> None:
        if not (0 < alpha < 1 and scale > 0):
            raise DrivetrainError(f"An asymptotic sequence needs 0 < alpha < 1 and scale > 0, got {alpha} and {scale}.")
        self._alpha = alpha
        self._scale = scale
        self._counts = np.zeros((*runs, 2))
        self._sums = np.zeros((*runs, 5))  # of v, v^2, v x, v (v x), (v x)^2
        self._precision = np.zeros(runs)

    def update(self, x: Floats, weight: Floats, candidate: Bools | None) -> None:
        """Add increments in decision order, arrays of shape (*runs, n); candidate=None: each row counts for both arms.

        The mixture is frozen at the very increment at which both arms reach 100, wherever a batch ends: how rows are
        batched must not change the evidence.
        """
        if x.shape[-1] == 0:
            return
        arms = np.ones((*x.shape, 2)) if candidate is None else np.stack([~candidate, candidate], axis=-1)
        vx = weight * x
        terms = np.stack([weight, weight * weight, vx, weight * vx, vx * vx], axis=-1)
        counts = self._counts[..., None, :] + np.cumsum(arms, axis=-2)
        sums = self._sums[..., None, :] + np.cumsum(terms, axis=-2)
        ready = (counts.min(axis=-1) >= MINIMUM_PER_ARM) & (_variance(sums) > 0)
        first = np.argmax(ready, axis=-1)[..., None, None]
        at_start = _variance(np.take_along_axis(sums, first, axis=-2))[..., 0]
        starts = (self._precision == 0) & ready.any(axis=-1)
        log_odds = -2 * np.log(self._alpha)
        precision = (log_odds + np.log(log_odds + 1)) / np.where(starts, _TIGHTEST_AT * at_start, 1.0)
        self._precision = np.where(starts, precision, self._precision)
        self._counts, self._sums = counts[..., -1, :], sums[..., -1, :]

    def exceeds(self, mean: float) -> Bools:
        """Whether the sequence lies wholly above `mean`; shape runs."""
        estimate, radius = self._estimate_and_radius()
        return np.asarray(estimate - radius > mean)

    def falls_below(self, mean: float) -> Bools:
        """Whether the sequence lies wholly below `mean`; shape runs."""
        estimate, radius = self._estimate_and_radius()
        return np.asarray(estimate + radius < mean)

    def interval(self) -> Interval:
        """Estimate and current bounds of one run (runs=()); infinite bounds before the start."""
        estimate, radius = self._estimate_and_radius()
        return Interval(float(estimate), float(estimate - radius), float(estimate + radius))

    def state(self) -> AsymptoticState:
        """The small value from which one run goes on."""
        return {
            "counts": self._counts.tolist(),
            "sums": self._sums.tolist(),
            "precision": float(self._precision),
        }

    def restore(self, state: AsymptoticState) -> None:
        """Go on from a state of a sequence declared alike."""
        self._counts = np.asarray(state["counts"], dtype=np.float64)
        self._sums = np.asarray(state["sums"], dtype=np.float64)
        self._precision = np.asarray(state["precision"], dtype=np.float64)

    def _estimate_and_radius(self) -> tuple[Floats, Floats]:
        weight = self._sums[..., 0]
        known = weight > 0
        estimate = np.where(known, self._sums[..., 2] / np.where(known, weight, 1.0), 0.0)
        variance = _variance(self._sums)
        least = (_LEAST_DEVIATION * self._scale) ** 2 * self._sums[..., 1]
        started = (self._precision > 0) & (variance > least)
        precision = np.where(started, self._precision, 1.0)
        boundary = (variance + 1 / precision) * np.log((variance * precision + 1) / self._alpha**2)
        return estimate, np.where(started, np.sqrt(boundary) / np.where(known, weight, 1.0), np.inf)


def _variance(sums: Floats) -> Floats:
    """Sum of (v x - v estimate)^2 from the five sums on the last axis."""
    weight = sums[..., 0]
    estimate = sums[..., 2] / np.where(weight > 0, weight, 1.0)
    spread = sums[..., 4] - 2 * estimate * sums[..., 3] + estimate**2 * sums[..., 1]
    return np.asarray(np.maximum(spread, 0.0))
