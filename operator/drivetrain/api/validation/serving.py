"""Serving: fallback, rollout, guardrails and resources."""

from collections.abc import Iterator

from drivetrain.api.errors import Problem
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec
from drivetrain.api.v1alpha1.rollout import AnalysisMetric, ServingTemplate
from drivetrain.api.validation.names import check_unique, nearest
from drivetrain.api.validation.objective import check_action

FALLBACK_RATE = "fallbackRate"
"""The guardrail that every endpoint has: the share of decisions that the fallback answered."""


def check_serving(field: str, serving: ServingTemplate, spec: DrivetrainProjectSpec | None) -> Iterator[Problem]:
    """A template or a Deployment's spec below `field`; what needs the project is left out where it is unknown."""
    scaling = serving.autoscaling
    if scaling is not None and scaling.min_replicas > scaling.max_replicas:
        cause = f"minReplicas {scaling.min_replicas} is above maxReplicas {scaling.max_replicas}."
        yield Problem(f"{field}.autoscaling.minReplicas", cause, "Swap them.")
    if serving.cluster.head.gpu:
        cause = "No replica runs on the head, so its GPU would be held for nothing."
        yield Problem(f"{field}.cluster.head.gpu", cause, f"Remove it; replicas ask in {field}.resources.gpu.")
    if spec is not None and spec.decisions.environment.accelerator == "GPU" and not serving.resources.gpu:
        cause = "decisions.environment.accelerator is GPU, and replicas ask for none."
        yield Problem(f"{field}.resources.gpu", cause, "Ask for one or a part of one, or write accelerator None.")
    if spec is not None and spec.decisions.environment.accelerator == "None" and serving.resources.gpu:
        cause = "decisions.environment.accelerator is None, and replicas ask for a GPU."
        yield Problem(f"{field}.resources.gpu", cause, "Remove it, or write accelerator GPU.")
    if serving.fallback.policy == "Fixed" and spec is not None:
        yield from check_action(f"{field}.fallback.action", serving.fallback.action, spec.levers, inside=True)
    yield from _analysis(f"{field}.rollout.analysis", serving, spec)


def _analysis(field: str, serving: ServingTemplate, spec: DrivetrainProjectSpec | None) -> Iterator[Problem]:
    analysis = serving.rollout.analysis
    yield from check_unique(analysis.metrics, f"{field}.metrics")
    for index, metric in enumerate(analysis.metrics):
        place = f"{field}.metrics[{index}]"
        if metric.minimum is not None and metric.maximum is not None and metric.minimum >= metric.maximum:
            yield Problem(f"{place}.minimum", "The minimum is not below the maximum.", "Swap or widen them.")
        if metric.name == FALLBACK_RATE and metric.better == "Higher":
            yield Problem(f"{place}.better", "Fallbacks are what the model could not answer.", "Write Lower.")
        if spec is not None:
            yield from _guardrail(place, metric, spec)
    if spec is not None and analysis.deadline <= spec.objective.kpi.matures_after:
        cause = "The deadline comes before the first outcome matures (kpi.maturesAfter), so no rollout could end well."
        yield Problem(f"{field}.deadline", cause, "Allow several times kpi.maturesAfter.")


def _guardrail(field: str, metric: AnalysisMetric, spec: DrivetrainProjectSpec) -> Iterator[Problem]:
    """Its name, and its range: the confidence sequence of a guardrail needs one."""
    target = spec.data.target
    outcomes = {column.name for column in spec.data.with_role("AfterAction")} | {target.name}
    if metric.name == FALLBACK_RATE or (metric.name == target.name and target.type == "Binary"):
        return
    if metric.name not in outcomes:
        cause = f"{metric.name} is neither the target, nor an AfterAction column, nor {FALLBACK_RATE}."
        yield Problem(f"{field}.name", cause, nearest(metric.name, outcomes | {FALLBACK_RATE}))
        return
    column = spec.data.column(metric.name)
    if (metric.name == target.name and target.type == "Multiclass") or (column and column.type == "String"):
        yield Problem(f"{field}.name", f"{metric.name} is text and has no mean.", "Import the share as a column.")
        return
    if column is not None and column.type == "Boolean":
        return
    declared = target if metric.name == target.name else column
    for name, bound, fallback in (
        ("minimum", metric.minimum, declared.minimum if declared else None),
        ("maximum", metric.maximum, declared.maximum if declared else None),
    ):
        if bound is None and fallback is None:
            cause = f"The {name} of {metric.name} is not known, and a guardrail's evidence needs its range."
            yield Problem(f"{field}.{name}", cause, f"Declare {name} here.")
