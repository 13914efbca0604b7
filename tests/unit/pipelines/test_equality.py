"""Equality of graph and library for every estimator and ensemble that is offered, on every target type it is for."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from drivetrain.pipelines.bench import material
from drivetrain.pipelines.ensembles import Baseline, Combination, Recipe, Single, fit
from drivetrain.pipelines.equality import TOLERANCE, Equality, Published, beside_cuts, check_equality
from drivetrain.pipelines.estimators import OFFERS
from drivetrain.pipelines.features import FeaturePlan, fit_features
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.models import Linear, Sample, Trees
from drivetrain.pipelines.publication import compose
from drivetrain.pipelines.rows import TrainingRows
from drivetrain.pipelines.trees import Forest, rounded_down
from drivetrain.pipelines.work import Material
from tests.support.training_rows import shop_rows, shop_spec

SMALL = {"LightGBM": 12, "XGBoost": 12, "RandomForest": 6}
KINDS = ("Binary", "Multiclass", "Regression")
PREPARED: dict[str, tuple[TrainingRows, FeaturePlan, Material]] = {}


def single(estimator: str) -> Single:
    parameters = (("n_estimators", SMALL[estimator]),) if estimator in SMALL else ()
    return Single(estimator, estimator, parameters)  # type: ignore[arg-type] # a name of the registry


def offered(kind: str) -> list[tuple[str, Recipe]]:
    singles = [single(name) for name, offer in OFFERS.items() if kind in offer.targets]
    recipes: list[tuple[str, Recipe]] = [("Dummy", Baseline())]
    recipes += [(one.estimator, one) for one in singles]
    for one in singles:
        recipes.append((f"Bagging of {one.estimator}", Combination("Bagging", (one,))))
        recipes.append((f"Boosting of {one.estimator}", Combination("Boosting", (one,))))
    recipes.append(("Stacking of all", Combination("Stacking", tuple(singles))))
    return recipes


CASES = [pytest.param(kind, recipe, id=f"{name} on {kind}") for kind in KINDS for name, recipe in offered(kind)]


def prepared(kind: str) -> tuple[TrainingRows, FeaturePlan, Material]:
    if kind not in PREPARED:
        rows, spec = shop_rows(500, kind=kind), shop_spec(kind)
        plan = fit_features(rows.frame.filter(pl.Series(rows.train)), spec.data, spec.levers)
        PREPARED[kind] = rows, plan, material(rows, spec, plan)
    return PREPARED[kind]


def compared(kind: str, recipe: Recipe) -> Equality:
    rows, plan, made = prepared(kind)
    choose, value = (fit(recipe, made.rows(part), made.target, 1) for part in ("first", "second"))
    graph = Session(compose(plan, choose, value, made.target, {}))
    held_out = rows.frame.filter(pl.Series(~rows.train))
    return check_equality(Published(graph, plan, choose, value), held_out, shop_spec(kind).levers)


@pytest.mark.parametrize(("kind", "recipe"), CASES)
def test_graph_and_library_agree_on_held_out_and_generated_rows(kind: str, recipe: Recipe) -> None:
    found = compared(kind, recipe)
    assert found.holds, found
    assert found.rows > 300


def test_a_graph_that_differs_by_more_than_the_tolerance_is_told_and_where() -> None:
    rows, plan, made = prepared("Binary")
    model = fit(single("LogisticRegression"), made.rows("train"), made.target, 1)
    assert isinstance(model, Linear)
    shifted = replace(model, intercept=model.intercept + 100 * TOLERANCE)
    graph = Session(compose(plan, shifted, model, made.target, {}))
    held_out = rows.frame.filter(pl.Series(~rows.train))
    found = check_equality(Published(graph, plan, model, model), held_out, shop_spec().levers)
    assert not found.holds
    assert found.difference == pytest.approx(25 * TOLERANCE, rel=0.5)


def test_a_cut_that_is_rounded_the_wrong_way_is_found_on_the_rows_beside_cuts() -> None:
    rows, plan, made = prepared("Binary")
    model = fit(single("LightGBM"), made.rows("train"), made.target, 1)
    assert isinstance(model, Trees)
    trees = tuple(
        replace(tree, threshold=np.nextafter(tree.threshold, np.float32(np.inf))) for tree in model.forest.trees
    )
    wrong = replace(model, forest=Forest(trees, model.forest.mode, 1))
    graph = Session(compose(plan, wrong, wrong, made.target, {}))
    found = check_equality(Published(graph, plan, wrong, wrong), rows.frame.head(100), shop_spec().levers)
    assert not found.holds
    assert "beside cuts" in found.where


def test_a_difference_that_is_not_a_number_does_not_pass() -> None:
    assert not Equality(float("nan"), 1, "held-out rows").holds


def test_cuts_are_rounded_down_to_the_float32_that_decides_every_float32_value_alike() -> None:
    draws = np.random.default_rng(5)
    cuts = draws.normal(size=500)
    near = cuts.astype(np.float32)
    around = np.stack([np.nextafter(near, np.float32(-9)), near, np.nextafter(near, np.float32(9))])
    assert ((around.astype(np.float64) <= cuts) == (around <= rounded_down(cuts))).all()


def test_values_that_lightgbm_reads_as_zero_fall_on_its_side_of_a_cut_at_zero() -> None:
    # On this column LightGBM cuts at -1e-35, between the negative values and zero.
    values = np.repeat(np.array([-1.0, 0.0, 1.0], dtype=np.float32), 60)[:, None]
    truth = np.repeat([0.0, 1.0, 1.0], 60)
    sample = Sample(values, values, truth, np.ones(180), (0,))
    target = shop_spec().data.target
    recipe = Single("trees", "LightGBM", (("extra_trees", False), ("n_estimators", 3)))
    model = fit(recipe, sample, target, 1)
    assert isinstance(model, Trees)
    assert np.float32(-1e-35) in np.nextafter(model.thresholds()[0], np.float32(1))
    assert beside_cuts(model, values, values, "trees").holds
