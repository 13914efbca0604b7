"""The canary's increments, bounds, directions and verdicts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.canary import (
    Canary,
    CanaryState,
    Metric,
    MetricEvidence,
    MetricSequence,
    Outcomes,
    Verdict,
    increments,
    level_increments,
    projected_units,
)
from drivetrain.evidence.intervals import Bools, Bounds, Floats, Interval, OutOfBoundsError

KPI = Metric("margin", bounds=Bounds(-0.2, 1.0))
FALLBACK = Metric("fallback", higher_is_better=False, tolerance=0.02, bounds=Bounds(0, 1))


def units(count: int, effect: float, seed: int = 1) -> tuple[Bools, Floats, Floats]:
    rng = np.random.default_rng(seed)
    weight = np.full(count, 0.5)
    candidate = rng.random(count) < weight
    y = (rng.random(count) < 0.5 + effect * candidate).astype(np.float64)
    return candidate, weight, y


def log_capital(sequence: MetricSequence) -> list[float]:
    betting = sequence.state()["betting"]
    assert betting is not None
    return betting["log_capital"]


def verdict_on(metric: Metric, effect: float, count: int = 4_000) -> Verdict:
    candidate, weight, y = units(count, effect)
    sequence = MetricSequence(metric, 0.05)
    sequence.update(candidate, weight, Outcomes(y))
    return sequence.evidence().verdict


@given(
    st.floats(0.01, 0.99), st.booleans(), st.floats(-0.2, 1), st.floats(-0.2, 1), st.floats(-0.2, 1), st.floats(-1, 1)
)
def test_the_bet_is_bounded_by_the_weight_alone_whatever_the_row_predicts(  # noqa: PLR0917 - hypothesis passes by position
    w: float, candidate: bool, y: float, m_stable: float, m_candidate: float, share: float
) -> None:
    arm, weight = np.array([candidate]), np.array([w])
    x = increments(arm, weight, np.array([y]), np.array([m_stable]), np.array([m_candidate]))[0]
    width = 1.2
    assert abs(x) <= width / min(w, 1 - w) + 1e-9
    assert abs(w * (1 - w) * (x - share * width)) <= width + 1e-9


def test_rows_with_other_predictions_but_the_same_increment_get_the_same_bet() -> None:
    weight, arm = np.array([0.25]), np.array([True])
    y, m_stable, m_candidate = 0.6, 0.5, 0.5
    x = increments(arm, weight, np.array([y]), np.array([m_stable]), np.array([m_candidate]))[0]
    other_stable, other_candidate = 0.1, 0.2
    other_y = other_candidate + 0.25 * (x - other_candidate + other_stable)
    first, second = (MetricSequence(KPI, 0.05) for _ in range(2))
    first.update(arm, weight, Outcomes(np.array([y]), np.array([m_stable]), np.array([m_candidate])))
    second.update(arm, weight, Outcomes(np.array([other_y]), np.array([other_stable]), np.array([other_candidate])))
    np.testing.assert_allclose(log_capital(first), log_capital(second))


def test_the_increment_is_unbiased_for_the_effect_whatever_m_is() -> None:
    w, y_stable, y_candidate, m_stable, m_candidate = 0.3, 0.2, 0.7, 0.9, -0.1
    mean = sum(
        chance
        * increments(np.array([arm]), np.array([w]), np.array([y]), np.array([m_stable]), np.array([m_candidate]))[0]
        for arm, y, chance in ((True, y_candidate, w), (False, y_stable, 1 - w))
    )
    assert mean == pytest.approx(y_candidate - y_stable)


@given(
    st.floats(0.01, 0.99), st.booleans(), st.floats(-0.2, 1), st.floats(-0.2, 1), st.floats(-0.2, 1), st.floats(-0.2, 1)
)
def test_the_bet_on_a_level_is_bounded_by_the_weight_alone_whatever_the_row_predicts(  # noqa: PLR0917 - as above
    w: float, candidate: bool, y: float, m_candidate: float, level: float, mean: float
) -> None:
    x = level_increments(np.array([candidate]), np.array([w]), np.array([y]), np.array([m_candidate]))[0] - level
    assert abs(w * (1 - w) * (x - (mean - level))) <= 1.2 + 1e-9


@pytest.mark.parametrize("m_candidate", [0.0, 0.9, -0.1])
def test_the_increment_of_a_level_is_unbiased_for_the_candidates_mean_at_changing_weights(m_candidate: float) -> None:
    weight = np.array([0.1, 0.25, 0.5, 0.9])
    m, bought, passed = np.full(4, m_candidate), np.full(4, 0.7), np.full(4, 0.2)
    for_candidate = level_increments(np.full(4, True), weight, bought, m)
    for_stable = level_increments(np.full(4, False), weight, passed, m)
    np.testing.assert_allclose(weight * for_candidate + (1 - weight) * for_stable, 0.7)


def test_a_candidate_is_held_against_a_level_whatever_stable_does() -> None:
    least, most = (Metric("purchase", higher, bounds=Bounds(0, 1), level=0.5) for higher in (True, False))
    assert verdict_on(least, -0.2) is Verdict.HARM_PROVED
    assert verdict_on(least, 0.2) is Verdict.HARM_EXCLUDED  # to keep a bound is not to be better
    assert verdict_on(least, 0.0) is Verdict.OPEN
    assert verdict_on(most, -0.2) is Verdict.HARM_EXCLUDED
    assert verdict_on(most, 0.2) is Verdict.HARM_PROVED
    assert verdict_on(replace(least, level=0.2), -0.2) is Verdict.HARM_EXCLUDED


@pytest.mark.parametrize("higher", [True, False])
def test_the_interval_of_a_level_is_that_of_the_candidates_mean_less_it(higher: bool) -> None:
    candidate, weight, y = units(4_000, 0.2)
    sequence = MetricSequence(Metric("purchase minimum", higher, bounds=Bounds(0, 1), level=0.1), 0.05)
    sequence.update(candidate, weight, Outcomes(y, np.full(4_000, 0.5), np.full(4_000, 0.6)))
    effect = sequence.evidence().effect
    assert effect.lower < 0.6 < effect.upper
    assert effect.half_width < 0.08
    assert -0.1 <= effect.lower <= effect.upper <= 0.9


def test_a_level_outside_the_bounds_or_with_a_tolerance_is_refused() -> None:
    with pytest.raises(DrivetrainError, match="level"):
        Metric("purchase", bounds=Bounds(0, 1), level=1.1)
    with pytest.raises(DrivetrainError, match="tolerance"):
        Metric("purchase", tolerance=0.1, bounds=Bounds(0, 1), level=0.5)


def test_verdicts_follow_effect_direction_and_tolerance() -> None:
    metric = Metric("purchase", bounds=Bounds(0, 1))
    tolerant = replace(metric, tolerance=0.2)
    reverse = Metric("complaints", higher_is_better=False, bounds=Bounds(0, 1))
    assert verdict_on(metric, 0.2) is Verdict.SUPERIOR
    assert verdict_on(metric, -0.2) is Verdict.HARM_PROVED
    assert verdict_on(metric, 0.0) is Verdict.OPEN
    assert verdict_on(tolerant, -0.05) is Verdict.HARM_EXCLUDED
    assert verdict_on(tolerant, -0.4) is Verdict.HARM_PROVED
    assert verdict_on(reverse, 0.2) is Verdict.HARM_PROVED
    assert verdict_on(reverse, -0.2) is Verdict.SUPERIOR


def test_evidence_is_told_in_the_metrics_own_direction_with_its_counts() -> None:
    candidate, weight, y = units(4_000, 0.2)
    sequence = MetricSequence(Metric("complaints", higher_is_better=False, bounds=Bounds(0, 1)), 0.05)
    sequence.update(candidate, weight, Outcomes(y))
    evidence = sequence.evidence()
    assert evidence.effect.lower < 0.2 < evidence.effect.upper
    assert evidence.effect.lower > 0
    assert (evidence.stable_units, evidence.candidate_units) == (int(np.sum(~candidate)), int(candidate.sum()))


def test_predictions_halve_the_interval_where_they_explain_the_outcome() -> None:
    rng = np.random.default_rng(3)
    count = 4_000
    weight = np.full(count, 0.25)
    candidate = rng.random(count) < weight
    m = rng.uniform(0, 1, count)
    y = np.clip(m + rng.normal(0, 0.05, count), 0, 1)
    blind, informed = (MetricSequence(Metric("kpi", bounds=Bounds(0, 1)), 0.05) for _ in range(2))
    blind.update(candidate, weight, Outcomes(y))
    informed.update(candidate, weight, Outcomes(y, m, m))
    assert informed.evidence().effect.half_width < 0.5 * blind.evidence().effect.half_width


def test_a_guardrail_that_never_moves_has_its_harm_excluded_all_the_same() -> None:
    candidate, weight, _ = units(4_000, 0.0)
    sequence = MetricSequence(FALLBACK, 0.05 / 3)
    sequence.update(candidate, weight, Outcomes(np.zeros(4_000)))
    assert sequence.evidence().verdict is Verdict.HARM_EXCLUDED


def test_a_kpi_outside_its_bounds_is_named_and_enters_no_metric() -> None:
    canary = Canary((FALLBACK, KPI), 0.05)
    before = json.dumps(canary.state())
    candidate, weight, y = units(10, 0.0)
    y[3] = 1.5
    with pytest.raises(OutOfBoundsError, match=r"margin is 1\.5") as caught:
        canary.update(candidate, weight, {"margin": Outcomes(y), "fallback": Outcomes(np.zeros(10))})
    assert (caught.value.metric, caught.value.value) == ("margin", 1.5)
    assert json.dumps(canary.state()) == before


def test_a_value_that_is_not_a_number_is_out_of_bounds() -> None:
    candidate, weight, y = units(10, 0.0)
    y[0] = np.nan
    with pytest.raises(OutOfBoundsError):
        MetricSequence(KPI, 0.05).update(candidate, weight, Outcomes(y))


def test_an_unbounded_kpi_is_clipped_as_declared() -> None:
    candidate, weight, y = units(2_000, 0.0)
    metric = Metric("revenue", clip=Bounds(0, 1))
    clipped, wild = (MetricSequence(metric, 0.05) for _ in range(2))
    clipped.update(candidate, weight, Outcomes(y))
    wild.update(candidate, weight, Outcomes(np.where(y == 1, 1e9, y)))
    assert wild.evidence() == clipped.evidence()


def test_a_unit_that_could_only_have_one_arm_is_refused() -> None:
    with pytest.raises(DrivetrainError, match="between 0 and 1"):
        MetricSequence(KPI, 0.05).update(np.array([True]), np.array([1.0]), Outcomes(np.array([0.5])))


def test_alpha_is_split_over_metrics() -> None:
    assert {evidence.alpha for evidence in Canary((KPI, FALLBACK), 0.05).evidence()} == {0.025}


def test_a_stored_canary_goes_on_as_if_it_had_never_stopped() -> None:
    metrics = (KPI, FALLBACK, Metric("revenue", clip=Bounds(0, 5)))
    candidate, weight, y = units(1_000, 0.1)

    def feed(canary: Canary, rows: slice) -> None:
        outcomes = Outcomes(y[rows])
        canary.update(candidate[rows], weight[rows], {metric.name: outcomes for metric in metrics})

    uninterrupted, before = Canary(metrics, 0.05), Canary(metrics, 0.05)
    feed(uninterrupted, slice(None))
    feed(before, slice(0, 512))
    stored: CanaryState = json.loads(json.dumps(before.state()))
    after = Canary.from_state(metrics, 0.05, stored)
    feed(after, slice(512, None))
    for one, other in zip(after.evidence(), uninterrupted.evidence(), strict=True):
        assert one.verdict is other.verdict
        assert one.effect.lower == pytest.approx(other.effect.lower)
        assert one.effect.upper == pytest.approx(other.effect.upper)


def test_a_canary_does_not_go_on_from_the_evidence_of_other_metrics() -> None:
    with pytest.raises(DrivetrainError, match="other metrics"):
        Canary.from_state((FALLBACK,), 0.05, Canary((KPI,), 0.05).state())
    with pytest.raises(DrivetrainError, match="another kind"):
        Canary.from_state((Metric("margin", clip=Bounds(0, 1)),), 0.05, Canary((KPI,), 0.05).state())


def evidence_of(estimate: float, reach: float) -> MetricEvidence:
    effect = Interval(estimate, estimate - reach, estimate + reach)
    return MetricEvidence("margin", effect, 900, 100, 0.05, Verdict.OPEN)


def test_projection_says_how_many_more_units_a_verdict_needs() -> None:
    # Half as wide takes four times the information: three times what 1,000 units at 10 % brought.
    assert projected_units(evidence_of(0.05, 0.1), KPI, 0.1, superior=True) == pytest.approx(3_000)
    at_half = projected_units(evidence_of(0.05, 0.1), KPI, 0.5, superior=True)
    assert at_half == pytest.approx(3_000 * 0.09 / 0.25)


def test_projection_foresees_a_rejection_and_admits_when_there_is_none() -> None:
    assert projected_units(evidence_of(-0.05, 0.1), KPI, 0.1, superior=True) == pytest.approx(3_000)
    assert projected_units(evidence_of(0.0, 0.1), KPI, 0.1, superior=True) is None
    assert projected_units(evidence_of(0.05, np.inf), KPI, 0.1, superior=True) is None


def test_a_metric_needs_bounds_or_a_clipping_range() -> None:
    with pytest.raises(DrivetrainError, match="bounds"):
        Metric("margin")
