"""The Monitor's evidence over whole lives of an endpoint: how often it is wrong, and how soon it sees a change.

Rows are fed to `Evidence` in matured cohorts of 500, as the Monitor does; there is no Ray and no store in between.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom

from drivetrain.api.model import Reference
from drivetrain.api.policy import Policy
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.situations import situations
from examples.orange_juice.history import visits
from examples.orange_juice.market import Market, Parameters
from tests.sim.modelling.orange_juice import history, run_spec, trained, training_rows
from tests.sim.serving.shop import BATCH, CONTEXTS, Model, Shop, perfect
from tests.support.binomial import assert_rate_above, assert_rate_below

PER_DAY = 120
RUN_LENGTH = 365 * PER_DAY
"""Rows between false severe alarms, on average at least, of each detector: one a year."""
QUIET = 2_000
"""Rows of each of the two lives of a run, before and after a promotion."""


@cache
def knowing(loyalty: bool) -> Model:
    return perfect(loyalty=loyalty, rng=np.random.default_rng(1))


@cache
def learned(loyalty: bool) -> Model:
    """A version that the line trained on 8,000 visits of the price test."""
    draws = np.random.default_rng(3)
    spec = run_spec(loyalty=loyalty, candidates=[{"name": "trees", "estimator": "LightGBM"}], tuning={"trials": 1})
    spec = spec.model_copy(update={"spec": spec.spec.model_copy(update={"ensemble": type(spec.spec.ensemble)()})})
    with TemporaryDirectory() as folder:
        rows = training_rows(history(Market(), 8_000, draws, loyalty=loyalty), draws)
        model = trained(rows, spec, Path(folder))
        graph = Session((model.folder / "model.onnx").read_bytes())
        found = Reference.model_validate_json((model.folder / "reference.json").read_bytes())
    frame = visits(CONTEXTS, "v").with_columns(
        loyalty=pl.Series(CONTEXTS.loyalty), price=pl.lit(1.99), discount=pl.lit(0.0)
    )
    policy = Policy(objective=spec.objective, levers=spec.levers, columns=spec.data.columns, target=spec.data.target)
    seen = situations(graph, frame, model.contract.inputs, policy, model.contract.support)
    return Model(seen.chosen(), seen.predictions["value"], found)


def severe(shop: Shop) -> set[str]:
    drift = shop.drift()
    parts = {"covariate": drift.covariate, "calibration": drift.calibration, "kpi": drift.kpi}
    return {name for name, part in parts.items() if part.severity == "Severe"}


def life(first: Model, second: Model, seed: int) -> set[str]:
    """The detectors that cried wolf: version 1, a rollout of version 2 in two steps, and version 2 after promotion."""
    shop = Shop(first, np.random.default_rng(seed), per_day=PER_DAY)
    cried: set[str] = set()
    for _ in range(QUIET // BATCH):
        shop.serve()
        cried |= severe(shop)
    for weight in (20, 50):
        shop.roll_out(second, weight)
        shop.serve()
        assert not severe(shop)  # no verdict while a rollout is open
    shop.promote()
    for _ in range(QUIET // BATCH):
        shop.serve()
        cried |= severe(shop)
    return cried


def assert_quiet(first: Model, second: Model, runs: int) -> None:
    """Each detector's rate of false severe alarms in a run is at most rows / run length, at 99 % confidence."""
    cried = [life(first, second, seed) for seed in range(runs)]
    for detector in ("covariate", "calibration", "kpi"):
        alarms = sum(detector in names for names in cried)
        print(f"{detector}: {alarms} of {runs} quiet runs of {2 * QUIET} rows alarmed")  # noqa: T201 - what the simulation found
        assert_rate_below(alarms, runs, 2 * QUIET / RUN_LENGTH)


def test_a_perfect_model_alarms_no_more_often_than_declared_across_a_promotion() -> None:
    assert_quiet(knowing(False), knowing(True), 60)


def test_models_trained_by_the_line_alarm_no_more_often_than_declared_across_a_promotion() -> None:
    assert_quiet(learned(False), learned(True), 60)


@pytest.mark.nightly
@pytest.mark.parametrize("versions", [knowing, learned])
def test_many_quiet_lives_alarm_no_more_often_than_declared(versions: Callable[[bool], Model]) -> None:
    assert_quiet(versions(False), versions(True), 300)


def test_a_change_of_customers_is_seen_by_calibration_and_the_mix_of_visitors_stays_quiet() -> None:
    """At least 80 % of changes are seen within 600 matured decisions, at 99 % confidence."""
    delays = []
    others = 0
    for seed in range(25):
        shop = Shop(learned(True), np.random.default_rng(1_000 + seed), per_day=PER_DAY)
        for _ in range(QUIET // BATCH):
            shop.serve()
        assert not severe(shop)
        shop.market = Market(Parameters().after_change())
        delay = 0
        while "calibration" not in severe(shop) and delay < 2_000:
            shop.serve(100)
            delay += 100
        delays.append(delay)
        others += "covariate" in severe(shop)
    print(f"rows from change to alarm: median {np.median(delays):.0f}, 90 % within {np.quantile(delays, 0.9):.0f}")  # noqa: T201 - what the simulation found
    assert_rate_above(sum(delay <= 600 for delay in delays), len(delays), 0.8)
    assert_rate_below(others, len(delays), 0.2)


def wrong_verdicts(runs: int, stable: Model, seed: int) -> int:
    """Runs in which some interval, at any look, excludes the truth: both arms are alike, and above their bound."""
    wrong = 0
    for run in range(runs):
        shop = Shop(stable, np.random.default_rng(seed + run), per_day=PER_DAY)
        twin = Model(stable.chosen, stable.value, stable.reference)
        excluded = False
        for weight in (10, 25, 50, 50, 50):
            shop.roll_out(twin, weight)
            shop.serve(300)
            metrics = shop.rollout().metrics
            assert [metric.role for metric in metrics] == ["Kpi", "Guardrail", "Guardrail", "Bound", "Shown"]
            excluded |= any(
                metric.upper < 0 or (metric.lower > 0 and metric.role != "Bound")
                for metric in metrics
                if metric.role != "Shown"
            )
        wrong += excluded
    return wrong


def assert_within_alpha(wrong: int, runs: int, alpha: float = 0.05) -> None:
    """Not more than a rate of alpha gives in 99 of 100 simulations."""
    print(f"{wrong} of {runs} A/A rollouts got a verdict")  # noqa: T201 - what the simulation found
    assert wrong <= binom.ppf(0.99, runs, alpha)


def test_two_equal_versions_get_a_verdict_in_no_more_rollouts_than_alpha_under_a_ramp() -> None:
    assert_within_alpha(wrong_verdicts(50, learned(True), 5_000), 50)


@pytest.mark.nightly
def test_many_equal_versions_get_a_verdict_in_no_more_rollouts_than_alpha() -> None:
    assert_within_alpha(wrong_verdicts(1_000, knowing(True), 9_000), 1_000)
