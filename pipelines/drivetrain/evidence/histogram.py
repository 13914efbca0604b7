"""Mergeable histograms over bins that a reference fixed, so that drift over any window is a sum and not a scan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.intervals import Floats

_SMOOTHING: Final = 0.5  # pseudo-count per bin: a bin that one side lacks must not make the distance infinite


class BinsState(TypedDict):
    """What fixed bins persist."""

    edges: list[float]
    levels: list[str]


@dataclass(frozen=True, slots=True)
class Bins:
    """Bins of one column: numeric by inner `edges`, or categorical by `levels` plus one for others; null comes last."""

    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()

    @classmethod
    def of_numbers(cls, values: Floats, count: int = 10) -> "Bins":
        """Bins of about equal reference mass; NaN is null. A column of few distinct values gets fewer bins."""
        known = values[~np.isnan(values)]
        if not known.size:
            raise DrivetrainError("A reference column without any value cannot fix bins.")
        quantiles = np.quantile(known, np.arange(1, count) / count, method="inverted_cdf")
        inner = np.unique(quantiles[quantiles < known.max()])
        return cls(edges=tuple(inner.tolist()))

    @classmethod
    def of_levels(cls, values: Sequence[str | None], most: int = 20) -> "Bins":
        """One bin for each of the `most` frequent reference levels (ties by name)."""
        known = [value for value in values if value is not None]
        if not known:
            raise DrivetrainError("A reference column without any value cannot fix bins.")
        names, counts = np.unique(np.asarray(known), return_counts=True)
        frequent = sorted(zip((-counts).tolist(), names.tolist(), strict=True))[:most]
        return cls(levels=tuple(sorted(name for _, name in frequent)))

    def __len__(self) -> int:
        return len(self.levels) + 2 if self.levels else len(self.edges) + 2

    def count_numbers(self, values: Floats) -> "Histogram":
        """Counts of numeric rows; a value on an edge falls into the lower bin."""
        index = np.where(np.isnan(values), len(self) - 1, np.searchsorted(np.asarray(self.edges), values, side="left"))
        return Histogram(tuple(np.bincount(index, minlength=len(self)).tolist()))

    def count_levels(self, values: Sequence[str | None]) -> "Histogram":
        """Counts of categorical rows."""
        place = {level: number for number, level in enumerate(self.levels)}
        other, null = len(self) - 2, len(self) - 1
        index = [null if value is None else place.get(value, other) for value in values]
        return Histogram(tuple(np.bincount(np.asarray(index, dtype=np.intp), minlength=len(self)).tolist()))

    def state(self) -> BinsState:
        """The value from which the same bins are made again."""
        return {"edges": list(self.edges), "levels": list(self.levels)}

    @classmethod
    def from_state(cls, state: BinsState) -> "Bins":
        """The bins of a state."""
        return cls(tuple(state["edges"]), tuple(state["levels"]))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bin; histograms over the same bins add up."""

    counts: tuple[int, ...]

    def __add__(self, other: "Histogram") -> "Histogram":
        if len(self.counts) != len(other.counts):
            raise DrivetrainError("Histograms over different bins do not add up.")
        return Histogram(tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return sum(self.counts)

    @property
    def array(self) -> NDArray[np.int64]:
        """The counts as an array."""
        return np.asarray(self.counts, dtype=np.int64)


def distance(reference: Histogram, live: Histogram) -> float:
    """Population stability index less its expectation without drift, (B - 1) (1 / n + 1 / m); may be negative.

    B counts the bins that either side uses. Pseudo-counts of one half keep it finite. 0 rows on a side give 0.
    """
    n, m = reference.rows, live.rows
    if not n or not m:
        return 0.0
    used = (reference.array + live.array) > 0
    bins = int(used.sum())
    p = (reference.array[used] + _SMOOTHING) / (n + _SMOOTHING * bins)
    q = (live.array[used] + _SMOOTHING) / (m + _SMOOTHING * bins)
    return float(np.sum((q - p) * np.log(q / p))) - (bins - 1) * (1 / n + 1 / m)
