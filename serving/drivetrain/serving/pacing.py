"""When a report is due: at once where something changed that is decided on, else at the endpoint's own pace.

Each report costs the operator two looks and, where status shows a number of it, two writes. Decisions wait for none of
that: what they turn on is in `turning_points`. What is not, such as the tolerance that earlier promotions have used up,
waits for the next report.
"""

from collections.abc import Hashable
from datetime import timedelta
from typing import Final

from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import MetricEvidence, RolloutEvidence, ServingReport
from drivetrain.api.v1alpha1.rollout import Analysis, Monitoring

SHORTEST: Final = timedelta(seconds=1)
SHADOWED: Final = timedelta(seconds=5)
LONGEST: Final = timedelta(seconds=30)
"""How long nothing is reported although nothing changed: whoever lost the last report gets another."""


def pace(report: ServingReport, monitoring: Monitoring) -> timedelta:
    """How long numbers may wait: a tenth of the window that status shows them over, 1 to 30 s; at most 5 s beside a
    candidate without weight, since how many decisions it must make is not told to the Monitor."""
    longest = LONGEST if report.rollout is None or report.rollout.shadow is None else SHADOWED
    return min(max(monitoring.window / 10, SHORTEST), longest)


def turning_points(report: ServingReport, config: EndpointConfig) -> Hashable:
    """Everything of a report that the operator decides on or tells as a condition, and no other number."""
    drift, trouble = report.drift, report.trouble
    return (
        *(report.replicas, report.weight, report.stable, report.loads, report.data_fingerprint),
        trouble and trouble.reason,
        drift and (drift.covariate.severity, drift.calibration.severity, drift.kpi.severity, drift.miscalibrated),
        report.kpi is not None,
        report.rollout and _of_rollout(report.rollout, config.analysis),
    )


def numbers(report: ServingReport) -> ServingReport:
    """The report without what moves with the clock alone."""
    start = report.at.min.replace(tzinfo=report.at.tzinfo)
    return report.model_copy(update={"sequence": 0, "at": start, "watermark": None})


def _of_rollout(seen: RolloutEvidence, analysis: Analysis) -> Hashable:
    shadow = seen.shadow
    return (
        *(seen.rollout, seen.stable, seen.candidate, seen.weight, seen.halted),
        min(seen.outcomes_stable, seen.outcomes_candidate) >= analysis.min_outcomes,
        tuple(_side(each, analysis) for each in seen.metrics),
        shadow and (shadow.decisions > 0, shadow.failed > 0, shadow.not_finite > 0),
    )


def _side(each: MetricEvidence, analysis: Analysis) -> Hashable:
    """On which side of the bounds of its verdict each end of an interval lies, whichever direction is good."""
    if each.role == "Shown":
        return each.metric, each.role
    tolerance = next((metric.tolerance for metric in analysis.metrics if metric.name == each.metric), 0.0)
    if each.role != "Guardrail":
        tolerance = analysis.tolerance if each.role == "Kpi" else 0.0
    bounds = (-tolerance, 0.0, tolerance)
    ends = (sum(end > bound for bound in bounds) for end in (each.lower, each.upper))
    return each.metric, each.role, *ends
