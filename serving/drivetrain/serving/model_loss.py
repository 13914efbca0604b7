"""The model metric of a rollout: both models' losses on the same decisions, at the actions taken. It is only shown."""

from typing import Final

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.evidence.intervals import Bounds
from drivetrain.evidence.paired import LossDifference
from drivetrain.levers.grid import Floats
from drivetrain.serving.judged import Judged
from drivetrain.serving.maturation import Cohort

_ALPHA: Final = 0.05
_CLIP: Final = 1e-3
"""Predicted probabilities are clipped to [0.001, 0.999] before log loss, so that losses are bounded."""


def loss_difference(stable: Judged, candidate: Judged) -> LossDifference | None:
    """The sequence of candidate's minus stable's losses; None without two models or without bounds."""
    if stable.policy.model is None or candidate.policy.model is None:
        return None
    if candidate.policy.target.type == "Regression":
        bounds = candidate.target_bounds
        return None if bounds is None else LossDifference(_ALPHA, Bounds(0.0, bounds.width ** _power(candidate)))
    return LossDifference(_ALPHA, Bounds(0.0, float(-np.log(_CLIP))))


def feed_losses(sequence: LossDifference, candidate: Judged, cohort: Cohort, target: Floats) -> None:
    """Adds the decisions that have a label and both predictions."""
    losses = [
        _loss(candidate, cohort.matrix(name), target) for name in (log.PREDICTION_STABLE, log.PREDICTION_CANDIDATE)
    ]
    known = np.isfinite(losses[0]) & np.isfinite(losses[1])
    if known.any():
        sequence.update(losses[0][known], losses[1][known])


def _loss(judged: Judged, predictions: Floats, target: Floats) -> Floats:
    """Log loss of probabilities (clipped), error of means; NaN without a label or a prediction, [rows]."""
    match judged.policy.target.type:
        case "Binary":
            p = np.clip(predictions, _CLIP, 1 - _CLIP)
            return np.asarray(-(target * np.log(p) + (1 - target) * np.log(1 - p)))
        case "Multiclass":
            index = np.where(np.isnan(target), 0, target).astype(np.int64)
            p = np.clip(predictions[np.arange(len(target)), index], _CLIP, 1.0)
            return np.where(np.isnan(target), np.nan, -np.log(p))
    return np.abs(predictions - target) ** _power(judged)


def _power(judged: Judged) -> int:
    """Absolute errors mirror mae; squared ones rmse and r2."""
    return 1 if judged.policy.objective.model_metric.name == "mae" else 2
