"""Value of a policy before it sees live traffic, from decisions whose propensity was logged.

Source: Dudik, Erhan, Langford & Li, "Doubly robust policy evaluation and optimization" (Statistical Science, 2014),
with the nuisance model cross-fitted (Chernozhukov et al., 2018): it is fitted on other folds than it predicts, and it
is never the model that chose the actions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence import clustered
from drivetrain.evidence.clustered import Clusters
from drivetrain.evidence.intervals import Bools, Floats, Interval

LEAST_EFFECTIVE_SAMPLE: Final = 100.0
"""Below it an interval would rest on a handful of decisions."""

Rows: TypeAlias = NDArray[np.intp]

Nuisance: TypeAlias = Callable[[Rows, Rows], tuple[Floats, Floats]]
"""Fit on the first rows, predict for the second: the KPI at the logged action, its mean over the policy's actions."""


class Reason(StrEnum):
    """Why a policy's value cannot be had from a log."""

    NO_PROPENSITIES = "NoPropensities"
    NO_OVERLAP = "NoOverlap"
    SMALL_EFFECTIVE_SAMPLE = "SmallEffectiveSample"


@dataclass(frozen=True, slots=True)
class NotIdentified:
    """The log does not identify the policy's value: shown, never counted as passed or failed."""

    reason: Reason
    message: str
    effective_sample: float


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """Mean KPI per decision under the policy, with a two-sided interval.

    `overlap` is the share of decisions in whose importance weight the policy and the log agree at all (weight > 0);
    `effective_sample` is (sum of weights)^2 / sum of squared weights, where a weight is the sum of a cluster's;
    `scores` are the rows' doubly robust values, whose mean is the estimate, and `cluster` is whose row it was.
    """

    value: Interval
    rows: int
    effective_sample: float
    overlap: float
    largest_weight: float
    scores: Floats = field(repr=False, compare=False)
    cluster: Clusters = field(repr=False, compare=False)

    def gain_over(self, champion: "PolicyValue") -> Interval:
        """The mean KPI beyond the champion's on the same decisions: paired, so that what both share cancels.

        Raises DrivetrainError where the two were not valued on the same decisions.
        """
        if not np.array_equal(self.cluster, champion.cluster):
            raise DrivetrainError("Policies are compared on the same decisions.")
        return clustered.mean(self.scores - champion.scores, self.cluster)


@dataclass(frozen=True, slots=True)
class LoggedDecisions:
    """Matured decisions, fallbacks and overridden ones left out; arrays of one length.

    `propensity`: with which the log chose its action (NaN: not logged); `target`: with which the policy would;
    `cluster`: whose decision it was (exploration is drawn once a unit, and a unit's outcomes go together); `fold`:
    small integers from a stable hash of the cluster.
    """

    kpi: Floats
    propensity: Floats
    target: Floats
    cluster: Clusters
    fold: NDArray[np.int64]


def policy_value(logged: LoggedDecisions, nuisance: Nuisance, *, level: float = 0.95) -> PolicyValue | NotIdentified:
    """Cross-fitted doubly robust value of a policy, or why the log does not identify it.

    Raises DrivetrainError for fewer than two folds or for probabilities outside [0, 1].
    """
    known: Bools = ~np.isnan(logged.propensity)
    rows = len(logged.kpi)
    if not rows or not known.all():
        missing = rows - int(known.sum())
        return NotIdentified(
            Reason.NO_PROPENSITIES, f"{missing} of {rows} decisions were logged without their propensity.", 0.0
        )
    if np.any((logged.propensity <= 0) | (logged.propensity > 1) | (logged.target < 0) | (logged.target > 1)):
        raise DrivetrainError("Propensities must lie in (0, 1] and the policy's probabilities in [0, 1].")
    weight = logged.target / logged.propensity
    overlap = float(np.mean(weight > 0))
    if not overlap:
        return NotIdentified(Reason.NO_OVERLAP, "No logged action is one that the policy would choose.", 0.0)
    effective = float(weight.sum() ** 2 / np.sum(clustered.sums(weight, logged.cluster) ** 2))
    if effective < LEAST_EFFECTIVE_SAMPLE:
        return NotIdentified(
            Reason.SMALL_EFFECTIVE_SAMPLE,
            f"{rows} decisions are worth {effective:.0f}; at least {LEAST_EFFECTIVE_SAMPLE:.0f} are needed.",
            effective,
        )
    folds = np.unique(logged.fold)
    if len(folds) < 2:
        raise DrivetrainError("Cross-fitting needs at least two folds.")
    score = np.empty(rows)
    for fold in folds:
        held_out = np.flatnonzero(logged.fold == fold)
        at_logged, at_policy = nuisance(np.flatnonzero(logged.fold != fold), held_out)
        score[held_out] = at_policy + weight[held_out] * (logged.kpi[held_out] - at_logged)
    value = clustered.mean(score, logged.cluster, level=level)
    return PolicyValue(value, rows, effective, overlap, float(weight.max()), score, logged.cluster)
