"""DrivetrainProject: the objective, levers, data, models and loop of one team."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from drivetrain.api.meta import ApiModel, Condition, PrinterColumn, Resource, name_rule
from drivetrain.api.scalars import Text
from drivetrain.api.v1alpha1.dataset import Dataset, SecretReference
from drivetrain.api.v1alpha1.lever import Exploration, Lever, ProjectDecisions
from drivetrain.api.v1alpha1.loop import Loop
from drivetrain.api.v1alpha1.objective import Objective
from drivetrain.api.v1alpha1.rollout import ServingTemplate
from drivetrain.api.v1alpha1.training import TrainingTemplate

PROJECT_NAME_LIMIT = 30


class Tracking(ApiModel):
    """The MLflow server."""

    uri: str = Field(pattern=r"^https?://.+$", max_length=512)
    """Its address."""
    credentials: SecretReference | None = None
    """Secret with keys MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""


class DrivetrainProjectSpec(ApiModel):
    """What a team declares."""

    objective: Objective
    """What it wants."""
    levers: tuple[Lever, ...] = Field(min_length=1, max_length=8)
    """What it can act on."""
    exploration: Exploration = Field(default_factory=Exploration)
    """How the loop keeps learning."""
    decisions: ProjectDecisions = Field(default_factory=ProjectDecisions)
    """Levers of the project itself."""
    data: Dataset
    """What it has, and must collect."""
    tracking: Tracking | None = None
    """MLflow; the operator's when absent."""
    training: TrainingTemplate
    """How models are built."""
    serving: ServingTemplate | None = None
    """How they serve; a Deployment of the project's name is created from it unless another names the project."""
    loop: Loop = Field(default_factory=Loop)
    """When it trains again."""

    def lever(self, name: str) -> Lever | None:
        """The lever of that name, if declared."""
        return next((lever for lever in self.levers if lever.name == name), None)


class NextDecision(ApiModel):
    """What the loop will do next."""

    what: str = Field(max_length=128)
    """The step."""
    not_before: datetime | None = None
    """Earliest time, if it waits for one."""
    why: Text = ""
    """Why it waits, or why it will act."""


class VersionReference(ApiModel):
    """A published model version."""

    version: str = Field(max_length=64)
    """Number in the registry."""
    digest: str = Field(max_length=64)
    """SHA-256 of the published graph."""
    run: str = Field(max_length=63)
    """The TrainingRun that made it."""


class KpiStatus(ApiModel):
    """The KPI over the monitoring window."""

    mean: float
    """Mean per decision, all variants."""
    lower: float | None = None
    """Lower end of its 95 % confidence sequence."""
    upper: float | None = None
    """Upper end."""
    versus_holdout: float | None = None
    """Advantage over today's policy, per decision."""
    decisions: int
    """Matured decisions counted."""
    unit: str = Field(default="", max_length=32)
    """Unit of the KPI."""


class RunSummary(ApiModel):
    """One of the last runs."""

    name: str = Field(max_length=63)
    """Name of the TrainingRun."""
    cause: str = Field(max_length=32)
    """What started it."""
    state: str = Field(max_length=64)
    """How it stands."""
    version: str | None = Field(default=None, max_length=64)
    """Model version that it registered."""


class Effort(ApiModel):
    """Where the project's effort went, as shares or counts that the loop can measure."""

    data_rows: int = 0
    """Rows of the champion's data version."""
    labels: int = 0
    """Matured outcomes collected."""
    training_runs: int = 0
    """Runs started."""
    gpu_hours: float = 0
    """GPU-hours of the runs that were under way within the last seven days."""


class DrivetrainProjectStatus(ApiModel):
    """How the loop stands."""

    observed_generation: int = -1
    """Generation of the spec that this describes."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Ready, Reconciling, Stalled, LeverEffect, Miscalibrated, CircuitOpen."""
    stage: Literal["Build", "Measure", "Learn"] = "Build"
    """Build: no version serves yet. Measure: a rollout gathers evidence. Learn: the champion serves and is watched."""
    champion: VersionReference | None = None
    """The stable version, as the Deployment's ledger has it."""
    approved: VersionReference | None = None
    """The newest version that passed gates and approval."""
    awaiting_approval: VersionReference | None = None
    """A version that passed its gates and waits for a person: `drivetrain approve` names its digest."""
    last_run: str | None = Field(default=None, max_length=63)
    """The newest TrainingRun."""
    next_decision: NextDecision | None = None
    """What comes next."""
    kpi: KpiStatus | None = None
    """The KPI."""
    effort: Effort = Field(default_factory=Effort)
    """Where effort went."""
    runs: tuple[RunSummary, ...] = Field(default=(), max_length=10)
    """The last runs, newest first."""


class DrivetrainProject(Resource):
    """A business objective, the levers that move it, the data about it, and the loop that learns from acting."""

    kind: Literal["DrivetrainProject"] = "DrivetrainProject"
    spec: DrivetrainProjectSpec
    status: DrivetrainProjectStatus = Field(default_factory=DrivetrainProjectStatus)

    plural: ClassVar[str] = "drivetrainprojects"
    short_name: ClassVar[str] = "dtp"
    cel: ClassVar = (name_rule("a project's name", PROJECT_NAME_LIMIT),)
    printer_columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Stage", ".status.stage"),
        PrinterColumn("Champion", ".status.champion.version"),
        PrinterColumn("KPI", ".status.kpi.mean"),
        PrinterColumn("Next", ".status.nextDecision.what"),
        PrinterColumn("Why", ".status.nextDecision.why", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )
