"""From rows to a published model, with small models, which fit in milliseconds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drivetrain.api.canonical import canonical_json
from drivetrain.api.errors import ContractError, InvalidSpecError, ModelError
from drivetrain.api.model import CONTRACT_FILE, GRAPH_FILE, REFERENCE_FILE, ModelContract, Reference
from drivetrain.api.policy import Policy
from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines import line
from drivetrain.pipelines.ensembles import Single
from drivetrain.pipelines.equality import Equality
from drivetrain.pipelines.evaluation import score
from drivetrain.pipelines.features import feed_of
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.modelling import BuiltModel, build
from drivetrain.pipelines.publication import signature
from drivetrain.pipelines.rows import DECIDED_AT, EXPLORED, PART, PROPENSITY, WEIGHT, TrainingRows
from drivetrain.pipelines.situations import situations
from drivetrain.pipelines.work import LocalTrials, Material, Outcome, Task
from tests.support.training_rows import DirectStages, MemoryLog, shop_rows, shop_spec

LINEAR = {"name": "linear", "estimator": "LogisticRegression"}
TREES = {"name": "trees", "estimator": "LightGBM", "parameters": {"n_estimators": 10}}
SEARCHED = {**TREES, "search": {"num_leaves": {"choices": [3, 7]}}}


class CountingTrials(LocalTrials):
    """Remembers what was fitted; stops like a killed process after a number of fits."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__()
        self.done: list[Task] = []
        self._limit = limit

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        for index, outcome in super().run(tasks):
            if len(self.done) == self._limit:
                raise KeyboardInterrupt
            self.done.append(tasks[index])
            yield index, outcome


