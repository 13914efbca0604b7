"""Metrics of scores on rows, weighted; macro averages for several classes."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from sklearn.metrics import roc_auc_score

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.objective import MINIMIZED_METRICS, MetricName
from drivetrain.levers.grid import Booleans
from drivetrain.pipelines.graph import Floats

CLASSIFICATION: Final[tuple[MetricName, ...]] = ("accuracy", "precision", "recall", "f1", "rocAuc", "logLoss")
REGRESSION: Final[tuple[MetricName, ...]] = ("mae", "rmse", "r2")
PROBABILITY_CLIP = 1e-6
"""Probabilities are kept this far from 0 in the log loss, which float32 scores can state."""


def offered(target: Target) -> tuple[MetricName, ...]:
    """The metrics of a target type."""
    return REGRESSION if target.type == "Regression" else CLASSIFICATION


def check_metric(metric: MetricName, target: Target, field: str) -> None:
    """Raises InvalidSpecError for a metric that the target type does not have."""
    if metric not in offered(target):
        names = ", ".join(offered(target))
        raise InvalidSpecError((Problem(field, f"A {target.type} target has no {metric}.", f"Use one of {names}."),))


def badness(metric: MetricName, value: float) -> float:
    """The metric turned so that less is better."""
    return value if metric in MINIMIZED_METRICS else -value


def measure(truth: Floats, scores: Floats, weight: Floats, target: Target) -> dict[str, float]:
    """Every metric that these rows define (one class alone has no ROC AUC, one value no R2)."""
    if target.type == "Regression":
        return _regression(truth, scores, weight)
    found = {"logLoss": float(np.average(losses("logLoss", truth, scores), weights=weight))}
    predicted = (scores >= 0.5).astype(np.float64) if scores.ndim == 1 else scores.argmax(axis=1).astype(np.float64)
    found["accuracy"] = float(np.average(predicted == truth, weights=weight))
    labels = range(len(target.classes)) if target.classes else (1,)
    parts = [_of_class(predicted == label, truth == label, weight) for label in labels]
    for number, name in enumerate(("precision", "recall", "f1")):
        found[name] = float(np.mean([part[number] for part in parts]))
    areas = []
    for label in labels:
        held = truth == label
        if held.any() and not held.all():
            column = scores if scores.ndim == 1 else scores[:, label]
            areas.append(float(roc_auc_score(held, column, sample_weight=weight)))
    if len(areas) == len(labels):
        found["rocAuc"] = float(np.mean(areas))
    return found


def losses(metric: MetricName, truth: Floats, scores: Floats) -> Floats:
    """Each row's loss, [rows]: log loss, absolute or squared error, or 1 where the class is wrong."""
    if metric in REGRESSION:
        difference: Floats = np.abs(truth - scores)
        return difference if metric == "mae" else difference * difference
    if metric == "logLoss":
        if scores.ndim == 1:
            chosen = np.where(truth == 1, scores, 1 - scores)
        else:
            chosen = np.take_along_axis(scores, truth.astype(np.int64)[:, None], axis=1)[:, 0]
        loss: Floats = -np.log(np.clip(chosen, PROBABILITY_CLIP, 1))
        return loss
    predicted = (scores >= 0.5).astype(np.float64) if scores.ndim == 1 else scores.argmax(axis=1).astype(np.float64)
    return np.asarray(predicted != truth, dtype=np.float64)


def row_loss(target: Target) -> MetricName:
    """The loss by which rows are ranked."""
    return "mae" if target.type == "Regression" else "logLoss"


def _regression(truth: Floats, scores: Floats, weight: Floats) -> dict[str, float]:
    squared = float(np.average((truth - scores) ** 2, weights=weight))
    variance = float(np.average((truth - np.average(truth, weights=weight)) ** 2, weights=weight))
    found = {"mae": float(np.average(np.abs(truth - scores), weights=weight)), "rmse": squared**0.5}
    if variance > 0:
        found["r2"] = 1 - squared / variance
    return found


def _of_class(predicted: Booleans, held: Booleans, weight: Floats) -> tuple[float, float, float]:
    """Precision, recall and F1 of one class; 0 where nothing was predicted or held."""
    hits = float(weight[predicted & held].sum())
    claimed, present = float(weight[predicted].sum()), float(weight[held].sum())
    precision = hits / claimed if claimed else 0.0
    recall = hits / present if present else 0.0
    return precision, recall, 2 * hits / (claimed + present) if claimed + present else 0.0


def rounded(found: Mapping[str, float]) -> dict[str, float]:
    """Metrics with the digits that a report shows."""
    return {name: float(f"{value:.6g}") for name, value in found.items()}
