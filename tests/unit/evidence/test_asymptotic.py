"""The asymptotic sequence: when it starts to speak, and that batching and storing do not change it."""

import json

import numpy as np
import pytest

from drivetrain.evidence.asymptotic import AsymptoticSequence, AsymptoticState
from drivetrain.evidence.intervals import Bools, Floats


def rows_of(count: int) -> tuple[Floats, Floats, Bools]:
    rng = np.random.default_rng(2)
    candidate = rng.random(count) < 0.25
    x = np.where(candidate, 4.0, -4 / 3) * rng.normal(0.1, 1, count)
    return x, np.full(count, 0.25 * 0.75), candidate


def test_nothing_is_claimed_before_both_arms_have_100_outcomes() -> None:
    x, v, candidate = rows_of(3_000)
    sequence = AsymptoticSequence(alpha=0.05, scale=10.0)
    last_silent = int(np.flatnonzero(np.cumsum(candidate) == 99)[-1]) + 1
    sequence.update(x[:last_silent], v[:last_silent], candidate[:last_silent])
    assert sequence.interval().upper == np.inf
    sequence.update(x[last_silent:], v[last_silent:], candidate[last_silent:])
    assert np.isfinite(sequence.interval().half_width)


def test_how_rows_are_batched_does_not_change_the_interval() -> None:
    x, v, candidate = rows_of(2_000)
    whole, parts = (AsymptoticSequence(alpha=0.05, scale=10.0) for _ in range(2))
    whole.update(x, v, candidate)
    for start in range(0, 2_000, 61):
        rows = slice(start, start + 61)
        parts.update(x[rows], v[rows], candidate[rows])
    assert parts.interval().lower == pytest.approx(whole.interval().lower)
    assert parts.interval().upper == pytest.approx(whole.interval().upper)


def test_a_metric_that_hardly_varies_gets_no_bounds() -> None:
    sequence = AsymptoticSequence(alpha=0.05, scale=10.0)
    rng = np.random.default_rng(3)
    sequence.update(rng.normal(0, 1e-5, 2_000), np.ones(2_000), None)
    assert sequence.interval().half_width == np.inf


def test_the_interval_is_wider_than_one_for_a_single_look_but_less_than_twice() -> None:
    x, v, candidate = rows_of(5_000)
    sequence = AsymptoticSequence(alpha=0.05, scale=10.0)
    sequence.update(x, v, candidate)
    single = 1.96 * float(np.std(x)) / np.sqrt(len(x))
    assert single < sequence.interval().half_width < 2 * single


def test_a_stored_sequence_goes_on_as_if_it_had_never_stopped() -> None:
    x, v, candidate = rows_of(2_000)
    uninterrupted, before, after = (AsymptoticSequence(alpha=0.05, scale=10.0) for _ in range(3))
    uninterrupted.update(x, v, candidate)
    before.update(x[:900], v[:900], candidate[:900])
    stored: AsymptoticState = json.loads(json.dumps(before.state()))
    after.restore(stored)
    after.update(x[900:], v[900:], candidate[900:])
    assert after.interval().lower == pytest.approx(uninterrupted.interval().lower)
