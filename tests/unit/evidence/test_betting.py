"""The betting sequence: exactness of its grid, its constant bound, and its stored state."""

import json

import numpy as np
import pytest
from scipy.special import logsumexp

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.betting import FRACTIONS, BettingSequence, BettingState, mean_grid
from drivetrain.evidence.intervals import Floats

BOUND = 1.2


def a_sequence(means: Floats | None = None) -> BettingSequence:
    return BettingSequence(alpha=0.05, bound=BOUND, means=mean_grid(BOUND, (-0.02,)) if means is None else means)


def increments_of(count: int, seed: int = 1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    share = np.where(np.arange(count) < count // 2, 0.1, 0.5)
    noise = rng.uniform(-0.5, 0.6, count)
    x = np.where(rng.random(count) < share, noise / share, -noise / (1 - share))
    return x, share * (1 - share)


def exact_lower_bound(x: Floats, v: Floats) -> float:
    """The bound by bisection on all increments, without a grid."""
    low, high = -BOUND, BOUND
    for _ in range(60):
        mean = (low + high) / 2
        logs = [np.sum(np.log1p(fraction * v * (x - mean) / BOUND)) for fraction in FRACTIONS]
        rejected = logsumexp(logs) - np.log(len(logs)) >= np.log(2 / 0.05)
        low, high = (mean, high) if rejected else (low, mean)
    return low


@pytest.mark.parametrize("count", [200, 2_000, 20_000])
def test_bounds_between_grid_points_are_conservative_and_close_to_the_exact_inversion(count: int) -> None:
    x, v = increments_of(count)
    sequence = a_sequence()
    sequence.update(x, v)
    interval = sequence.interval()
    exact = exact_lower_bound(x, v)
    assert interval.lower <= exact + 1e-9
    assert exact - interval.lower <= 0.05 * (interval.upper - interval.lower)


def test_how_rows_are_batched_does_not_change_the_evidence() -> None:
    x, v = increments_of(1_000)
    whole, parts = a_sequence(), a_sequence()
    whole.update(x, v)
    for start in range(0, 1_000, 37):
        parts.update(x[start : start + 37], v[start : start + 37])
    assert parts.interval().lower == pytest.approx(whole.interval().lower, abs=1e-9)
    assert parts.interval().upper == pytest.approx(whole.interval().upper, abs=1e-9)


def test_many_runs_together_equal_each_run_alone() -> None:
    x = np.stack([increments_of(500, seed)[0] for seed in range(4)])
    v = np.stack([increments_of(500, seed)[1] for seed in range(4)])
    together = BettingSequence(alpha=0.05, bound=BOUND, means=np.array([-0.02, 0.0]), runs=(4,))
    together.update(x, v)
    for run in range(4):
        alone = a_sequence(np.array([-0.02, 0.0]))
        alone.update(x[run], v[run])
        for mean in (-0.02, 0.0):
            assert together.exceeds(mean)[run] == alone.exceeds(mean)
            assert together.falls_below(mean)[run] == alone.falls_below(mean)


def test_the_estimate_is_the_weighted_mean_and_lies_inside() -> None:
    x, v = increments_of(3_000)
    sequence = a_sequence()
    sequence.update(x, v)
    interval = sequence.interval()
    assert interval.estimate == pytest.approx(float(np.sum(v * x) / np.sum(v)))
    assert interval.lower < interval.estimate < interval.upper


def test_before_any_row_the_interval_is_the_whole_range() -> None:
    interval = a_sequence().interval()
    assert (interval.lower, interval.upper) == (-BOUND, BOUND)


def test_a_stored_sequence_goes_on_as_if_it_had_never_stopped() -> None:
    x, v = increments_of(1_000)
    uninterrupted, before = a_sequence(), a_sequence()
    uninterrupted.update(x, v)
    before.update(x[:400], v[:400])
    stored: BettingState = json.loads(json.dumps(before.state()))
    after = a_sequence()
    after.restore(stored)
    after.update(x[400:], v[400:])
    assert after.interval().lower == pytest.approx(uninterrupted.interval().lower, abs=1e-9)
    assert after.interval().upper == pytest.approx(uninterrupted.interval().upper, abs=1e-9)


def test_a_state_of_another_declaration_is_refused() -> None:
    with pytest.raises(DrivetrainError, match="another declaration"):
        a_sequence().restore(a_sequence(np.array([0.0])).state())


def test_a_mean_that_is_not_followed_is_refused_instead_of_guessed() -> None:
    with pytest.raises(DrivetrainError, match="hypothetical means"):
        a_sequence().exceeds(0.0123)
