"""Restarting e-detector: has the mean of a stream left the band in which it was after promotion?

Source: Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for sequential change detection" (NEJSDS, 2024),
Shiryaev-Roberts form M <- (M + 1) e, mixed over fixed fractions and both directions. While the null holds the expected
statistic grows by at most 1 a row, so the average run length to a false alarm at threshold A is at least A rows.
Unlike an e-process counted from promotion it does not lose its sight with age: every row is also a possible start.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypedDict

import numpy as np
from scipy.stats import norm

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.betting import FRACTIONS
from drivetrain.evidence.intervals import Floats

_CHUNK_ROWS: Final = 128  # a product of so many factors, each at least 0.05, stays far above the smallest float
_LARGEST: Final = 1e250  # evidence saturates here; a change that nobody answered must not overflow
_SIGNS: Final = {"Up": 1.0, "Down": -1.0}

Direction = Literal["Up", "Down"]


def average_run_length(false_alarms_per_year: float, rows_per_year: float) -> float:
    """Rows between false alarms that the stated rate allows."""
    if not (false_alarms_per_year > 0 and rows_per_year > 0):
        raise DrivetrainError("State a positive number of false alarms and of rows per year.")
    return rows_per_year / false_alarms_per_year


def false_alarms_per_year(average_run_length: float, rows_per_year: float) -> float:
    """The most false alarms a year, on average, at this average run length."""
    return rows_per_year / average_run_length


@dataclass(frozen=True, slots=True)
class Band:
    """The null of a detector: the mean stays within `tolerance` of an offset measured on the first `offset_rows` rows.

    `bound`: |weight * x| never exceeds it, known in advance. The offset's confidence radius at `offset_level` is added
    to the tolerance, so that a badly measured offset does not look like a change.
    """

    bound: float
    tolerance: float
    offset_rows: int
    directions: tuple[Direction, ...] = ("Up", "Down")
    offset_level: float = 0.99

    def __post_init__(self) -> None:
        if not (self.bound > 0 and self.tolerance >= 0 and self.offset_rows >= 100 and self.directions):
            raise DrivetrainError("A band needs bound > 0, tolerance >= 0 and an offset from at least 100 rows.")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a detector says of one stream: `evidence` is the largest statistic within the latest update that had rows.

    `offset` and `radius` are None until the first rows are in; `direction` and `began` (the position at which the
    likeliest change began) describe the strongest bet and mean something only when the evidence is large.
    """

    rows: int
    offset: float | None
    radius: float | None
    evidence: float
    direction: Direction
    began: float


class DetectorState(TypedDict):
    """What a detector persists, all streams' values one after the other."""

    rows: int
    sums: list[float]
    statistic: list[float]
    excursion: list[float]
    began: list[float]
    peak: list[float]


