"""The demo's files: what its history says, and that its two manifests and its power check tell one story."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from drivetrain.api.portfolio import portfolio_bounds
from drivetrain.api.v1alpha1.project import DrivetrainProject, DrivetrainProjectSpec
from examples.orange_juice.history import TEST_SHARE, permuted_prices, price_test
from examples.orange_juice.market import Grid, Market, read_contexts
from examples.orange_juice.power import Project as CheckedProject

HERE = Path(__file__).parents[3] / "examples" / "orange_juice"


def _spec(file: str) -> DrivetrainProjectSpec:
    return DrivetrainProject.parse(yaml.safe_load((HERE / file).read_text(encoding="utf-8"))).spec


@pytest.fixture(scope="module")
def past() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return price_test(Market(), read_contexts().draw(4_000, rng), Grid(), rng)


def test_every_past_price_was_possible_under_its_logged_propensity(past: pl.DataFrame) -> None:
    propensity, net = past["propensity"].to_numpy(), (past["price"] - past["discount"]).to_numpy()
    assert propensity.min() == pytest.approx(TEST_SHARE / 50)
    assert propensity.max() <= 1 - TEST_SHARE + TEST_SHARE / 50 + 1e-12
    assert net[propensity < 0.5].min() >= Grid.LOWEST_NET


def test_visits_are_distinct_and_loyalty_is_not_among_their_columns(past: pl.DataFrame) -> None:
    assert past["visit_id"].n_unique() == past.height
    assert "loyalty" not in past.columns


def test_a_broken_import_keeps_each_weeks_prices_and_loses_whose_they_were(past: pl.DataFrame) -> None:
    broken = permuted_prices(past, np.random.default_rng(2))
    untouched = [column for column in past.columns if column not in {"price", "discount"}]
    assert broken.select(untouched).equals(past.select(untouched))

    def by_week(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select("week", "price", "discount").sort("week", "price", "discount")

    assert by_week(broken).equals(by_week(past))
    assert np.mean(broken["price"].to_numpy() != past["price"].to_numpy()) > 0.3


def test_the_second_manifest_only_adds_loyalty() -> None:
    before, after = _spec("project.yaml"), _spec("project-with-loyalty.yaml")
    assert [column.name for column in after.data.columns if column not in before.data.columns] == ["loyalty"]
    assert [source.name for source in after.data.sources if source not in before.data.sources] == ["cards"]
    assert [wanted.name for wanted in before.data.to_collect] == ["loyalty"]
    assert not after.data.to_collect
    changed = {"columns": before.data.columns, "sources": before.data.sources, "to_collect": before.data.to_collect}
    same_data = after.data.model_copy(update=changed)
    assert after.model_copy(update={"data": same_data}) == before


@pytest.mark.parametrize("file", ["project.yaml", "project-with-loyalty.yaml"])
def test_the_power_check_vouches_for_what_the_manifests_declare(file: str) -> None:
    spec, checked = _spec(file), CheckedProject()
    assert spec.serving is not None
    rollout, analysis = spec.serving.rollout, spec.serving.rollout.analysis
    assert tuple(step.weight / 100 for step in rollout.steps) == checked.weights
    assert analysis.alpha == checked.alpha
    assert analysis.min_outcomes == checked.minimum_outcomes
    assert rollout.holdout == checked.holdout
    assert (spec.exploration.share, spec.exploration.steps) == (checked.exploration_share, checked.exploration_steps)
    kpi = spec.objective.kpi
    assert (float(kpi.minimum or 0), float(kpi.maximum or 0)) == (checked.kpi_minimum, checked.kpi_maximum)
    tolerances = {metric.name: metric.tolerance for metric in analysis.metrics}
    assert tolerances == {"fallbackRate": checked.fallback_tolerance}
    (bound,) = portfolio_bounds(spec.objective.constraints)
    assert (bound.name, bound.value) == ("purchase minimum", checked.purchase_minimum)
    assert spec.serving.monitoring.drift.calibration.tolerance == checked.calibration_tolerance
