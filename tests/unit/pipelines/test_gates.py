"""Gates: what passes, what fails, and what is shown and not counted."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.training import Gate
from drivetrain.api.v1alpha1.trainingrun import GateResult
from drivetrain.pipelines.evaluation import LATENCY_CALLS, Judged, Latency, by_slice, fastest_round, worst_cases
from drivetrain.pipelines.gates import Contest, approved, effect_gates, judge, latency_gate
from drivetrain.pipelines.graph import Floats
from drivetrain.pipelines.metrics import losses, measure
from tests.support.training_rows import shop_spec

BINARY = Target(name="sold", type="Binary")
REGRESSION = Target(name="sold", type="Regression")


def judged(truth: Floats, scores: Floats, *, clusters: Any = None) -> Judged:
    count = len(truth)
    store = np.where(np.arange(count) % 2 == 0, "north", "south").tolist()
    labels = np.arange(count) if clusters is None else np.asarray(clusters)
    return Judged(pl.DataFrame({"store": store}), truth, scores, np.ones(count), labels)


def contest(count: int = 600, *, blur: float = 0.0, champion: float | None = None, **kwargs: Any) -> Contest:
    """Truth drawn from known probabilities; scores are those probabilities, moved towards one half by `blur`."""
    draws = np.random.default_rng(2)
    chance = draws.uniform(0.05, 0.95, count)
    truth = (draws.uniform(size=count) < chance).astype(np.float64)

    def blurred(share: float) -> Floats:
        return np.asarray((1 - share) * chance + share * 0.5)

    rival = None if champion is None else blurred(champion)
    return Contest(judged(truth, blurred(blur), **kwargs), np.full(count, 0.5), rival, "There is no champion yet.")


def verdict(gate: dict[str, Any], one: Contest, target: Target = BINARY) -> GateResult:
    (result,) = judge([Gate.model_validate(gate)], one, target, 1)
    return result


def test_a_threshold_is_the_worst_value_allowed_in_the_metrics_own_direction() -> None:
    one = contest()
    assert verdict({"metric": "rocAuc", "threshold": 0.7}, one).verdict == "Passed"
    assert verdict({"metric": "rocAuc", "threshold": 0.99}, one).verdict == "Failed"
    assert verdict({"metric": "logLoss", "threshold": 0.69}, one).verdict == "Passed"
    assert verdict({"metric": "logLoss", "threshold": 0.3}, one).verdict == "Failed"


@pytest.mark.parametrize("metric", ["logLoss", "accuracy", "rocAuc", "f1"])
def test_a_better_model_is_proved_better_than_the_dummy(metric: str) -> None:
    found = verdict({"metric": metric, "versus": "Dummy", "margin": 0.0 if metric != "f1" else 0.3}, contest())
    assert found.verdict == "Passed"
    assert found.value is not None


@pytest.mark.parametrize("metric", ["logLoss", "rocAuc"])
def test_a_model_no_better_than_its_rival_is_not_proved_better_but_passes_with_a_margin(metric: str) -> None:
    equal = contest(champion=0.0)
    assert verdict({"metric": metric, "versus": "Champion"}, equal).verdict == "Failed"
    assert verdict({"metric": metric, "versus": "Champion", "margin": 0.05}, equal).verdict == "Passed"


def test_a_worse_model_fails_beyond_its_margin() -> None:
    worse = contest(blur=0.9, champion=0.0)
    assert verdict({"metric": "logLoss", "versus": "Champion", "margin": 0.01}, worse).verdict == "Failed"


def test_without_a_champion_the_gate_is_shown_and_not_counted() -> None:
    found = verdict({"metric": "logLoss", "versus": "Champion"}, contest())
    assert found.verdict == "NotIdentified"
    assert "no champion" in found.message
    assert approved([found])


def test_rows_of_one_group_are_no_independent_evidence() -> None:
    gate = {"metric": "logLoss", "versus": "Champion"}
    alone = verdict(gate, contest(blur=0.0, champion=0.35))
    grouped = verdict(gate, contest(blur=0.0, champion=0.35, clusters=np.arange(600) % 4))
    assert alone.value is not None
    assert grouped.value is not None
    assert grouped.value > alone.value


def test_one_group_alone_gives_no_interval() -> None:
    one = contest(champion=0.5, clusters=np.zeros(600, dtype=np.int64))
    assert verdict({"metric": "logLoss", "versus": "Champion"}, one).verdict == "NotIdentified"


def test_a_slice_gate_fails_for_the_one_value_that_fails_and_names_it() -> None:
    one = contest()
    scores = one.candidate.scores.copy()
    south = (one.candidate.frame["store"] == "south").to_numpy()
    scores[south] = 1 - scores[south]
    wrong = Contest(judged(one.candidate.truth, scores), one.dummy, None, "")
    found = verdict({"metric": "logLoss", "versus": "Dummy", "slice": "store"}, wrong)
    assert found.verdict == "Failed"
    assert "Fails for south. Worst: store=south" in found.message
    assert verdict({"metric": "logLoss", "versus": "Dummy", "slice": "store"}, one).verdict == "Passed"


def test_the_stated_interval_misses_the_truth_as_seldom_as_it_says() -> None:
    """Equal models: "better" is claimed in at most 2.5 % of 300 draws; 17 or more have probability below 0.1 %."""
    claims = 0
    for seed in range(300):
        draws = np.random.default_rng(seed)
        truth = (draws.uniform(size=200) < 0.5).astype(np.float64)
        pair = [np.clip(0.5 + draws.normal(0, 0.1, 200), 0.01, 0.99) for _ in range(2)]
        one = Contest(judged(truth, pair[0]), np.full(200, 0.5), pair[1], "")
        claims += verdict({"metric": "logLoss", "versus": "Champion"}, one).verdict == "Passed"
    assert claims < 17


def test_a_response_against_its_declared_effect_fails() -> None:
    levers = shop_spec().levers
    found = {one.name: one.verdict for one in effect_gates(levers, {"price": 0.2, "bonus": 0.0})}
    assert found == {"price Decreasing": "Failed", "bonus Increasing": "Passed"}
    (loose,) = effect_gates(levers[:1], {"price": 0.0}, ("price",))
    assert "Constraints cannot promise it" in loose.message


def test_slow_graphs_fail_by_their_99th_percentile() -> None:
    assert latency_gate(Latency(actions=54, p50_ms=1, p99_ms=60), 50).verdict == "Failed"
    assert latency_gate(Latency(actions=54, p50_ms=49, p99_ms=50), 50).verdict == "Passed"


class Clock:
    """A clock on which each call takes its number of milliseconds."""

    def __init__(self, *milliseconds: float) -> None:
        self._now, self._left = 0.0, list(milliseconds)

    def __call__(self) -> float:
        return self._now

    def call(self) -> None:
        self._now += self._left.pop(0) / 1000


def test_a_machine_that_is_busy_for_a_round_or_two_does_not_make_a_graph_slow() -> None:
    busy = [1.0] * (LATENCY_CALLS - 10) + [80.0] * 10
    clock = Clock(*busy, *[1.0] * LATENCY_CALLS, *busy)
    assert fastest_round(clock.call, clock) == pytest.approx((1, 1))


def test_a_graph_that_is_slow_now_and_then_in_every_round_is_slow() -> None:
    slow = [1.0] * (LATENCY_CALLS - 10) + [80.0] * 10
    clock = Clock(*slow * 3)
    assert fastest_round(clock.call, clock) == pytest.approx((1, 80))


def test_metrics_agree_with_what_can_be_counted_by_hand() -> None:
    truth = np.array([1.0, 1.0, 0.0, 0.0])
    scores = np.array([0.9, 0.4, 0.6, 0.1])
    found = measure(truth, scores, np.array([1.0, 1.0, 2.0, 0.0]), BINARY)
    assert found["accuracy"] == pytest.approx(1 / 4)
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["f1"] == pytest.approx(2 / 5)
    assert found["rocAuc"] == pytest.approx(1 / 2)
    assert found["logLoss"] == pytest.approx((-np.log(0.9) - np.log(0.4) - 2 * np.log(0.4)) / 4)


def test_regression_metrics_and_a_constant_target_without_r2() -> None:
    found = measure(np.array([1.0, 3.0]), np.array([2.0, 3.0]), np.ones(2), REGRESSION)
    assert found == {"mae": 0.5, "rmse": pytest.approx(0.5**0.5), "r2": pytest.approx(0.5)}
    assert "r2" not in measure(np.ones(3), np.zeros(3), np.ones(3), REGRESSION)


def test_multiclass_metrics_are_macro_averages() -> None:
    target = Target(name="sold", type="Multiclass", classes=("a", "b", "c"))
    truth = np.array([0.0, 1.0, 2.0, 2.0])
    scores = np.eye(3)[[0, 1, 2, 1]] * 0.8 + 0.1
    found = measure(truth, scores / scores.sum(axis=1, keepdims=True), np.ones(4), target)
    assert found["precision"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert found["recall"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_slices_come_worst_first_and_small_ones_are_left_out() -> None:
    one = contest(200)
    scores = one.candidate.scores.copy()
    south = (one.candidate.frame["store"] == "south").to_numpy()
    scores[south] = 0.5
    frame = one.candidate.frame.with_columns(
        pl.when(pl.int_range(pl.len()) < 10).then(pl.lit("tiny")).otherwise("store").alias("store")
    )
    rows = Judged(frame, one.candidate.truth, scores, np.ones(200), np.arange(200))
    found = by_slice(rows, BINARY, ["store"], "logLoss")
    assert [part.slice for part in found] == ["store=south", "store=north"]


def test_the_worst_cases_are_the_rows_with_the_largest_loss() -> None:
    one = contest(100).candidate
    worst = worst_cases(one, BINARY)
    assert worst["@loss"].to_list() == sorted(losses("logLoss", one.truth, one.scores), reverse=True)[:20]
    assert (worst["@truth"] - worst["@prediction"]).abs().min() == pytest.approx(
        float(np.sort(np.abs(one.truth - one.scores))[-20])
    )
