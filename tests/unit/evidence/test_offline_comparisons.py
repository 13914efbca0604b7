"""Paired gates, the model metric's sequence, reporting rates and off-policy value."""

import json
from dataclasses import replace

import numpy as np
import pytest

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.intervals import Bounds, Floats, Interval
from drivetrain.evidence.paired import LossDifference, compare_losses
from drivetrain.evidence.policy_value import (
    LoggedDecisions,
    NotIdentified,
    PolicyValue,
    Reason,
    Rows,
    policy_value,
)
from drivetrain.evidence.sample_ratio import SampleRatio


def losses(count: int, gain: float) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    champion = rng.exponential(1.0, count)
    return champion, champion - gain + rng.normal(0, 0.05, count)


def test_a_small_gain_is_proved_on_the_same_rows() -> None:
    comparison = compare_losses(*losses(500, 0.02))
    assert comparison.better
    assert comparison.difference.lower < -0.02 < comparison.difference.upper


def test_not_worse_has_a_margin() -> None:
    comparison = compare_losses(*losses(500, -0.02))
    assert not comparison.better
    assert comparison.not_worse(0.05)
    assert not comparison.not_worse(0.01)


def test_rows_of_one_group_count_as_one_observation() -> None:
    champion, challenger = losses(10, 0.1)
    groups = np.repeat(np.arange(10), 50)
    copied = compare_losses(np.repeat(champion, 50), np.repeat(challenger, 50), groups=groups)
    single = compare_losses(champion, challenger)
    assert copied.difference.half_width == pytest.approx(single.difference.half_width)
    assert (copied.rows, copied.clusters) == (500, 10)


def test_one_group_or_other_rows_give_no_interval() -> None:
    with pytest.raises(DrivetrainError, match="two independent groups"):
        compare_losses(*losses(10, 0.1), groups=np.zeros(10, dtype=np.int64))
    with pytest.raises(DrivetrainError, match="same rows"):
        compare_losses(np.zeros(3), np.zeros(4))


def test_the_model_metrics_sequence_is_stored_and_clips_as_declared() -> None:
    champion, challenger = losses(2_000, 0.1)
    sequence, copy = (LossDifference(0.05, Bounds(0, 10)) for _ in range(2))
    sequence.update(champion, challenger)
    copy.restore(json.loads(json.dumps(sequence.state())))
    for one in (sequence, copy):
        one.update(np.full(10, 1e9), np.full(10, 1e9))
    assert copy.interval() == sequence.interval()
    assert sequence.interval().upper < 0


def test_equal_reporting_is_no_mismatch_and_one_sided_silence_is() -> None:
    rng = np.random.default_rng(2)
    weight = np.full(4_000, 0.25)
    candidate = rng.random(4_000) < weight
    fair, copy = SampleRatio(), SampleRatio()
    fair.update(candidate, weight)
    assert not fair.mismatch
    copy.restore(json.loads(json.dumps(fair.state())))
    for _ in range(3):
        copy.update(np.zeros(1_000, dtype=np.bool_), np.full(1_000, 0.25))
    assert copy.mismatch


def a_log(rows: int = 2_000) -> tuple[LoggedDecisions, Floats]:
    rng = np.random.default_rng(3)
    action = rng.integers(2, size=rows)
    kpi = 0.2 + 0.3 * action + rng.normal(0, 0.1, rows)
    fold = rng.integers(4, size=rows)
    taken = action.astype(np.float64)
    return LoggedDecisions(kpi, np.full(rows, 0.5), taken, np.arange(rows), fold), taken


def test_a_policy_that_always_takes_the_better_action_is_valued_at_its_mean() -> None:
    logged, action = a_log()

    def nuisance(fit: Rows, predict: Rows) -> tuple[Floats, Floats]:
        means = [float(logged.kpi[fit][action[fit] == arm].mean()) for arm in (0, 1)]
        return np.where(action[predict] == 1, means[1], means[0]), np.full(len(predict), means[1])

    result = policy_value(logged, nuisance)
    assert isinstance(result, PolicyValue)
    assert result.value.lower < 0.5 < result.value.upper
    assert result.effective_sample == pytest.approx(float(np.sum(action)))
    assert result.overlap == pytest.approx(float(np.mean(action)))


def test_the_nuisance_model_never_predicts_a_row_that_it_was_fitted_on() -> None:
    logged, _ = a_log()
    seen: list[int] = []

    def nuisance(fit: Rows, predict: Rows) -> tuple[Floats, Floats]:
        assert not set(fit.tolist()) & set(predict.tolist())
        seen.extend(predict.tolist())
        return np.zeros(len(predict)), np.zeros(len(predict))

    policy_value(logged, nuisance)
    assert sorted(seen) == list(range(2_000))


def test_decisions_of_one_unit_count_as_one_in_a_policys_value() -> None:
    logged, _ = a_log()
    again = LoggedDecisions(
        np.repeat(logged.kpi, 20),
        np.repeat(logged.propensity, 20),
        np.repeat(logged.target, 20),
        np.repeat(logged.cluster, 20),
        np.repeat(logged.fold, 20),
    )

    def nuisance(_fit: Rows, predict: Rows) -> tuple[Floats, Floats]:
        return np.zeros(len(predict)), np.zeros(len(predict))

    once, copied = policy_value(logged, nuisance), policy_value(again, nuisance)
    assert isinstance(once, PolicyValue)
    assert isinstance(copied, PolicyValue)
    assert copied.value.half_width == pytest.approx(once.value.half_width)
    assert copied.effective_sample == pytest.approx(once.effective_sample)


def test_a_policys_gain_leaves_out_what_it_shares_with_the_champion() -> None:
    logged, action = a_log()

    def nuisance(_fit: Rows, predict: Rows) -> tuple[Floats, Floats]:
        return np.zeros(len(predict)), np.zeros(len(predict))

    found = policy_value(logged, nuisance)
    champion = policy_value(replace(logged, target=1 - action), nuisance)
    assert isinstance(found, PolicyValue)
    assert isinstance(champion, PolicyValue)
    assert found.gain_over(found) == Interval(0.0, 0.0, 0.0)
    assert found.gain_over(champion).lower > 0.2
    other = replace(found, cluster=found.cluster + 1)
    with pytest.raises(DrivetrainError, match="same decisions"):
        found.gain_over(other)


def never(_fit: Rows, _predict: Rows) -> tuple[Floats, Floats]:
    raise AssertionError("a value that is not identified needs no model")


def test_without_propensities_overlap_or_enough_effective_rows_the_value_is_not_identified() -> None:
    logged, action = a_log(150)
    silent = LoggedDecisions(logged.kpi, np.full(150, np.nan), action, logged.cluster, logged.fold)
    apart = LoggedDecisions(logged.kpi, logged.propensity, np.zeros(150), logged.cluster, logged.fold)
    reasons = []
    for case in (silent, apart, logged):
        result = policy_value(case, never)
        assert isinstance(result, NotIdentified)
        reasons.append(result.reason)
    assert reasons == [Reason.NO_PROPENSITIES, Reason.NO_OVERLAP, Reason.SMALL_EFFECTIVE_SAMPLE]
