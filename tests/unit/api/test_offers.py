"""The table that validation reads says what the assembly line offers."""

from drivetrain.api.offers import ESTIMATORS, TEXT_PARAMETERS, metrics_of
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.pipelines.estimators import OFFERS
from drivetrain.pipelines.metrics import offered


def test_validation_accepts_exactly_the_estimators_targets_and_parameters_that_the_line_offers() -> None:
    assert {name: (tested.targets, tested.parameters) for name, tested in ESTIMATORS.items()} == {
        name: (offer.targets, frozenset(offer.defaults)) for name, offer in OFFERS.items()
    }
    assert OFFERS["RandomForest"].defaults.keys() >= TEXT_PARAMETERS


def test_validation_accepts_exactly_the_metrics_that_the_line_computes() -> None:
    for target in (
        Target(name="y", type="Binary"),
        Target(name="y", type="Multiclass", classes=("a", "b", "c")),
        Target(name="y", type="Regression"),
    ):
        assert metrics_of(target.type) == offered(target)
