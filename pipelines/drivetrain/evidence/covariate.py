"""Covariate drift on Context columns: a bias-corrected distance, an effect threshold and sequential evidence.

Evidence: Turner, Ly & Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping" (2024). A block of n_a reference rows and n_b live rows is worth
prod p_a / p_0 over the former times prod p_b / p_0 over the latter, with p_0 = (n_a p_a + n_b p_b) / (n_a + n_b); under
any common distribution its expectation is at most 1, whatever p_a and p_b were fixed before the block. Here p_a comes
from reference rows kept apart for it and p_b from the window's earlier blocks. The reference is a sample as well: its
other rows are dealt to blocks without replacement, and each window deals them anew, so by Ville's inequality a window
without drift alarms with probability at most alpha, whatever the windows share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.calibration import Severity
from drivetrain.evidence.histogram import Histogram, distance

Counts: TypeAlias = NDArray[np.int64]

_SHRINKAGE: Final = 50.0  # rows' worth of belief that live rows look like the reference, at a window's start
_BLOCK_ROWS: Final = 100
_SPENT_PER_BLOCK: Final = 0.25  # of the reference rows that are left, at most: late blocks must find some too


@dataclass(frozen=True, slots=True)
class CovariatePlan:
    """Effect thresholds on the corrected distance, and the chance of a false alarm in one window at each severity."""

    warn_distance: float
    severe_distance: float
    warn_alpha: float
    severe_alpha: float

    @classmethod
    def of_rates(cls, *, warn_per_year: float, severe_per_year: float, windows_per_year: float) -> "CovariatePlan":
        """The usual thresholds (0.1 and 0.25) with false alarms stated per year."""
        return cls(0.1, 0.25, warn_per_year / windows_per_year, severe_per_year / windows_per_year)


class WindowState(TypedDict):
    """What one column's evidence in the current window persists: counts by bin, and the e-process's logarithm."""

    learnt: list[int]
    left: list[int]
    live: list[int]
    log_evidence: float


class ColumnEvidence:
    """E-process of one column in one window against the null that reference and live rows come from one distribution.

    `rng` deals rows to blocks; it must not be fed from the data.
    """

    def __init__(self, reference: Histogram, rng: np.random.Generator) -> None:
        if reference.rows < 100:
            raise DrivetrainError("A drift reference needs at least 100 rows.")
        self._reference = reference
        self._learnt: Counts = rng.multivariate_hypergeometric(reference.array, reference.rows // 2)
        self._left: Counts = reference.array - self._learnt
        self._live: Counts = np.zeros_like(self._left)
        self._log = 0.0

    def update(self, batch: Histogram, rng: np.random.Generator) -> None:
        """Add a batch of live rows; it is dealt to blocks of at most 100 rows, from which the next ones learn."""
        waiting = batch.array
        while (rows := int(waiting.sum())) > 0:
            block = rng.multivariate_hypergeometric(waiting, min(rows, _BLOCK_ROWS))
            waiting = waiting - block
            self._bet(block, rng)

    @property
    def evidence(self) -> float:
        """The e-process: under the null it ever reaches 1 / alpha with probability at most alpha."""
        return float(np.exp(min(self._log, 500.0)))

    @property
    def distance(self) -> float:
        """Bias-corrected distance of the window's rows from the reference."""
        return distance(self._reference, Histogram(tuple(self._live.tolist())))

    def state(self) -> WindowState:
        """The small value from which the window goes on."""
        return {
            "learnt": self._learnt.tolist(),
            "left": self._left.tolist(),
            "live": self._live.tolist(),
            "log_evidence": self._log,
        }

    def restore(self, state: WindowState) -> None:
        """Go on from a state of a column with the same reference; raises DrivetrainError for another one."""
        learnt, left = (np.asarray(state[key], dtype=np.int64) for key in ("learnt", "left"))
        if len(left) != len(self._left) or np.any(learnt + left > self._reference.array):
            raise DrivetrainError("The stored evidence belongs to another reference.")
        self._learnt, self._left = learnt, left
        self._live = np.asarray(state["live"], dtype=np.int64)
        self._log = state["log_evidence"]

    def _bet(self, block: Counts, rng: np.random.Generator) -> None:
        rows = int(block.sum())
        dealt = min(rows, int(np.ceil(_SPENT_PER_BLOCK * int(self._left.sum()))))
        if dealt:
            partner = rng.multivariate_hypergeometric(self._left, dealt)
            p_a = (self._learnt + 0.5) / (self._learnt.sum() + 0.5 * len(self._learnt))
            p_b = (self._live + _SHRINKAGE * p_a) / (self._live.sum() + _SHRINKAGE)
            p_0 = (dealt * p_a + rows * p_b) / (dealt + rows)
            self._log += float(partner @ np.log(p_a / p_0) + block @ np.log(p_b / p_0))
            self._left = self._left - partner
        self._live = self._live + block


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column's reading: corrected distance, evidence, and the severity that both together reach."""

    distance: float
    evidence: float
    severity: Severity


def discoveries(evidence: Mapping[str, float], alpha: float) -> frozenset[str]:
    """e-BH (Wang & Ramdas 2022): the columns whose evidence survives, false discoveries at most `alpha` on average."""
    ranked = sorted(evidence, key=lambda name: -evidence[name])
    kept = 0
    for rank, name in enumerate(ranked, start=1):
        if evidence[name] * rank * alpha >= len(ranked):
            kept = rank
    return frozenset(ranked[:kept])


def judge(columns: Mapping[str, ColumnEvidence], plan: CovariatePlan) -> dict[str, ColumnDrift]:
    """Each column's severity: evidence that survives e-BH over all columns, and a distance beyond the threshold."""
    evidence = {name: column.evidence for name, column in columns.items()}
    severe = discoveries(evidence, plan.severe_alpha)
    warned = discoveries(evidence, plan.warn_alpha)
    result = {}
    for name, column in columns.items():
        moved = column.distance
        severity = Severity.NONE
        if name in severe and moved > plan.severe_distance:
            severity = Severity.SEVERE
        elif name in warned and moved > plan.warn_distance:
            severity = Severity.WARN
        result[name] = ColumnDrift(moved, evidence[name], severity)
    return result
