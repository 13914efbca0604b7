"""The renewals market: what the example promises of it."""

from pathlib import Path

import numpy as np
import yaml

from drivetrain.api.reach import kpi_bounds
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.validation import validate_project
from examples.renewals import market
from examples.renewals.market import Subscribers, baseline_profit, best_profit, history
from examples.renewals.traffic import Tally

MANIFEST = Path(market.__file__).with_name("project.yaml")


def a_project() -> DrivetrainProject:
    return DrivetrainProject.parse(yaml.safe_load(MANIFEST.read_text()))


def test_the_project_means_what_it_says() -> None:
    assert validate_project(a_project()) == ()


def test_the_best_policy_earns_clearly_more_than_todays_and_is_never_worse() -> None:
    who = Subscribers.draw(5_000, np.random.default_rng(1))
    gap = best_profit(who) - baseline_profit(who)
    assert gap.min() >= 0
    assert gap.mean() > 5  # USD a renewal; 6.4 with this seed


def test_past_rows_keep_the_contract_and_cover_every_action_alike() -> None:
    project, past = a_project(), history(6_000, np.random.default_rng(2))
    target = project.spec.data.target
    assert target.minimum is not None
    assert target.maximum is not None
    assert past["revenue"].is_between(target.minimum, target.maximum).all()
    counts = past.group_by("channel", "credit").len()["len"]
    assert len(counts) == 15
    assert counts.is_between(300, 500).all()  # 400 each, five standard deviations of 19.3 either way
    assert set(past["propensity"]) == {1 / 15}


def test_the_bounds_of_the_kpi_follow_from_levers_and_target() -> None:
    spec = a_project().spec
    reached = kpi_bounds(spec.objective, spec.levers, spec.data.columns, spec.data.target)
    assert (reached.low, reached.high) == (-26.0, 120.0)


def test_a_share_of_the_gap_is_0_for_todays_policy_and_1_for_the_best() -> None:
    assert Tally(10, expected=240.0, baseline=240.0, best=300.0).share == 0
    assert Tally(10, expected=300.0, baseline=240.0, best=300.0).share == 1
