"""The demo's story is the market's: exact gaps, interior optima, and the right verdict of every act."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from drivetrain.api.errors import DrivetrainError
from examples.orange_juice import market
from examples.orange_juice.market import Contexts, Parameters, read_contexts
from examples.orange_juice.power import (
    CHECKED,
    LEAST_GAP,
    LEAST_INTERIOR,
    LEAST_RIGHT,
    Power,
    Project,
    World,
    check_power,
    require_checked,
)


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return read_contexts()


@pytest.fixture(scope="module")
def power(contexts: Contexts) -> Power:
    return check_power(Parameters(), contexts)


def test_the_shipped_parameters_are_the_ones_that_were_checked(power: Power) -> None:
    assert power.digest == CHECKED
    require_checked(Parameters(), Project())


@pytest.mark.parametrize("manifest", ["project.yaml", "project-with-loyalty.yaml"])
def test_the_projects_of_the_demo_declare_what_was_checked(manifest: str) -> None:
    spec = yaml.safe_load((Path(market.__file__).parent / manifest).read_text())["spec"]
    kpi, exploration = spec["objective"]["kpi"], spec["exploration"]
    rollout, monitoring = spec["serving"]["rollout"], spec["serving"]["monitoring"]
    tolerances = {metric["name"]: metric["tolerance"] for metric in rollout["analysis"]["metrics"]}
    calibration = monitoring["drift"]["calibration"]
    (bound,) = [each for each in spec["objective"]["constraints"] if each["scope"] == "Portfolio"]
    assert (bound["metric"], "maximum" in bound) == ("purchase", False)
    declared = Project(
        weights=tuple(step["weight"] / 100 for step in rollout["steps"]),
        alpha=rollout["analysis"]["alpha"],
        minimum_outcomes=rollout["analysis"]["minOutcomes"],
        holdout=rollout["holdout"],
        exploration_share=exploration["share"],
        exploration_steps=exploration["steps"],
        kpi_minimum=float(kpi["minimum"]),
        kpi_maximum=float(kpi["maximum"]),
        purchase_minimum=bound["minimum"],
        fallback_tolerance=tolerances.pop("fallbackRate"),
        calibration_tolerance=calibration["tolerance"],
        calibration_false_alarms_per_year=calibration["falseAlarmsPerYear"],
        decisions_per_day=monitoring["decisionsPerDay"],
    )
    assert declared == Project()
    assert tolerances == {}


def test_every_gap_between_policies_is_worth_telling(power: Power) -> None:
    assert len(power.gaps) == 4
    assert {name: gap for name, gap in power.gaps.items() if gap < LEAST_GAP} == {}


def test_the_best_net_price_lies_inside_the_feasible_range_for_most_contexts(power: Power) -> None:
    assert min(power.interior.values()) >= LEAST_INTERIOR


def test_each_act_gets_the_right_verdict_in_time_in_at_least_99_percent_of_500_runs(power: Power) -> None:
    assert power.runs == 500
    assert len(power.acts) == 5
    assert [act for act in power.acts if act.right < LEAST_RIGHT] == []
    assert power.passed


def test_what_serves_in_the_story_sells_well_above_the_purchase_minimum(contexts: Contexts) -> None:
    rates = World(Parameters(), contexts).purchase_rates()
    serving = ("no-loyalty oracle", "loyalty oracle", "loyalty oracle after the change", "new oracle after the change")
    assert min(rates[name] for name in serving) > Project().purchase_minimum + 0.1


def test_a_market_that_was_not_checked_is_refused() -> None:
    with pytest.raises(DrivetrainError, match="not checked"):
        require_checked(replace(Parameters(), slope=9.0), Project())
    with pytest.raises(DrivetrainError, match="not checked"):
        require_checked(Parameters(), replace(Project(), alpha=0.2))


def test_a_market_whose_slope_hardly_depends_on_loyalty_fails_the_check(contexts: Contexts) -> None:
    gaps = World(replace(Parameters(), slope=9.0), contexts).gaps()
    assert min(gaps.values()) < LEAST_GAP