class Detector:
    """Shiryaev-Roberts e-detector on one stream; `runs` is the shape of independent streams of equal length."""

    def __init__(self, band: Band, *, runs: tuple[int, ...] = ()) -> None:
        self._band = band
        self._signs = np.array([_SIGNS[direction] for direction in band.directions])
        bets = (*runs, len(self._signs), len(FRACTIONS))
        self._rows = 0
        self._sums = np.zeros((*runs, 5))  # of v, v^2, v x, v (v x), (v x)^2 over the offset's rows
        self._statistic = np.zeros(bets)
        self._excursion = np.zeros(bets)  # log of the CUSUM form, whose last start estimates the change
        self._began = np.zeros(bets)
        self._peak = np.zeros(runs)

    def update(self, x: Floats, at: Floats, weight: Floats | None = None) -> None:
        """Add matured rows in decision order, x of shape (*runs, n); `at` (n,) is each row's position or time.

        An update without rows says nothing and changes nothing. Raises DrivetrainError for a value beyond the bound.
        """
        v = np.ones_like(x) if weight is None else weight
        if not np.all(np.abs(v * x) <= self._band.bound * (1 + 1e-9)):
            raise DrivetrainError(f"A value lies beyond the declared bound {self._band.bound}.")
        if not x.shape[-1]:
            return
        self._peak = np.zeros_like(self._peak)
        head = min(max(self._band.offset_rows - self._rows, 0), x.shape[-1])
        if head:
            first, vx = v[..., :head], v[..., :head] * x[..., :head]
            self._sums += np.stack([first, first * first, vx, first * vx, vx * vx], axis=-1).sum(axis=-2)
        self._rows += x.shape[-1]
        for start in range(head, x.shape[-1], _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            self._bet(x[..., rows], v[..., rows], at[rows])

    def offset(self) -> tuple[Floats, Floats]:
        """Mean of the first rows and its confidence radius; shape runs."""
        weight = self._sums[..., 0]
        mean = self._sums[..., 2] / weight
        spread = self._sums[..., 4] - 2 * mean * self._sums[..., 3] + mean**2 * self._sums[..., 1]
        z = float(norm.ppf((1 + self._band.offset_level) / 2))
        return mean, z * np.sqrt(np.maximum(spread, 0.0)) / weight

    @property
    def ready(self) -> bool:
        """Whether the offset is measured."""
        return self._rows >= self._band.offset_rows

    @property
    def peak(self) -> Floats:
        """The largest statistic within the latest update that had rows; shape runs.

        An alarm is peak >= average run length.
        """
        return self._peak

    def reading(self, run: tuple[int, ...] = ()) -> Reading:
        """What the detector says of one of its streams."""
        excursion = self._excursion[run]
        best = np.unravel_index(int(np.argmax(excursion)), excursion.shape)
        offset, radius = self.offset() if self.ready else (None, None)
        return Reading(
            rows=self._rows,
            offset=None if offset is None else float(offset[run]),
            radius=None if radius is None else float(radius[run]),
            evidence=float(self._peak[run]),
            direction=self._band.directions[int(best[0])],
            began=float(self._began[run][best]),
        )

    def state(self) -> DetectorState:
        """The small value from which the detector goes on."""
        return {
            "rows": self._rows,
            "sums": self._sums.ravel().tolist(),
            "statistic": self._statistic.ravel().tolist(),
            "excursion": self._excursion.ravel().tolist(),
            "began": self._began.ravel().tolist(),
            "peak": self._peak.ravel().tolist(),
        }

    def restore(self, state: DetectorState) -> None:
        """Go on from a state of the same band and streams; raises DrivetrainError when it had others."""
        if len(state["statistic"]) != self._statistic.size:
            raise DrivetrainError("The stored evidence belongs to another declaration of this detector.")
        self._rows = state["rows"]
        self._sums = np.asarray(state["sums"], dtype=np.float64).reshape(self._sums.shape)
        self._statistic, self._excursion, self._began = (
            np.asarray(values, dtype=np.float64).reshape(self._statistic.shape)
            for values in (state["statistic"], state["excursion"], state["began"])
        )
        self._peak = np.asarray(state["peak"], dtype=np.float64).reshape(self._peak.shape)

    def _bet(self, x: Floats, v: Floats, at: Floats) -> None:
        offset, radius = self.offset()
        reach = self._band.tolerance + radius
        edges = offset[..., None] + self._signs * reach[..., None]  # (*runs, directions)
        bound = self._band.bound + np.max(np.abs(edges), axis=-1)  # fixed once the offset is
        rows_first = np.moveaxis(v, -1, 0)[..., None]
        gain = self._signs * (np.moveaxis(v * x, -1, 0)[..., None] - rows_first * edges)
        growth = np.cumprod(1 + FRACTIONS * (gain / bound[..., None])[..., None], axis=0)
        # M_t = (M_{t-1} + 1) e_t, unrolled: growth_t times (M_0 + sum of 1 / growth over earlier rows, from 1).
        before = np.concatenate([np.ones_like(growth[:1]), growth[:-1]])
        statistic = np.minimum(growth * (self._statistic + np.cumsum(1 / before, axis=0)), _LARGEST)
        self._statistic = statistic[-1]
        self._peak = np.maximum(self._peak, statistic.mean(axis=(-2, -1)).max(axis=0))
        # The CUSUM's last start: the row before which the capital was lowest, unless the old excursion beats them all.
        starts = np.concatenate([self._excursion[None], -np.log(before)])
        latest = len(starts) - 1 - np.argmax(starts[::-1], axis=0)
        self._began = np.where(latest == 0, self._began, at[np.maximum(latest - 1, 0)])
        self._excursion = np.minimum(np.log(growth[-1]) + starts.max(axis=0), np.log(_LARGEST))
