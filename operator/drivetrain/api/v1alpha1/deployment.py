"""Deployment: an endpoint that answers with actions, and the rollout of what it answers with."""

from datetime import datetime
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivetrain.api.meta import ApiModel, Condition, PrinterColumn, Resource, Rule, name_rule
from drivetrain.api.scalars import DNSLabel, Text
from drivetrain.api.v1alpha1.project import KpiStatus
from drivetrain.api.v1alpha1.rollout import ServingTemplate

DEPLOYMENT_NAME_LIMIT = 38


class ModelReference(ApiModel):
    """A pinned model version: serves /v2 only, without canary, exploration or loop."""

    name: str = Field(min_length=1, max_length=128)
    """The project that it is a version of, in the same namespace."""
    version: str = Field(min_length=1, max_length=64)
    """Its version."""


class DeploymentSpec(ServingTemplate):
    """What is served, and how."""

    project: DNSLabel | None = None
    """Rolls out this project's approved versions."""
    model: ModelReference | None = None
    """Serves this version, and nothing else."""

    cel: ClassVar = (
        Rule("has(self.project) != has(self.model)", "a Deployment takes exactly one of project or model"),
    )

    @model_validator(mode="after")
    def _project_or_model(self) -> Self:
        if (self.project is None) == (self.model is None):
            raise ValueError("a Deployment takes exactly one of project or model")
        return self


class Variant(ApiModel):
    """A policy that serves: a model version under an objective, or today's policy."""

    hash: str = Field(max_length=64)
    """Hash of the policy: model digest, objective, levers and constraints."""
    version: str | None = Field(default=None, max_length=64)
    """Model version; absent for today's policy."""
    since: datetime | None = None
    """When it took this role."""


class RejectedVariant(ApiModel):
    """A policy that will not be rolled out again, unless a `retry` names it."""

    hash: str = Field(max_length=64)
    """Its hash."""
    version: str | None = Field(default=None, max_length=64)
    """Its model version."""
    digest: str | None = Field(default=None, max_length=64)
    """SHA-256 of that version's graph."""
    reason: str = Field(max_length=64)
    """Why: Harm, Inconclusive, Aborted, LoadFailed, ShadowFailed."""
    message: Text = ""
    """The evidence in words."""
    at: datetime | None = None
    """When."""


class IntervalStatus(ApiModel):
    """A confidence sequence, valid at every look."""

    metric: str = Field(max_length=80)
    """KPI, guardrail, or metric and side of a Portfolio constraint, such as `purchase minimum`."""
    bound: float | None = None
    """Of a Portfolio constraint: its bound; the interval is then the candidate's own mean."""
    estimate: float
    """Candidate minus stable, in the metric's unit."""
    lower: float
    """Lower end."""
    upper: float
    """Upper end."""
    verdict: Literal["Open", "Harm", "NoHarm", "Better"]
    """What is proved."""


class AnalysisStatus(ApiModel):
    """What the evidence says."""

    outcomes_stable: int = 0
    """Matured outcomes of the stable arm, over the rollout."""
    outcomes_candidate: int = 0
    """Matured outcomes of the candidate arm, over the rollout."""
    intervals: tuple[IntervalStatus, ...] = Field(default=(), max_length=12)
    """KPI first, then guardrails and the bounds of Portfolio constraints."""
    projected_verdict_at: datetime | None = None
    """When the evidence should suffice at today's traffic."""
    message: Text = ""
    """The state in words."""


class DriftStatus(ApiModel):
    """What the detectors say."""

    severity: Literal["None", "Warn", "Severe"] = "None"
    """The worst of the three."""
    covariate: Text = ""
    """Drifted columns, or why none."""
    calibration: Text = ""
    """Mean residual against its offset, overall and by slice."""
    kpi: Text = ""
    """Advantage over the holdout against its reference."""


class DeploymentStatus(ApiModel):
    """How the endpoint stands."""

    observed_generation: int = -1
    """Generation of the spec that this describes."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Ready, Reconciling, Stalled, Progressing, Degraded, Miscalibrated."""
    url: str | None = Field(default=None, max_length=512)
    """Where clients start."""
    replicas: int = 0
    """Ready replicas."""
    selector: str | None = Field(default=None, max_length=512)
    """Labels of the Pods that hold replicas, for a HorizontalPodAutoscaler; absent with `autoscaling`, which leaves
    it nothing to do."""
    stable: Variant | None = None
    """What serves."""
    candidate: Variant | None = None
    """What is rolled out."""
    weight: int = 0
    """Percent of units that the candidate gets."""
    step: int | None = None
    """Index of the rollout step."""
    rejected: tuple[RejectedVariant, ...] = Field(default=(), max_length=10)
    """What was rejected, newest first."""
    analysis: AnalysisStatus | None = None
    """The evidence of the rollout."""
    drift: DriftStatus | None = None
    """The detectors."""
    kpi: KpiStatus | None = None
    """The KPI."""
    why: Text = ""
    """Why it waits or failed, and what to do."""


class Deployment(Resource):
    """An endpoint that answers with actions and their expected value, and rolls out better ones on evidence."""

    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = Field(default_factory=DeploymentStatus)

    plural: ClassVar[str] = "drivetraindeployments"
    short_name: ClassVar[str] = "dtd"
    selectable_fields: ClassVar[tuple[str, ...]] = (".spec.project",)
    cel: ClassVar = (name_rule("a Deployment's name", DEPLOYMENT_NAME_LIMIT),)
    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Project", ".spec.project"),
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Stable", ".status.stable.version"),
        PrinterColumn("Candidate", ".status.candidate.version"),
        PrinterColumn("Weight", ".status.weight", "integer"),
        PrinterColumn("KPI", ".status.kpi.mean"),
        PrinterColumn("Drift", ".status.drift.severity"),
        PrinterColumn("Why", ".status.why", priority=1),
        PrinterColumn("URL", ".status.url", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )
