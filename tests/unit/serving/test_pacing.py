"""What of a report is told at once."""

from datetime import UTC, datetime, timedelta

import pytest

from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import (
    DetectorEvidence,
    DriftEvidence,
    KpiEvidence,
    MetricEvidence,
    RolloutEvidence,
    ServingReport,
    ShadowEvidence,
    Trouble,
)
from drivetrain.api.v1alpha1.rollout import Analysis, AnalysisMetric, Monitoring
from drivetrain.serving.pacing import numbers, pace, turning_points

AT = datetime(2026, 1, 1, tzinfo=UTC)
ANALYSIS = Analysis(
    goal="NonInferior",
    tolerance=0.02,
    min_outcomes=100,
    metrics=(AnalysisMetric(name="purchase", better="Higher", tolerance=0.1),),
)
CONFIG = EndpointConfig(stable="s", candidate="c", baseline="b", salt="x", rollout="r-1", analysis=ANALYSIS)


def margin(lower: float, upper: float) -> MetricEvidence:
    return MetricEvidence(metric="margin", role="Kpi", estimate=(lower + upper) / 2, lower=lower, upper=upper)


def metric(name: str, role: str, lower: float, upper: float) -> MetricEvidence:
    return MetricEvidence.model_validate({"metric": name, "role": role, "estimate": 0, "lower": lower, "upper": upper})


def rollout(*metrics: MetricEvidence, outcomes: int = 50, **more: object) -> RolloutEvidence:
    return RolloutEvidence.model_validate(
        {
            "rollout": "r-1",
            "stable": "s",
            "candidate": "c",
            "weight": 10,
            "outcomes_stable": 900,
            "outcomes_candidate": outcomes,
            "metrics": metrics or (margin(-0.5, 0.5),),
            **more,
        }
    )


def report(**more: object) -> ServingReport:
    return ServingReport.model_validate({"sequence": 1, "at": AT, "replicas": 1, "rollout": rollout(), **more})


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(report(rollout=rollout(margin(-0.4, 0.4))), id="a narrower interval"),
        pytest.param(report(rollout=rollout(outcomes=99)), id="more outcomes, and not enough yet"),
        pytest.param(report(matured=7, explored=3, kpi=None), id="more decisions"),
        pytest.param(report(drift=None, adjusted={"late": "3 of 100"}), id="words with numbers"),
        pytest.param(
            report(rollout=rollout(margin(-0.5, 0.5), metric("logLoss", "Shown", 1, 2))).model_copy(
                update={"rollout": rollout(projected_verdict_at=AT)}
            ),
            id="another projection",
        ),
    ],
)
def test_numbers_that_no_decision_turns_on_may_wait(told: ServingReport) -> None:
    assert turning_points(told, CONFIG) == turning_points(report(), CONFIG)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(report(rollout=rollout(margin(-0.5, -0.01))), id="worse, within the tolerance"),
        pytest.param(report(rollout=rollout(margin(-0.5, -0.03))), id="harm is proved"),
        pytest.param(report(rollout=rollout(margin(-0.01, 0.5))), id="harm is excluded"),
        pytest.param(report(rollout=rollout(margin(0.01, 0.5))), id="better is proved"),
        pytest.param(report(rollout=rollout(outcomes=100)), id="outcomes suffice"),
        pytest.param(report(rollout=rollout(weight=25)), id="another weight is in force"),
        pytest.param(report(rollout=rollout(halted="KpiOutOfBounds")), id="halted"),
        pytest.param(report(rollout=None), id="the rollout is over"),
        pytest.param(report(rollout=rollout(rollout="r-2")), id="the next rollout"),
        pytest.param(report(rollout=rollout(shadow=ShadowEvidence(decisions=1, failed=1))), id="a shadow fails"),
        pytest.param(report(replicas=2), id="a replica more"),
        pytest.param(report(loads=({"hash": "c", "state": "Failed"},)), id="a model that cannot be loaded"),
        pytest.param(report(data_fingerprint="a-b"), id="new files"),
        pytest.param(report(trouble=Trouble(reason="StoreUnavailable", message="")), id="the store is away"),
        pytest.param(report(kpi=KpiEvidence(mean=0.1, decisions=1)), id="a first KPI"),
        pytest.param(report(drift=DriftEvidence(kpi=DetectorEvidence(severity="Warn"))), id="drift"),
        pytest.param(report(drift=DriftEvidence(miscalibrated=True)), id="predictions are off"),
    ],
)
def test_what_a_decision_turns_on_is_told_at_once(told: ServingReport) -> None:
    assert turning_points(told, CONFIG) != turning_points(report(), CONFIG)


@pytest.mark.parametrize(
    ("role", "name", "bounds"),
    [("Guardrail", "purchase", (-0.1, 0, 0.1)), ("Bound", "purchase>=0.4", (0,)), ("Kpi", "margin", (-0.02, 0, 0.02))],
)
def test_each_metric_is_held_against_its_own_tolerance_in_either_direction(
    role: str, name: str, bounds: tuple[float, ...]
) -> None:
    ends = [bound + side for bound in bounds for side in (-0.001, 0.001)]
    lowers = {turning_points(report(rollout=rollout(metric(name, role, end, 5))), CONFIG) for end in ends}
    uppers = {turning_points(report(rollout=rollout(metric(name, role, -5, end))), CONFIG) for end in ends}
    assert len(lowers) == len(uppers) == len(bounds) + 1


def test_the_pace_follows_the_window_within_a_second_and_half_a_minute() -> None:
    windows = (timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=2), timedelta(days=1))
    assert [pace(report(), Monitoring(window=window)).total_seconds() for window in windows] == [1, 3, 12, 30]
    shadowed = report(rollout=rollout(shadow=ShadowEvidence(decisions=1)))
    assert [pace(shadowed, Monitoring(window=window)).total_seconds() for window in windows] == [1, 3, 5, 5]


def test_what_moves_with_the_clock_alone_is_no_number() -> None:
    later = report(sequence=9, at=AT + timedelta(seconds=9), watermark=AT)
    assert numbers(later) == numbers(report())
    assert numbers(report(matured=1)) != numbers(report())
