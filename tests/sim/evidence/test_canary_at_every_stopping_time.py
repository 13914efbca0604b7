"""Is the canary's verdict right at every look, in worlds where plausible shortcuts are confidently wrong?"""

from dataclasses import dataclass

import numpy as np
import pytest

from drivetrain.evidence.betting import FRACTIONS
from drivetrain.evidence.canary import Metric, MetricSequence, Outcomes, increments
from drivetrain.evidence.intervals import Bools, Bounds, Floats
from tests.support.binomial import assert_rate_above, assert_rate_below

ALPHA = 0.05
KPI = Metric("margin", bounds=Bounds(0.0, 1.0))
UNBOUNDED = Metric("margin", clip=Bounds(-10.0, 10.0))


@dataclass(frozen=True)
class Rollouts:
    """Simulated rollouts, arrays of shape (runs, units) in decision order."""

    candidate: Bools
    weight: Floats
    y: Floats
    m: Floats

    def outcomes(self, rows: slice) -> Outcomes:
        return Outcomes(self.y[:, rows], self.m[:, rows], self.m[:, rows])


def a_world(runs: int, units: int, effect: float, seed: int) -> Rollouts:
    """A ramp 10/25/50 while demand drifts upwards and days go together; the candidate shifts demand by `effect`."""
    rng = np.random.default_rng(seed)
    time = np.arange(units) / units
    weight = np.broadcast_to(np.select([time < 1 / 3, time < 2 / 3], [0.10, 0.25], 0.50), (runs, units))
    days = 40
    wave = np.zeros((runs, days))
    for day in range(1, days):
        wave[:, day] = 0.9 * wave[:, day - 1] + rng.normal(0, 0.03, runs)
    demand = 0.25 + 0.4 * time + np.repeat(wave, units // days, axis=1)
    loyal = rng.random((runs, units)) < 0.5
    chance = np.clip(demand + 0.2 * (loyal - 0.5), 0.02, 0.98)
    candidate = rng.random((runs, units)) < weight
    bought = rng.random((runs, units)) < np.clip(chance + effect * candidate, 0, 1)
    y: Floats = np.where(bought, rng.uniform(0.2, 0.6, (runs, units)), 0.0)
    return Rollouts(candidate, weight, y, np.where(loyal, 0.25, 0.15))


def verdicts(metric: Metric, world: Rollouts, *, every: int) -> tuple[Bools, Bools]:
    """Whether each run was ever found superior, and ever harmful, looking after every `every` units."""
    runs, units = world.y.shape
    sequence = MetricSequence(metric, ALPHA, runs=(runs,), thresholds_only=True)
    superior, harmful = np.zeros(runs, dtype=np.bool_), np.zeros(runs, dtype=np.bool_)
    for start in range(0, units, every):
        rows = slice(start, start + every)
        sequence.update(world.candidate[:, rows], world.weight[:, rows], world.outcomes(rows))
        superior |= sequence.superior
        harmful |= sequence.harm_proved
    return superior, harmful


def test_an_identical_candidate_rarely_gets_a_verdict_at_any_unit_where_pooled_means_are_wrong() -> None:
    runs = 500
    world = a_world(runs, 6_000, 0.0, seed=1)
    superior, harmful = verdicts(KPI, world, every=1)
    assert_rate_below(int(np.sum(superior | harmful)), runs, ALPHA)

    # The shortcut in the same world: arm means pooled over the ramp, with a two-sample interval at the very end.
    arms = [np.where(arm, world.y, np.nan) for arm in (world.candidate, ~world.candidate)]
    difference = np.nanmean(arms[0], axis=1) - np.nanmean(arms[1], axis=1)
    error = np.sqrt(sum(np.nanvar(arm, axis=1) / np.sum(~np.isnan(arm), axis=1) for arm in arms))
    assert_rate_above(int(np.sum(np.abs(difference) > 1.96 * error)), runs, 0.9)


def test_an_unbounded_kpi_of_an_identical_candidate_gets_a_verdict_in_at_most_alpha_of_runs() -> None:
    runs = 2_000  # the guarantee is asymptotic, so its rate is pinned down more closely than by 500 runs
    superior, harmful = verdicts(UNBOUNDED, a_world(runs, 6_000, 0.0, seed=2), every=5)
    assert_rate_below(int(np.sum(superior | harmful)), runs, ALPHA)


@pytest.mark.parametrize("metric", [KPI, UNBOUNDED], ids=["betting", "asymptotic"])
def test_a_harmful_candidate_is_rejected_and_never_promoted(metric: Metric) -> None:
    runs = 200
    superior, harmful = verdicts(metric, a_world(runs, 6_000, -0.2, seed=3), every=50)
    assert_rate_above(int(harmful.sum()), runs, 0.95)
    assert_rate_below(int(superior.sum()), runs, ALPHA)


@pytest.mark.parametrize("metric", [KPI, UNBOUNDED], ids=["betting", "asymptotic"])
def test_a_better_candidate_is_found_superior(metric: Metric) -> None:
    runs = 200
    superior, harmful = verdicts(metric, a_world(runs, 6_000, 0.2, seed=4), every=50)
    assert_rate_above(int(superior.sum()), runs, 0.95)
    assert_rate_below(int(harmful.sum()), runs, ALPHA)


def test_a_candidate_that_helps_some_and_hurts_others_is_not_rejected_unless_bets_follow_the_row() -> None:
    runs, units = 300, 10_000
    rng = np.random.default_rng(5)
    weight = np.full((runs, units), 0.25)
    dear = rng.random((runs, units)) < 0.5  # customers with a large margin gain what those with a small one lose
    margin = np.where(dear, 1.0, 0.2)
    chance = np.full((runs, units), 0.5)
    candidate = rng.random((runs, units)) < weight
    shift = np.where(dear, 0.04 / 1.0, -0.04 / 0.2)  # +0.04 and -0.04 in the KPI: mean 0
    y = margin * (rng.random((runs, units)) < chance + shift * candidate)
    m = margin * chance
    world = Rollouts(candidate, weight, y, m)
    superior, harmful = verdicts(KPI, world, every=50)
    assert_rate_below(int(np.sum(superior | harmful)), runs, ALPHA)

    # What we do not do: bets scaled by the row's own range, which test another average.
    x = increments(candidate, weight, y, m, m) / (margin / 0.25)
    log_capital = np.stack([np.cumsum(np.log1p(-fraction * x), axis=1) for fraction in FRACTIONS])
    capital = np.mean(np.exp(log_capital), axis=0)
    assert_rate_above(int(np.sum(capital.max(axis=1) >= 2 / ALPHA)), runs, 0.9)


def test_an_effect_that_comes_and_goes_is_judged_by_its_running_weighted_mean() -> None:
    """The candidate hurts, then helps, so that its weighted mean effect so far is never above 0: never superior."""
    runs, units = 400, 6_000
    rng = np.random.default_rng(8)
    time = np.arange(units)
    weight = np.broadcast_to(np.where(time < 3_000, 0.25, 0.5), (runs, units))
    effect = np.select([time < 1_500, time < 3_000], [-0.2, 0.2], 0.0)
    candidate = rng.random((runs, units)) < weight
    y = np.where(rng.random((runs, units)) < 0.5 + effect * candidate, 1.0, 0.0)
    superior, _ = verdicts(KPI, Rollouts(candidate, weight, y, np.full((runs, units), 0.5)), every=10)
    assert_rate_below(int(superior.sum()), runs, ALPHA)


def test_outcomes_counted_as_they_arrive_promote_a_candidate_whose_buyers_are_merely_faster() -> None:
    runs, units, matures_after = 300, 4_000, 2_000
    rng = np.random.default_rng(6)
    weight = np.full((runs, units), 0.25)
    candidate = rng.random((runs, units)) < weight
    bought = rng.random((runs, units)) < 0.5  # the same in both arms, in the end
    y = np.where(bought, 0.5, 0.0)
    decided = np.broadcast_to(np.arange(units), (runs, units))
    m = np.full((runs, units), 0.25)
    known = np.where(bought, decided + np.where(candidate, 100, 1_500), decided + matures_after)
    world = Rollouts(candidate, weight, y, m)

    # A cohort counts when all of it has matured: decision order, whatever arrived before.
    superior, harmful = verdicts(KPI, world, every=20)
    assert_rate_below(int(np.sum(superior | harmful)), runs, ALPHA)

    order = np.argsort(known, axis=1, kind="stable")
    by_arrival = Rollouts(*(np.take_along_axis(field, order, axis=1) for field in (candidate, weight, y, m)))
    superior, _ = verdicts(KPI, by_arrival, every=20)
    assert_rate_above(int(superior.sum()), runs, 0.9)


def test_the_interval_at_a_tenth_of_traffic_is_at_most_twice_as_wide_as_a_single_look() -> None:
    """Half-widths for 1,000 and 10,000 decisions, where an interval for one look has 0.069 and 0.022."""
    rng = np.random.default_rng(7)
    reached = []
    for units in (1_000, 10_000):
        widths = []
        for _ in range(10):
            weight = np.full(units, 0.1)
            candidate = rng.random(units) < weight
            y = np.where(rng.random(units) < 0.5, 0.67, 0.0)
            m = np.full(units, 0.335)
            sequence = MetricSequence(Metric("kpi", bounds=Bounds(-0.2, 1.0)), ALPHA)
            sequence.update(candidate, weight, Outcomes(y, m, m))
            widths.append(sequence.evidence().effect.half_width)
        reached.append(float(np.mean(widths)))
    assert reached[0] <= 0.125
    assert reached[1] <= 0.036


@pytest.mark.nightly
def test_over_many_identical_candidates_wrong_verdicts_stay_rare_at_every_unit() -> None:
    runs, wrong = 0, 0
    for seed in range(100, 110):
        superior, harmful = verdicts(KPI, a_world(500, 12_000, 0.0, seed=seed), every=1)
        runs += 500
        wrong += int(np.sum(superior | harmful))
    assert_rate_below(wrong, runs, ALPHA)


def a_portfolio(runs: int, units: int, rate: float, seed: int) -> Rollouts:
    """A ramp 10/25/50 in which the candidate sells at `rate`, stable a fifth better, and m is wrong on both."""
    rng = np.random.default_rng(seed)
    time = np.arange(units) / units
    weight = np.broadcast_to(np.select([time < 1 / 3, time < 2 / 3], [0.10, 0.25], 0.50), (runs, units))
    candidate = rng.random((runs, units)) < weight
    loyal = rng.random((runs, units)) < 0.5
    chance = np.where(candidate, rate, rate + 0.2) + 0.2 * (loyal - 0.5)
    bought = rng.random((runs, units)) < chance
    return Rollouts(candidate, weight, bought.astype(np.float64), np.where(loyal, 0.9, 0.5))


def test_a_candidate_at_its_minimum_is_rarely_rejected_at_any_look_and_one_below_it_is() -> None:
    runs, minimum = 500, Metric("sold minimum", bounds=Bounds(0.0, 1.0), level=0.4)
    _, harmful = verdicts(minimum, a_portfolio(runs, 6_000, 0.4, seed=21), every=20)
    assert_rate_below(int(np.sum(harmful)), runs, ALPHA)
    superior, harmful = verdicts(minimum, a_portfolio(runs, 6_000, 0.3, seed=22), every=50)
    assert_rate_above(int(np.sum(harmful)), runs, 0.95)
    assert not superior.any()


def test_a_candidate_at_its_maximum_is_rarely_rejected_at_any_look_and_one_above_it_is() -> None:
    runs, maximum = 500, Metric("sold maximum", higher_is_better=False, bounds=Bounds(0.0, 1.0), level=0.4)
    _, harmful = verdicts(maximum, a_portfolio(runs, 6_000, 0.4, seed=23), every=20)
    assert_rate_below(int(np.sum(harmful)), runs, ALPHA)
    _, harmful = verdicts(maximum, a_portfolio(runs, 6_000, 0.5, seed=24), every=50)
    assert_rate_above(int(np.sum(harmful)), runs, 0.95)
