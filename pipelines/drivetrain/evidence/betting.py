"""Betting confidence sequence for one weighted mean of bounded increments.

Source: Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (JRSS B, 2024), as a mixture
over fixed fractions.

For a hypothetical mean t the capital of one fraction c is the product over increments of 1 + c v (x - t) / bound. Every
fraction is fixed in advance, and so is `bound`, which makes the test one of the *running weighted mean* even when the
effect moves: the expected factors multiply to at most exp(c / bound * sum v (mean - t)), which is at most 1 whenever
the weighted mean is on the null's side, so Ville's inequality holds at every stopping time. A bet that followed the
row (its predictions, its own range) would test another average.
"""

from collections.abc import Sequence
from typing import Final, TypedDict

import numpy as np
from scipy.special import logsumexp

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.intervals import Bools, Floats, Interval

FRACTIONS: Final[Floats] = 0.95 * 1.6 ** -np.arange(8.0)
"""The eight fractions of the largest safe bet; the smallest is about the best bet once 300,000 decisions are in."""

_CHUNK_ROWS: Final = 128  # a product of so many factors, each at least 0.05, stays far above the smallest float
_CHUNK_ELEMENTS: Final = 65_536  # half a megabyte of stakes at a time stays in the cache


class BettingState(TypedDict):
    """What a sequence of one run persists: log capital by side, fraction and mean, and the sums behind the estimate."""

    log_capital: list[float]
    total: float
    weight: float


def mean_grid(limit: float, marks: Sequence[float], points: int = 12) -> Floats:
    """Hypothetical means in [-limit, limit], densest at 0, with every mark on the grid."""
    arms = limit * np.sinh(4.0 * np.arange(1, points + 1) / points) / np.sinh(4.0)
    return np.unique(np.concatenate([-arms, [0.0], arms, np.asarray(marks, dtype=np.float64)]))


class BettingSequence:
    """Two-sided confidence sequence for sum(v x) / sum(v), valid at every stopping time.

    `bound` is known in advance and satisfies |v (x - t)| <= bound for every increment x, its weight v and every t of
    `means`. `means` is the sorted grid of hypothetical means; between its points bounds are interpolated
    conservatively. `runs` is the shape of independent runs updated together (simulations); () is one run.
    """

    def __init__(self, *, alpha: float, bound: float, means: Floats, runs: tuple[int, ...] = ()) -> None:
        if not (0 < alpha < 1 and bound > 0):
            raise DrivetrainError(f"A betting sequence needs 0 < alpha < 1 and bound > 0, got {alpha} and {bound}.")
        self._threshold = float(np.log(2 / alpha))  # each side takes half of alpha
        self._bound = bound
        self._means = means
        self._log = np.zeros((*runs, 2, len(FRACTIONS), len(means)))
        self._total = np.zeros(runs)
        self._weight = np.zeros(runs)

    def update(self, x: Floats, weight: Floats) -> None:
        """Add increments in decision order; both arrays have shape (*runs, n)."""
        # Rows come first, so that the product over them runs along contiguous memory.
        v = np.moveaxis(weight / self._bound, -1, 0)[..., None, None]
        vx = v * np.moveaxis(x, -1, 0)[..., None, None]
        chunk = int(np.clip(_CHUNK_ELEMENTS // (self._log.size // 2), 8, _CHUNK_ROWS))
        for start in range(0, len(v), chunk):
            rows = slice(start, start + chunk)
            stake = FRACTIONS[:, None] * (vx[rows] - v[rows] * self._means)
            self._log[..., 0, :, :] += np.log(np.prod(1 + stake, axis=0))
            self._log[..., 1, :, :] += np.log(np.prod(1 - stake, axis=0))
        self._total += np.sum(weight * x, axis=-1)
        self._weight += np.sum(weight, axis=-1)

    def exceeds(self, mean: float) -> Bools:
        """Whether the sequence lies wholly above `mean`, which must be on the grid; shape runs."""
        return np.asarray(self._log_mixture(0, mean) >= self._threshold)

    def falls_below(self, mean: float) -> Bools:
        """Whether the sequence lies wholly below `mean`, which must be on the grid; shape runs."""
        return np.asarray(self._log_mixture(1, mean) >= self._threshold)

    def interval(self) -> Interval:
        """Estimate and current bounds of one run (runs=())."""
        estimate = float(self._total / self._weight) if self._weight > 0 else float("nan")
        lower = self._edge(self._log[0], self._means)
        upper = self._edge(self._log[1][:, ::-1], self._means[::-1])
        return Interval(estimate, lower, upper)

    def state(self) -> BettingState:
        """The small value from which one run goes on."""
        return {"log_capital": self._log.ravel().tolist(), "total": float(self._total), "weight": float(self._weight)}

    def restore(self, state: BettingState) -> None:
        """Go on from a state of a sequence declared alike; raises DrivetrainError when the grids differ."""
        log = np.asarray(state["log_capital"], dtype=np.float64)
        if log.size != self._log.size:
            raise DrivetrainError("The stored evidence belongs to another declaration of this metric.")
        self._log = log.reshape(self._log.shape)
        self._total = np.asarray(state["total"], dtype=np.float64)
        self._weight = np.asarray(state["weight"], dtype=np.float64)

    def _log_mixture(self, side: int, mean: float) -> Floats:
        column = int(np.searchsorted(self._means, mean))
        if column == len(self._means) or self._means[column] != mean:
            raise DrivetrainError(f"{mean} is not one of the hypothetical means that this sequence follows.")
        return np.asarray(logsumexp(self._log[..., side, :, column], axis=-1) - np.log(len(FRACTIONS)))

    def _edge(self, log: Floats, means: Floats) -> float:
        """The last mean, coming from the rejected end, that is still rejected.

        Each fraction's log capital is concave in the mean, so the chord between grid points lies below it: what the
        chord rejects, the capital rejects.
        """
        goal = self._threshold + np.log(len(FRACTIONS))
        rejected = logsumexp(log, axis=0) >= goal
        if not rejected[0]:
            return float(means[0])
        last = len(means) - 1 if rejected.all() else int(np.argmin(rejected)) - 1
        if last == len(means) - 1:
            return float(means[last])
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            chord = (1 - middle) * log[:, last] + middle * log[:, last + 1]
            low, high = (middle, high) if logsumexp(chord) >= goal else (low, middle)
        return float((1 - low) * means[last] + low * means[last + 1])