class Shop:
    """Builds models in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.log = MemoryLog()
        self.runner: LocalTrials = LocalTrials()

    def built(self, rows: TrainingRows, spec: RunSpec, champion: BuiltModel | None = None) -> BuiltModel:
        self._count += 1
        folder = self._folder / f"{self._count}" / "model"
        folder.mkdir(parents=True)
        stages = DirectStages(folder.parent / "stages")
        rival = None if champion is None else champion.folder
        return build(rows, spec, self.runner, self.log, stages, champion=rival, folder=folder)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def gate(model: BuiltModel, name: str) -> str:
    return next(one.verdict for one in model.gates if one.name == name)


def changed(rows: TrainingRows, *columns: pl.Expr | pl.Series) -> TrainingRows:
    return replace(rows, frame=rows.frame.with_columns(*columns))


@pytest.mark.parametrize("kind", ["Binary", "Multiclass", "Regression"])
def test_a_run_publishes_a_graph_and_the_contract_that_a_replica_reads(shop: Shop, kind: str) -> None:
    rows = shop_rows(600, kind=kind)
    model = shop.built(rows, shop_spec(kind))
    contract = ModelContract.model_validate_json((model.folder / CONTRACT_FILE).read_bytes())
    assert contract == model.contract
    graph = Session((model.folder / GRAPH_FILE).read_bytes())
    assert graph.inputs == tuple(column.name for column in contract.inputs)
    results = graph.run(feed_of(rows.frame.head(5), contract.inputs))
    assert {name: one.shape for name, one in results.items()} == dict.fromkeys(
        ("choose", "value", "prediction"), (5, 3) if kind == "Multiclass" else (5,)
    )
    assert results["prediction"] == pytest.approx((results["choose"] + results["value"]) / 2, abs=1e-6)
    assert not np.allclose(results["choose"], results["value"], atol=1e-6)
    assert contract.support["bonus"] == ("0", "0.1", "0.2", "0.3", "0.4", "0.5")
    assert model.approved
    known = {"Regression": {"mae", "rmse", "r2"}}.get(
        kind, {"accuracy", "precision", "recall", "f1", "rocAuc", "logLoss"}
    )
    assert known <= set(model.metrics)
    assert {f"dummy.{name}" for name in known - {"r2"}} <= set(model.metrics)


def test_each_half_is_fitted_on_its_own_rows(shop: Shop) -> None:
    counting = CountingTrials()
    shop.runner = counting
    shop.built(shop_rows(600), shop_spec())
    assert [task.rows for task in counting.done] == ["train", "first", "second"]


def test_a_rerun_with_the_same_trial_log_gives_the_same_bytes_and_fits_no_trial_again(shop: Shop) -> None:
    spec = shop_spec(candidates=[LINEAR, SEARCHED], tuning={"trials": 4}, ensemble={"methods": ["Bagging", "Stacking"]})
    first = shop.built(shop_rows(600), spec)
    counting = CountingTrials()
    shop.runner = counting
    second = shop.built(shop_rows(600), spec)
    assert (first.folder / GRAPH_FILE).read_bytes() == (second.folder / GRAPH_FILE).read_bytes()
    assert {task.rows for task in counting.done} == {"first", "second"}
    assert [one.metrics for one in second.trials] == [one.metrics for one in first.trials]


def test_an_attempt_goes_on_where_a_killed_one_stopped(shop: Shop, tmp_path: Path) -> None:
    spec = shop_spec(candidates=[LINEAR, SEARCHED], tuning={"trials": 4, "algorithm": "Grid"})
    whole = Shop(tmp_path / "whole").built(shop_rows(600), spec)
    shop.runner = CountingTrials(limit=3)
    with pytest.raises(KeyboardInterrupt):
        shop.built(shop_rows(600), spec)
    assert len(shop.log.records) == 3
    counting = CountingTrials()
    shop.runner = counting
    resumed = shop.built(shop_rows(600), spec)
    assert [task.rows for task in counting.done].count("train") == 1
    assert resumed.contract.digest == whole.contract.digest


def test_other_data_or_another_seed_asks_for_trials_of_their_own(shop: Shop) -> None:
    shop.built(shop_rows(600, seed=1), shop_spec())
    shop.built(shop_rows(600, seed=2), shop_spec())
    shop.built(shop_rows(600, seed=1), shop_spec(tuning={"trials": 1, "seed": 9}))
    assert len(shop.log.records) == 3


def test_a_candidate_that_a_library_refuses_is_named_and_the_run_goes_on(shop: Shop) -> None:
    broken = {"name": "broken", "estimator": "LightGBM", "parameters": {"num_leaves": -1}}
    model = shop.built(shop_rows(600), shop_spec(candidates=[broken, LINEAR]))
    assert model.winner == "linear"
    assert [(one.name, "num_leaves" in one.reason) for one in model.refusals] == [("broken", True)]


def test_a_run_without_any_candidate_left_says_why(shop: Shop) -> None:
    broken = {"name": "broken", "estimator": "LightGBM", "parameters": {"num_leaves": -1}}
    with pytest.raises(ModelError, match="num_leaves"):
        shop.built(shop_rows(600), shop_spec(candidates=[broken]))


def test_a_graph_that_differs_from_its_library_fails_and_the_next_best_is_published(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = shop_spec(candidates=[LINEAR, TREES])
    best = shop.built(shop_rows(600), spec).winner
    seen: list[int] = []

    def first_fails(*arguments: object) -> Equality:
        seen.append(1)
        return Equality(0.1 if len(seen) == 1 else 0.0, 5, "held-out rows")

    monkeypatch.setattr(line, "check_equality", first_fails)
    model = shop.built(shop_rows(600), spec)
    assert model.winner != best
    assert [(one.name, one.reason) for one in model.refusals] == [
        (best, "graph and library differ by 0.1 (held-out rows)")
    ]


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        pytest.param({"name": "line", "estimator": "LinearRegression"}, "does not fit a Binary target", id="target"),
        pytest.param({**TREES, "parameters": {"dart": 1}}, "no tested parameter dart", id="parameter"),
        pytest.param({**TREES, "parameters": {"num_leaves": "many"}}, "not a number", id="kind"),
        pytest.param({**TREES, "search": {"extra_trees": {"choices": [1, 2]}}}, "not true or false", id="search"),
    ],
)
def test_combinations_that_were_not_tested_are_refused(shop: Shop, candidate: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSpecError, match=message):
        shop.built(shop_rows(100), shop_spec(candidates=[candidate]))


def test_stacking_one_candidate_is_refused(shop: Shop) -> None:
    with pytest.raises(InvalidSpecError, match="Stacking combines candidates"):
        shop.built(shop_rows(100), shop_spec(ensemble={"methods": ["Stacking"]}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"evaluation": {"gates": [{"metric": "rmse", "threshold": 1}]}}, "has no rmse", id="gate"),
        pytest.param({"tuning": {"trials": 1, "metric": "mae"}}, "has no mae", id="tuning"),
        pytest.param(
            {"evaluation": {"gates": [{"metric": "f1", "threshold": 0, "slice": "moon"}]}}, "no slice", id="slice"
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_fitted(
    shop: Shop, fields: dict[str, Any], message: str
) -> None:
    counting = CountingTrials()
    shop.runner = counting
    with pytest.raises(InvalidSpecError, match=message):
        shop.built(shop_rows(300), shop_spec(**fields))
    assert counting.done == []


def test_a_class_that_a_half_lacks_is_told_before_anything_is_fitted(shop: Shop) -> None:
    rows = shop_rows(300)
    one_sided = changed(rows, pl.when(pl.col("@half") == 0).then(0).otherwise(pl.col("sold")).alias("sold"))
    with pytest.raises(ContractError, match="Class 1 of sold does not occur in the first half"):
        shop.built(one_sided, shop_spec())


def test_rows_of_weight_zero_neither_train_nor_judge(shop: Shop) -> None:
    rows = shop_rows(900)
    old = np.arange(900) < 300
    lied = changed(
        rows,
        pl.when(pl.Series(old)).then(1 - pl.col("sold")).otherwise(pl.col("sold")).alias("sold"),
        pl.Series(WEIGHT, np.where(old, 0.0, 1.0)),
    )
    honest = replace(rows, frame=rows.frame[300:])
    # The data version is one; only the rows that count must matter.
    first, second = shop.built(lied, shop_spec()), Shop(shop._folder / "honest").built(honest, shop_spec())
    assert first.contract.digest == second.contract.digest
    assert first.metrics == second.metrics


def test_the_champion_is_scored_on_the_same_test_rows_with_its_own_inputs(shop: Shop) -> None:
    rows = shop_rows(3000)
    narrow = shop_spec()
    columns = tuple(one for one in narrow.data.columns if one.name != "loyal")
    without = narrow.model_copy(update={"data": narrow.data.model_copy(update={"columns": columns})})
    champion = shop.built(rows, without)
    gates = {"gates": [{"metric": "logLoss", "versus": "Champion"}]}
    better = shop.built(rows, shop_spec(evaluation=gates), champion)
    assert gate(better, "logLoss versus Champion") == "Passed"
    assert better.metrics["champion.logLoss"] == pytest.approx(champion.metrics["logLoss"])
    again = shop.built(rows, without.model_copy(update={"spec": shop_spec(evaluation=gates).spec}), better)
    assert gate(again, "logLoss versus Champion") == "Failed"
    assert not again.approved


def test_a_champion_whose_columns_are_gone_is_shown_and_not_counted(shop: Shop) -> None:
    rows = shop_rows(600)
    champion = shop.built(rows, shop_spec())
    data = shop_spec().data
    narrow = data.model_copy(update={"columns": tuple(one for one in data.columns if one.name != "loyal")})
    spec = shop_spec(evaluation={"gates": [{"metric": "logLoss", "versus": "Champion"}]})
    model = shop.built(
        replace(rows, frame=rows.frame.drop("loyal")), spec.model_copy(update={"data": narrow}), champion
    )
    assert gate(model, "logLoss versus Champion") == "NotIdentified"
    assert model.approved


def test_with_a_time_split_test_rows_must_be_later_than_what_trained_the_champion(shop: Shop) -> None:
    spec = shop_spec(evaluation={"gates": [{"metric": "logLoss", "versus": "Champion", "margin": 0.5}]})
    split = spec.data.split.model_validate({"strategy": "Time", "column": "week"})
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"split": split})})
    rows = decided(shop_rows(900), explored=True)
    parts = np.where(np.arange(900) < 500, "train", np.where(np.arange(900) < 700, "validation", "test"))
    earlier = replace(rows, frame=rows.frame.with_columns(pl.Series(PART, parts.tolist())))
    champion = shop.built(earlier, spec)
    assert gate(shop.built(earlier, spec, champion), "logLoss versus Champion") == "Passed"
    overlapping = replace(rows, frame=earlier.frame.reverse().with_columns(pl.Series(PART, parts.tolist())))
    assert gate(shop.built(overlapping, spec, champion), "logLoss versus Champion") == "NotIdentified"


def test_a_run_from_the_champion_tries_its_best_parameters_first(shop: Shop) -> None:
    spec = shop_spec(candidates=[SEARCHED], tuning={"trials": 3, "algorithm": "Grid"})
    champion = shop.built(shop_rows(600), spec)
    counting = CountingTrials()
    shop.runner = counting
    start = {"start_from": "Champion"}
    later = spec.model_copy(update={"decisions": type(spec.decisions).model_validate(start)})
    shop.built(shop_rows(600, seed=5), later, champion)
    tried = [dict(one.parameters) for one in shop_trials(counting)]
    assert dict(champion.parameters) in tried[:2]


def shop_trials(counting: CountingTrials) -> list[Single]:
    return [task.recipe for task in counting.done if isinstance(task.recipe, Single) and task.rows == "train"]


def decided(rows: TrainingRows, *, explored: bool) -> TrainingRows:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [start + timedelta(minutes=index) for index in range(rows.frame.height)]
    return changed(rows, pl.Series(DECIDED_AT, times, dtype=pl.Datetime("us", "UTC")), pl.lit(explored).alias(EXPLORED))


def test_a_retraining_of_the_loop_must_also_pass_on_explored_rows(shop: Shop) -> None:
    gates = {"gates": [{"metric": "logLoss", "versus": "Dummy"}]}
    spec = shop_spec(evaluation=gates, trigger={"cause": "Calibration"})
    passed = shop.built(decided(shop_rows(900), explored=True), spec)
    assert gate(passed, "logLoss versus Dummy on explored rows") == "Passed"
    blind = shop.built(decided(shop_rows(900), explored=False), spec)
    assert gate(blind, "logLoss versus Dummy") == "Passed"
    assert gate(blind, "logLoss versus Dummy on explored rows") == "Failed"
    by_hand = shop.built(decided(shop_rows(900), explored=False), shop_spec(evaluation=gates))
    assert by_hand.approved


def test_the_contract_tells_up_to_when_decisions_trained_it(shop: Shop) -> None:
    rows = decided(shop_rows(600), explored=True)
    model = shop.built(rows, shop_spec())
    newest = rows.frame.filter(pl.col(PART) != "test")[DECIDED_AT].max()
    assert isinstance(newest, datetime)
    assert model.contract.trained_until == newest.isoformat().replace("+00:00", "Z")


def test_one_row_without_logged_propensity_makes_lever_effects_observational(shop: Shop) -> None:
    rows = shop_rows(600)
    assert shop.built(rows, shop_spec()).contract.lever_effect == "Experimental"
    first = pl.int_range(pl.len()) == rows.frame[PART].to_list().index("train")
    unlogged = changed(rows, pl.when(first).then(None).otherwise(pl.col(PROPENSITY)).alias(PROPENSITY))
    assert shop.built(unlogged, shop_spec()).contract.lever_effect == "Observational"


def test_a_grid_value_that_training_rows_do_not_come_near_is_not_supported(shop: Shop) -> None:
    rows = shop_rows(600)
    cheap = replace(rows, frame=rows.frame.filter(pl.col("price") < 1.8))
    assert shop.built(cheap, shop_spec()).contract.support["price"] == ("1.69", "1.74", "1.79", "1.84")


def test_rows_are_judged_by_the_actions_that_serving_may_take(shop: Shop) -> None:
    rows, spec = shop_rows(600), shop_spec()
    model = shop.built(rows, spec)
    graph = Session((model.folder / "model.onnx").read_bytes())
    policy = Policy(objective=spec.objective, levers=spec.levers, columns=spec.data.columns, target=spec.data.target)
    contract = model.contract
    usual = situations(graph, rows.frame, contract.inputs, policy, contract.support)
    known = {**contract.support, "price": ("1.69",)}
    dear = situations(graph, rows.frame, contract.inputs, policy, known)
    prices = usual.valuation.grid.columns["price"]
    assert set(prices[usual.chosen()]) != {1.69}
    assert set(prices[dear.chosen()]) == {1.69}


def test_the_reference_counts_the_training_contexts_and_leaves_levers_out(shop: Shop) -> None:
    rows = shop_rows(600)
    model = shop.built(rows, shop_spec())
    bins = Reference.model_validate_json((model.folder / REFERENCE_FILE).read_bytes())
    assert [one.name for one in bins.columns] == ["rival", "loyal", "store", "area", "weekend"]
    assert bins.rows == rows.frame.filter(pl.col(PART) != "test").height
    for one in bins.columns:
        assert sum(one.counts) + one.nulls == bins.rows
        assert len(one.counts) == (len(one.categories) or len(one.edges)) + 1


def test_a_portfolio_bound_that_binds_gets_a_price(shop: Shop) -> None:
    spec = shop_spec()

    def bounded(least: float) -> RunSpec:
        constraint = {"scope": "Portfolio", "metric": "sold", "minimum": least, "window": "1d"}
        document = {**spec.objective.model_dump(), "constraints": [constraint]}
        return spec.model_copy(update={"objective": type(spec.objective).model_validate(document)})

    rows = shop_rows(600)
    assert shop.built(rows, bounded(0.05)).contract.multipliers == {"sold": 0}
    assert shop.built(rows, bounded(0.8)).contract.multipliers["sold"] > 0.01


def test_the_value_output_is_what_metrics_are_of(shop: Shop) -> None:
    rows = shop_rows(600)
    model = shop.built(rows, shop_spec())
    test = rows.frame.filter(pl.col(PART) == "test")
    graph = Session((model.folder / GRAPH_FILE).read_bytes())
    scores = score(graph, test, model.contract.inputs, "value")
    truth = test["sold"].to_numpy()
    assert model.metrics["logLoss"] == pytest.approx(-np.log(np.where(truth == 1, scores, 1 - scores)).mean(), rel=1e-4)


def test_the_signature_names_every_column_that_the_graph_reads(shop: Shop) -> None:
    contract = shop.built(shop_rows(300), shop_spec()).contract
    found = signature(contract)
    assert all(f'"name": "{column.name}"' in found["inputs"] for column in contract.inputs)


def test_a_published_contract_is_canonical_json(shop: Shop) -> None:
    model = shop.built(shop_rows(300), shop_spec())
    assert (model.folder / CONTRACT_FILE).read_text() == canonical_json(model.contract)


def test_material_reaches_workers_once_for_a_whole_run(shop: Shop) -> None:
    loads: list[Material] = []

    class Loading(LocalTrials):
        def load(self, material: Material) -> None:
            loads.append(material)
            super().load(material)

    shop.runner = Loading()
    shop.built(shop_rows(600), shop_spec(candidates=[LINEAR, SEARCHED], ensemble={"methods": ["Boosting"]}))
    assert len(loads) == 1
