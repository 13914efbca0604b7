"""TrainingRun: one training, from data version to registered model."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from drivetrain.api.meta import ApiModel, Condition, PrinterColumn, Resource, Rule, name_rule
from drivetrain.api.scalars import DNSLabel, Text
from drivetrain.api.v1alpha1.dataset import TrainingWindow
from drivetrain.api.v1alpha1.training import TrainingTemplate

RUN_NAME_LIMIT = 40
EVIDENCE_LIMIT = 16
"""Pieces of evidence that a trigger carries at most."""
EVIDENCE_LENGTH = 256
"""Characters of one at most."""
Cause = Literal[
    "Initial", "SpecChanged", "DataChanged", "Drift", "Calibration", "KpiDrop", "CanaryRejected", "Schedule", "Manual"
]
LOOP_CAUSES: frozenset[str] = frozenset({"Drift", "Calibration", "KpiDrop", "CanaryRejected"})
"""Causes whose version must also pass on the latest matured explored rows."""
MUTABLE_FIELDS: frozenset[str] = frozenset({"suspend", "deadline", "ttlAfterFinished"})
"""What may change after creation; the rest of a run's spec is immutable."""


class Trigger(ApiModel):
    """What started the run."""

    cause: Cause = "Manual"
    """Why."""
    evidence: Mapping[str, Annotated[str, Field(max_length=EVIDENCE_LENGTH)]] = Field(
        default_factory=dict, max_length=EVIDENCE_LIMIT
    )
    """The numbers behind it, as text."""


class TrainingRunSpec(TrainingTemplate):
    """What one run does. Immutable, except `suspend`, `deadline` and `ttlAfterFinished`."""

    project: DNSLabel
    """The project it trains for, in the same namespace."""
    trigger: Trigger = Field(default_factory=Trigger)
    """What started it."""
    data_version: str = Field(default="newest", pattern=r"^(newest|[0-9a-f]{32})$", max_length=32)
    """A DVC version (md5), or `newest`, which is resolved once and written to status before a row is read."""
    window: TrainingWindow | None = None
    """Which rows weigh how much; all alike when absent."""
    suspend: bool = False
    """Stops the run and frees its cluster; false lets it resume as a new, uncounted attempt."""

    cel: ClassVar = (
        Rule(
            "self.project == oldSelf.project && self.candidates == oldSelf.candidates && "
            "self.tuning == oldSelf.tuning && self.ensemble == oldSelf.ensemble && "
            "self.evaluation == oldSelf.evaluation && self.scaling == oldSelf.scaling && "
            "self.cluster == oldSelf.cluster && self.attempts == oldSelf.attempts && "
            "self.trigger == oldSelf.trigger && self.dataVersion == oldSelf.dataVersion && "
            "has(self.queue) == has(oldSelf.queue) && (!has(self.queue) || self.queue == oldSelf.queue) && "
            "has(self.window) == has(oldSelf.window) && (!has(self.window) || self.window == oldSelf.window)",
            "a run's spec is immutable, except suspend, deadline and ttlAfterFinished; create another run instead",
        ),
    )


class Progress(ApiModel):
    """How far the current attempt is."""

    percent: int = Field(default=0, ge=0, le=100)
    """Share of the work done."""
    eta_seconds: int | None = Field(default=None, ge=0)
    """Time left, estimated."""
    trials_done: int = Field(default=0, ge=0)
    """Finished trials, those of earlier attempts included."""


class GateResult(ApiModel):
    """One gate's verdict."""

    name: str = Field(max_length=128)
    """What was judged."""
    verdict: Literal["Passed", "Failed", "NotIdentified"]
    """NotIdentified is shown and not counted."""
    value: float | None = None
    """What was measured."""
    bound: float | None = None
    """What it was held against."""
    message: Text = ""
    """The verdict in words."""


class SliceMetric(ApiModel):
    """The metric on one value of a slice column."""

    slice: str = Field(max_length=128)
    """column=value."""
    metric: str = Field(max_length=32)
    """Which metric."""
    value: float
    """On the test rows."""
    rows: int
    """How many."""


class TrainingRunStatus(ApiModel):
    """How the run stands."""

    observed_generation: int = -1
    """Generation of the spec that this describes."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Ready, Reconciling, Stalled, QuotaReserved, Complete, Failed."""
    attempt: int = 0
    """Current attempt, from 1."""
    incarnation: int = 0
    """Current incarnation of the attempt's cluster, from 1; evictions raise it."""
    ray_job: str | None = Field(default=None, max_length=63)
    """The RayJob of the attempt."""
    data_version: str | None = Field(default=None, max_length=64)
    """The DVC version that the run is pinned to."""
    stage: str | None = Field(default=None, max_length=64)
    """The assembly-line stage that runs."""
    progress: Progress = Field(default_factory=Progress)
    """How far it is."""
    metrics: Mapping[str, float] = Field(default_factory=dict, max_length=64)
    """Metrics of the chosen model on the test rows, and of the dummy baseline (`dummy.*`)."""
    slices: tuple[SliceMetric, ...] = Field(default=(), max_length=10)
    """The worst slices."""
    model_version: str | None = Field(default=None, max_length=64)
    """Version that the run registered."""
    mlflow_run: str | None = Field(default=None, max_length=64)
    """Its MLflow run."""
    gates: tuple[GateResult, ...] = Field(default=(), max_length=32)
    """What was judged."""
    gpu_seconds: float = 0
    """GPU-seconds charged, over all incarnations."""
    waiting_seconds: float = 0
    """Time in which Kueue gave no quota, over all incarnations; in whole minutes while it waits."""
    why: Text = ""
    """Why it waits, or why it failed and what to do."""


class TrainingRun(Resource):
    """One training: a data version, nine stages, gates, and a registered model version."""

    kind: Literal["TrainingRun"] = "TrainingRun"
    spec: TrainingRunSpec
    status: TrainingRunStatus = Field(default_factory=TrainingRunStatus)

    plural: ClassVar[str] = "trainingruns"
    short_name: ClassVar[str] = "dtr"
    selectable_fields: ClassVar[tuple[str, ...]] = (".spec.project",)
    cel: ClassVar = (name_rule("a run's name", RUN_NAME_LIMIT),)
    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Project", ".spec.project"),
        PrinterColumn("Cause", ".spec.trigger.cause"),
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        PrinterColumn("Stage", ".status.stage"),
        PrinterColumn("Progress", ".status.progress.percent", "integer"),
        PrinterColumn("Version", ".status.modelVersion"),
        PrinterColumn("Why", ".status.why", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )
