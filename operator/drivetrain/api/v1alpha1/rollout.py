"""How models serve: replicas, rollout steps, analysis, monitoring and access."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivetrain.api.meta import ApiModel, Rule
from drivetrain.api.scalars import Choice, DecimalText, DNSLabel, Duration, Identifier
from drivetrain.api.v1alpha1.training import Cluster, Queue, ReplicaResources


class Fallback(ApiModel):
    """What answers when the model must not: out-of-domain input, no feasible action, a value that is not finite."""

    policy: Literal["Baseline", "Fixed", "Refuse"] = "Baseline"
    """Today's policy, a fixed action, or an error for that row."""
    action: Mapping[Identifier, DecimalText | Choice] = Field(default_factory=dict, max_length=8)
    """Fixed: lever to value."""

    cel: ClassVar = (
        Rule(
            "(self.policy == 'Fixed') == (has(self.action) && self.action.size() > 0)",
            "a Fixed fallback takes an action; others take none",
            ".action",
        ),
    )

    @model_validator(mode="after")
    def _action_fits_policy(self) -> Self:
        if (self.policy == "Fixed") != bool(self.action):
            raise ValueError("a Fixed fallback takes an action; others take none")
        return self


class RolloutStep(ApiModel):
    """A share of traffic that the candidate gets, until the evidence allows the next."""

    weight: int = Field(ge=1, le=99)
    """Percent of units outside the holdout. Promotion is the step to 100."""


class Shadow(ApiModel):
    """The candidate decides every row beside the stable version and serves none, until it is seen to work here.

    It is rejected, reason ShadowFailed, if its model raises an error or finds no finite value even once, or if after
    `minDecisions` its fallback answers too often or a decision takes longer than
    `decisions.environment.latencyMs` of the project on average. Replicas ask both versions for every row during all of
    a rollout, so this costs no more than a step does."""

    min_decisions: int = Field(default=500, ge=1, le=10_000_000)
    """Decisions that it must have made beside the stable version before its first step."""
    fallback_tolerance: float = Field(default=0.05, ge=0, le=1)
    """How much larger than the stable version's the share of decisions may be that its fallback answers."""


class AnalysisMetric(ApiModel):
    """A guardrail: a candidate that is proved worse by more than the tolerance is rejected."""

    name: Identifier
    """The target's name, another AfterAction outcome, or fallbackRate."""
    better: Literal["Higher", "Lower"]
    """Its good direction."""
    tolerance: float = Field(default=0, ge=0)
    """How much worse is acceptable, in the metric's unit."""
    minimum: float | None = None
    """Least value possible; 0 for rates."""
    maximum: float | None = None
    """Greatest value possible; 1 for rates."""


class Analysis(ApiModel):
    """What the evidence must show."""

    goal: Literal["Superior", "NonInferior"] = "Superior"
    """Promotion needs the KPI proved better, or proved not worse by more than its tolerance."""
    tolerance: float = Field(default=0, ge=0)
    """NonInferior: how much KPI per decision may be lost."""
    alpha: float = Field(default=0.05, gt=0, le=0.2)
    """Chance of a wrong verdict over the whole rollout, however often one looks; split over KPI and guardrails."""
    metrics: tuple[AnalysisMetric, ...] = Field(default=(), max_length=8)
    """Guardrails beside the KPI."""
    min_outcomes: int = Field(default=300, ge=10, le=10_000_000)
    """Matured outcomes per arm, counted over the rollout, before a step may advance."""
    deadline: Duration = timedelta(days=14)
    """Longest time for the rollout."""
    on_inconclusive: Literal["Hold", "Abort"] = "Abort"
    """What happens at the deadline without a verdict."""

    cel: ClassVar = (
        Rule(
            "self.goal == 'NonInferior' || !has(self.tolerance) || self.tolerance == 0.0",
            "goal Superior takes no KPI tolerance",
            ".tolerance",
        ),
    )

    @model_validator(mode="after")
    def _tolerance_fits_goal(self) -> Self:
        if self.goal == "Superior" and self.tolerance != 0:
            raise ValueError("goal Superior takes no KPI tolerance")
        return self


class Rollout(ApiModel):
    """How a candidate replaces the stable version."""

    steps: tuple[RolloutStep, ...] = Field(
        default=(RolloutStep(weight=10), RolloutStep(weight=25), RolloutStep(weight=50)), min_length=1, max_length=16
    )
    """Rising weights between 1 and 99."""
    holdout: float = Field(default=0.01, ge=0, le=0.2)
    """Share of units that keeps today's policy for good, as the measure of what the loop is worth."""
    shadow: Shadow | None = None
    """Before the first step: the candidate serves nothing until it is seen to work."""
    analysis: Analysis = Field(default_factory=Analysis)
    """What the evidence must show."""

    cel: ClassVar = (
        Rule(
            "!has(self.steps) || self.steps.size() < 2 || "
            "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14].all(i, i + 1 >= self.steps.size() || "
            "self.steps[i].weight < self.steps[i + 1].weight)",
            "weights must rise from step to step",
            ".steps",
        ),
    )

    @model_validator(mode="after")
    def _weights_rise(self) -> Self:
        weights = [step.weight for step in self.steps]
        if any(later <= earlier for earlier, later in pairwise(weights)):
            raise ValueError("weights must rise from step to step")
        return self


class CovariateDrift(ApiModel):
    """Drift of Context columns against the champion's training contexts."""

    minimum_distance: float = Field(default=0.1, gt=0)
    """Bias-corrected population stability index from which a change matters."""
    false_alarms_per_year: float = Field(default=1, gt=0)
    """How often it may be wrong."""


class CalibrationDrift(ApiModel):
    """Drift of realised minus predicted outcomes: a change in how the world responds."""

    tolerance: float = Field(default=0.05, gt=0)
    """Mean residual, beyond the offset measured after promotion, that is still no drift; in the target's unit."""
    false_alarms_per_year: float = Field(default=1, gt=0)
    """How often it may be wrong."""


class KpiDrop(ApiModel):
    """A fall of the KPI against the concurrent holdout."""

    tolerance: float = Field(default=0.05, gt=0)
    """Fall of the advantage over the holdout that is still no drop, in the KPI's unit."""
    false_alarms_per_year: float = Field(default=1, gt=0)
    """How often it may be wrong."""


class Drift(ApiModel):
    """The three detectors."""

    covariate: CovariateDrift = Field(default_factory=CovariateDrift)
    """Who comes."""
    calibration: CalibrationDrift = Field(default_factory=CalibrationDrift)
    """How they respond."""
    kpi: KpiDrop = Field(default_factory=KpiDrop)
    """What it is worth."""


class Monitoring(ApiModel):
    """What is watched."""

    window: Duration = timedelta(days=1)
    """Span of the KPI and rates that status shows."""
    decisions_per_day: int = Field(default=100_000, ge=1)
    """Expected traffic: turns false alarms per year into an average run length."""
    drift: Drift = Field(default_factory=Drift)
    """The detectors."""
    out_of_domain: float = Field(default=0.2, ge=0)
    """How far beyond the training range a number may lie, as a share of that range, before the fallback answers."""


class Auth(ApiModel):
    """Who may call the endpoint."""

    secret_name: DNSLabel
    """Secret with keys `decide` and `outcomes`: the bearer keys to ask for decisions and to report outcomes."""


class Autoscaling(ApiModel):
    """Bounds between which Serve moves replicas, within a cluster of fixed size."""

    min_replicas: int = Field(default=1, ge=1, le=256)
    """Fewest replicas."""
    max_replicas: int = Field(default=4, ge=1, le=256)
    """Most replicas."""
    target_ongoing_requests: float = Field(default=4, gt=0)
    """Requests in flight per replica that it aims for."""


class ServingTemplate(ApiModel):
    """A Deployment's spec without what it serves."""

    replicas: int = Field(default=1, ge=1, le=256)
    """Endpoint replicas. `kubectl scale` and a HorizontalPodAutoscaler set it too: leave it out of a manifest that
    something applies again and again, or the two take turns. A project that says 1 leaves it to them as well."""
    autoscaling: Autoscaling | None = None
    """Moves the number of replicas; replaces `replicas`, and with it whatever `kubectl scale` asks for."""
    resources: ReplicaResources = Field(default_factory=ReplicaResources)
    """What each replica asks for."""
    cluster: Cluster = Field(default_factory=Cluster)
    """The Ray cluster."""
    queue: Queue | None = None
    """The queue that admits the cluster, where Kueue supports it."""
    fallback: Fallback = Field(default_factory=Fallback)
    """What answers when the model must not."""
    rollout: Rollout = Field(default_factory=Rollout)
    """How a candidate replaces the stable version."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """What is watched."""
    auth: Auth
    """Who may call."""
