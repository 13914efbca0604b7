"""Policy value from logged decisions: told where the log can tell, blocking only what is proved worse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.trainingrun import GateResult
from drivetrain.evidence.intervals import Interval
from drivetrain.evidence.policy_value import NotIdentified, PolicyValue, Reason
from drivetrain.pipelines.modelling import BuiltModel, build
from drivetrain.pipelines.off_policy import NAME, policy_gate
from drivetrain.pipelines.rows import FALLBACK, PROPENSITY, TrainingRows
from drivetrain.pipelines.work import LocalTrials
from tests.support.training_rows import DirectStages, MemoryLog, shop_rows, shop_spec


def coarse() -> RunSpec:
    """Two prices and two bonuses, so that one logged action in four is the policy's."""
    spec = shop_spec()
    price, bonus = spec.levers
    levers = tuple(
        type(lever).model_validate({**lever.model_dump(), "step": step})
        for lever, step in ((price, "0.4"), (bonus, "0.5"))
    )
    return spec.model_copy(update={"levers": levers})


def experiment(count: int) -> TrainingRows:
    """Visits whose price and bonus were drawn from the four actions."""
    rows, draws = shop_rows(count), np.random.default_rng(3)
    price, bonus = draws.choice([1.69, 2.09], count), draws.choice([0.0, 0.5], count)
    score = 1.5 - 4 * (price - bonus - rows.frame["rival"].to_numpy()) + draws.logistic(size=count)
    columns = {"price": price, "bonus": bonus, "sold": (score > 0).astype(np.int8), PROPENSITY: np.full(count, 0.25)}
    return replace(rows, frame=rows.frame.with_columns(pl.Series(name, one) for name, one in columns.items()))


def built(rows: TrainingRows, folder: Path, champion: Path | None = None) -> BuiltModel:
    (folder / "model").mkdir(parents=True)
    stages = DirectStages(folder / "stages")
    return build(rows, coarse(), LocalTrials(), MemoryLog(), stages, champion=champion, folder=folder / "model")


def gate(model: BuiltModel) -> GateResult:
    return next(one for one in model.gates if one.name == NAME)


def test_a_logged_experiment_tells_the_value_and_the_same_policy_is_not_worse_than_itself(tmp_path: Path) -> None:
    rows = experiment(4000)
    first = built(rows, tmp_path / "first")
    assert gate(first).verdict == "NotIdentified"
    assert "nothing to compare with" in gate(first).message
    again = built(rows, tmp_path / "again", first.folder)
    assert gate(again).verdict == "Passed"


def test_the_value_is_what_the_market_gives_to_the_best_action(tmp_path: Path) -> None:
    rows = experiment(8000)
    found = gate(built(rows, tmp_path)).value
    frame = rows.frame.with_columns(margin=pl.col("sold") * (pl.col("price") - pl.col("bonus") - 1.1))
    best = float(frame.group_by("price", "bonus").agg(pl.col("margin").mean())["margin"].to_numpy().max())
    # A policy by context earns at least what the best single action does; 0.05 is three standard errors.
    assert found is not None
    assert best - 0.05 < found < 1.0


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pl.lit(None, dtype=pl.Float64).alias(PROPENSITY), id="no propensity was logged"),
        pytest.param(pl.lit(True).alias(FALLBACK), id="only fallbacks"),
    ],
)
def test_without_usable_decisions_the_gate_is_shown_and_not_counted(column: pl.Expr, tmp_path: Path) -> None:
    rows = experiment(600)
    model = built(replace(rows, frame=rows.frame.with_columns(column)), tmp_path)
    assert gate(model).verdict == "NotIdentified"
    assert model.approved


def test_a_log_that_seldom_agrees_with_the_policy_does_not_identify_it(tmp_path: Path) -> None:
    model = built(experiment(900), tmp_path)
    assert gate(model).verdict == "NotIdentified"
    assert "SmallEffectiveSample" in gate(model).message


def test_only_a_policy_proved_worse_on_the_same_decisions_is_blocked() -> None:
    noise = np.random.default_rng(4).normal(0, 5, 1000)

    def value(worth: float, own: float) -> PolicyValue:
        scores = worth + noise + own * np.random.default_rng(5).normal(0, 1, 1000)
        interval = Interval(worth, worth - 0.3, worth + 0.3)
        return PolicyValue(interval, 1000, 400.0, 0.4, 4.0, scores, np.arange(1000))

    worse = policy_gate(value(0.3, 0.1), value(0.35, 0))
    assert worse.verdict == "Failed"
    assert worse.value is not None
    assert worse.value < 0 == worse.bound
    assert policy_gate(value(0.3, 3), value(0.35, 0)).verdict == "Passed"
    unknown = NotIdentified(Reason.NO_OVERLAP, "No logged action is one that the policy would choose.", 0.0)
    assert policy_gate(unknown, value(0.3, 0)).verdict == "NotIdentified"
