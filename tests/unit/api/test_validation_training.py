"""What is wrong with candidates, tuning, gates and runs."""

import pytest

from tests.support.builders import ProjectBuilder, a_project, a_run
from tests.support.findings import assert_told

CANDIDATE = "spec.training.candidates[0]"
P = a_project()
R = a_run()
FAULTS = {
    "an unknown estimator": (P.with_field(f"{CANDIDATE}.estimator", "CatBoost"), f"{CANDIDATE}.estimator", "XGBoost"),
    "an estimator that was not tested for the target": (
        P.with_field(f"{CANDIDATE}.estimator", "LinearRegression"),
        f"{CANDIDATE}.estimator",
        "LinearRegression Binary LogisticRegression",
    ),
    "a parameter that was not tested": (
        P.with_field(f"{CANDIDATE}.parameters", {"CC": 1}),
        f"{CANDIDATE}.parameters.CC",
        "CC tested C",
    ),
    "a searched parameter that was not tested": (
        P.with_field(f"{CANDIDATE}.search", {"depth": {"choices": [1, 2]}}),
        f"{CANDIDATE}.search.depth",
        "depth tested",
    ),
    "a switch that is a number": (
        P.with_field(f"{CANDIDATE}.estimator", "LightGBM").with_field(f"{CANDIDATE}.parameters", {"extra_trees": 1}),
        f"{CANDIDATE}.parameters.extra_trees",
        "neither true nor false",
    ),
    "a parameter that is text": (
        P.with_field(f"{CANDIDATE}.parameters", {"C": "1"}),
        f"{CANDIDATE}.parameters.C",
        "'1' number quotes",
    ),
    "a grid over a range": (
        P.with_field("spec.training.tuning", {"algorithm": "Grid"}).with_field(
            f"{CANDIDATE}.search", {"C": {"minimum": 0.1, "maximum": 1}}
        ),
        f"{CANDIDATE}.search.C",
        "Grid choices",
    ),
    "a logarithmic range from zero": (
        P.with_field(f"{CANDIDATE}.search", {"C": {"minimum": 0, "maximum": 1, "scale": "Log"}}),
        f"{CANDIDATE}.search.C.minimum",
        "logarithm Linear",
    ),
    "a whole-number range with a fraction": (
        P.with_field(f"{CANDIDATE}.search", {"C": {"minimum": 0.5, "maximum": 2, "type": "Integer"}}),
        f"{CANDIDATE}.search.C.minimum",
        "0.5 whole",
    ),
    "a choice of a search twice": (
        P.with_field(f"{CANDIDATE}.search", {"C": {"choices": [1, 2, 1]}}),
        f"{CANDIDATE}.search.C.choices[2]",
        "1 twice",
    ),
    "two candidates of one name": (
        P.with_candidate("logistic", "LightGBM"),
        "spec.training.candidates[1].name",
        "logistic twice",
    ),
    "stacking of one candidate": (
        P.with_field("spec.training.ensemble", {"methods": ["Bagging", "Stacking"]}),
        "spec.training.ensemble.methods[1]",
        "Stacking one",
    ),
    "a tuning metric of another target type": (
        P.with_field("spec.training.tuning", {"metric": "mae"}),
        "spec.training.tuning.metric",
        "Binary mae",
    ),
    "a gate on a metric of another target type": (
        P.with_field("spec.training.evaluation.gates", [{"metric": "r2", "threshold": 0.1}]),
        "spec.training.evaluation.gates[0].metric",
        "Binary r2",
    ),
    "a gate on something that is no slice": (
        P.with_field("spec.training.evaluation.gates", [{"metric": "rocAuc", "threshold": 0.6, "slice": "week"}]),
        "spec.training.evaluation.gates[0].slice",
        "week slices",
    ),
    "a part of a GPU for training": (
        P.with_field("spec.training.scaling", {"workers": 1, "resourcesPerWorker": {"gpu": 0.5}}),
        "spec.training.scaling.resourcesPerWorker.gpu",
        "integer",
    ),
    "a run of another project": (a_run(project="other"), "spec.project", "other shop"),
    "a run's name that is too long": (R.named("a" * 41), "metadata.name", "41 40"),
    "a run with an estimator that does not fit": (
        R.with_field("spec.candidates[0].estimator", "LinearRegression"),
        "spec.candidates[0].estimator",
        "LinearRegression Binary",
    ),
    "a run with an unknown parameter": (
        R.with_field("spec.candidates[0].parameters", {"c": 1}),
        "spec.candidates[0].parameters.c",
        "LogisticRegression C",
    ),
    "a run whose window has no zone": (
        R.with_field("spec.window", {"since": "2026-05-04T10:00:00"}),
        "spec.window.since",
        "zone RFC",
    ),
    "a run whose window is no time": (R.with_field("spec.window", {"since": "May"}), "spec.window.since", "May RFC"),
}


@pytest.mark.parametrize(("built", "field", "words"), FAULTS.values(), ids=[name.replace(" ", "-") for name in FAULTS])
def test_a_fault_of_training_is_named_with_field_cause_and_remedy(
    built: ProjectBuilder, field: str, words: str
) -> None:
    assert_told(built, field, words)
