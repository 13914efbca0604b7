"""What the assembly line offers and has tested: estimators by target type, their parameters, metrics by target type.

Equality of the published graph with the library was tested for these combinations only; others are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivetrain.api.v1alpha1.objective import MetricName
from drivetrain.api.v1alpha1.training import Estimator

_ANY: Final = frozenset({"Binary", "Multiclass", "Regression"})
_BOOSTED: Final = frozenset({"n_estimators", "learning_rate", "max_depth", "reg_lambda", "reg_alpha"}) | {
    *("subsample", "colsample_bytree", "max_bin")
}


@dataclass(frozen=True, slots=True)
class TestedEstimator:
    """The target types and parameters with which an estimator was tested."""

    targets: frozenset[str]
    parameters: frozenset[str]


ESTIMATORS: Final[Mapping[Estimator, TestedEstimator]] = {
    "LogisticRegression": TestedEstimator(frozenset({"Binary", "Multiclass"}), frozenset({"C"})),
    "LinearRegression": TestedEstimator(frozenset({"Regression"}), frozenset({"alpha"})),
    "RandomForest": TestedEstimator(
        _ANY, frozenset({"n_estimators", "max_depth", "min_samples_leaf", "min_samples_split", "max_features"})
    ),
    "LightGBM": TestedEstimator(
        _ANY, _BOOSTED | {"num_leaves", "min_child_samples", "subsample_freq", "min_split_gain", "extra_trees"}
    ),
    "XGBoost": TestedEstimator(_ANY, _BOOSTED | {"min_child_weight", "gamma"}),
}
TEXT_PARAMETERS: Final = frozenset({"max_features"})
"""Parameters that may be text, such as sqrt."""
SWITCHES: Final = frozenset({"extra_trees"})
"""Parameters that are true or false; all others are numbers."""

CLASSIFICATION_METRICS: Final[tuple[MetricName, ...]] = ("accuracy", "precision", "recall", "f1", "rocAuc", "logLoss")
REGRESSION_METRICS: Final[tuple[MetricName, ...]] = ("mae", "rmse", "r2")


def metrics_of(target_type: str) -> tuple[MetricName, ...]:
    """The metrics of a target type."""
    return REGRESSION_METRICS if target_type == "Regression" else CLASSIFICATION_METRICS
