"""A price that followed a demand which nobody logged: what a naive fit learns, and what the platform says about it.

The customers' threshold is drawn from a uniform distribution, which no estimator of the line assumes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines.evaluation import score
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.modelling import BuiltModel, build
from drivetrain.pipelines.response import probe_frame
from drivetrain.pipelines.rows import PROPENSITY, TrainingRows
from drivetrain.pipelines.work import LocalTrials
from tests.support.training_rows import DirectStages, MemoryLog, shop_rows, shop_spec

GRID = np.arange(9) * 0.05 + 1.69
SEEDS = range(8)


def market(seed: int, *, randomised: bool, count: int = 4000) -> TrainingRows:
    """Dearer sells less, always; but unless prices were drawn, they were raised on days of high demand."""
    draws = np.random.default_rng(seed)
    demand = draws.uniform(0, 1, count)
    wanted = (
        draws.integers(0, 9, count) if randomised else np.clip(np.round(9 * demand + draws.normal(0, 1, count)), 0, 8)
    )
    price = GRID[wanted.astype(int)]
    chance = np.clip(0.1 + 0.8 * demand - 0.8 * (price - 1.69), 0, 1)
    sold = (draws.uniform(size=count) < chance).astype(np.int8)
    shop = shop_rows(count, seed=seed)
    propensity = pl.lit(1 / 9) if randomised else pl.lit(None, dtype=pl.Float64)
    columns = (pl.Series("price", price), pl.Series("sold", sold), propensity.alias(PROPENSITY))
    return replace(shop, frame=shop.frame.with_columns(*columns))


def trained(rows: TrainingRows, spec: RunSpec, folder: Path) -> BuiltModel:
    (folder / "model").mkdir(parents=True)
    stages = DirectStages(folder / "stages")
    return build(rows, spec, LocalTrials(), MemoryLog(), stages, champion=None, folder=folder / "model")


def unknown_effects() -> RunSpec:
    spec = shop_spec()
    levers = tuple(lever.model_copy(update={"effect": "Unknown"}) for lever in spec.levers)
    return spec.model_copy(update={"levers": levers})


def response(model: BuiltModel, rows: TrainingRows) -> float:
    """Predicted purchases at the highest price less those at the lowest, over 100 visits."""
    lever = shop_spec().levers[0]
    graph = Session((model.folder / "model.onnx").read_bytes())
    scores = score(graph, probe_frame(rows.frame.head(100), lever), model.contract.inputs).reshape(100, -1)
    return float((scores[:, -1] - scores[:, 0]).mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_naive_fit_learns_the_wrong_sign_and_the_platform_calls_it_observational(seed: int, tmp_path: Path) -> None:
    rows = market(seed, randomised=False)
    model = trained(rows, unknown_effects(), tmp_path)
    assert response(model, rows) > 0.1
    assert model.contract.lever_effect == "Observational"


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_prices_with_logged_propensity_give_the_right_sign_and_count_as_an_experiment(
    seed: int, tmp_path: Path
) -> None:
    rows = market(seed, randomised=True)
    model = trained(rows, unknown_effects(), tmp_path)
    assert response(model, rows) < -0.1
    assert model.contract.lever_effect == "Experimental"


def test_a_declared_effect_refuses_a_linear_model_that_learned_the_opposite(tmp_path: Path) -> None:
    model = trained(market(1, randomised=False), shop_spec(), tmp_path)
    (found,) = [gate for gate in model.gates if gate.name == "price Decreasing"]
    assert found.verdict == "Failed"
    assert not model.approved


@pytest.mark.parametrize("estimator", ["LightGBM", "XGBoost", "RandomForest"])
def test_trees_keep_to_a_declared_effect_whatever_the_rows_say(estimator: str, tmp_path: Path) -> None:
    small = {"name": "trees", "estimator": estimator, "parameters": {"n_estimators": 20}}
    rows = market(1, randomised=False, count=1500)
    model = trained(rows, shop_spec(candidates=[small]), tmp_path)
    assert response(model, rows) <= 0
    assert {gate.name: gate.verdict for gate in model.gates}["price Decreasing"] == "Passed"


def test_a_model_that_keeps_to_the_effects_is_preferred_to_a_better_fit_that_breaks_them(tmp_path: Path) -> None:
    candidates = [
        {"name": "linear", "estimator": "LogisticRegression"},
        {"name": "trees", "estimator": "LightGBM", "parameters": {"n_estimators": 20}},
    ]
    model = trained(market(1, randomised=False), shop_spec(candidates=candidates), tmp_path)
    linear, trees = (trial.metrics["logLoss"] for trial in model.trials)
    assert linear < trees
    assert model.winner == "trees"
