"""Reports: what a run's driver and an endpoint's Monitor write for the operator. Untrusted, size-bounded, typed."""

from collections.abc import Mapping
from typing import Literal

from pydantic import AwareDatetime, Field

from drivetrain.api.meta import ApiModel
from drivetrain.api.scalars import Text
from drivetrain.api.v1alpha1.trainingrun import GateResult, Progress, SliceMetric

REPORT_LIMIT = 64 * 1024
"""Bytes of one report at most."""


class RunResult(ApiModel):
    """How an attempt ended."""

    state: Literal["Approved", "Refused", "Failed", "Prepared"]
    """Approved: registered and all gates passed. Refused: registered, but a gate failed. Failed: no version. Prepared:
    the data stages are done, and the training may ask for its GPUs."""
    version: str | None = Field(default=None, max_length=64)
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    uri: str | None = Field(default=None, max_length=1024)
    """Where the model lies: below the project's store."""
    project_uid: str = Field(default="", max_length=64)
    reason: str = Field(default="", max_length=64)
    """Failed: a CamelCase reason, such as SourceNotFound."""
    message: Text = ""
    permanent: bool = False
    """Failed: whether another attempt would fail alike (a user's mistake)."""
    lever_effect: Literal["Experimental", "Observational"] | None = None


class TrainingReport(ApiModel):
    """A run's driver talks back; `sequence` rises with each write, `at` is its heartbeat."""

    attempt: int
    incarnation: int = 1
    sequence: int
    at: AwareDatetime
    stage: str = Field(default="", max_length=64)
    progress: Progress = Field(default_factory=Progress)
    data_version: str | None = Field(default=None, max_length=64)
    data_rows: int = 0
    mlflow_run: str | None = Field(default=None, max_length=64)
    metrics: Mapping[str, float] = Field(default_factory=dict, max_length=64)
    slices: tuple[SliceMetric, ...] = Field(default=(), max_length=10)
    gates: tuple[GateResult, ...] = Field(default=(), max_length=32)
    result: RunResult | None = None


RUNS_ON_CPU = "RunsOnCPU"
"""Reason of a loaded policy whose model is evaluated on the CPU of a replica that holds a GPU."""


class PolicyLoad(ApiModel):
    """Whether all replicas hold a policy ready."""

    hash: str = Field(max_length=64)
    state: Literal["Loading", "Loaded", "Failed"]
    replicas: int = 0
    """Replicas that hold it."""
    reason: str = Field(default="", max_length=64)
    """Failed: ModelNotFound, ModelInvalid, ...; Loaded: RunsOnCPU, or nothing."""
    message: Text = ""


class MetricEvidence(ApiModel):
    """A confidence sequence per unit, valid at every look: candidate minus stable, or, of a Bound, minus that bound."""

    metric: str = Field(max_length=80)
    role: Literal["Kpi", "Guardrail", "Bound", "Shown"]
    """Bound: of a Portfolio constraint, named as PortfolioBound.name. Shown: no verdict follows from it."""
    estimate: float
    lower: float
    upper: float


class ShadowEvidence(ApiModel):
    """What a candidate without traffic did beside the stable version, over the replicas that run now."""

    decisions: int
    """Rows that it decided and that the stable version or the holdout answered."""
    failed: int = 0
    """Of these: its model raised an error."""
    not_finite: int = 0
    """Of these: no action had a finite value."""
    fallbacks: int = 0
    """Of these: its fallback would have answered."""
    fallbacks_stable: int = 0
    """Of the same decisions: the stable version's fallback answered."""
    milliseconds: float = 0
    """Mean time that it took for one."""
    message: Text = ""
    """The error that its model raised."""


class RolloutEvidence(ApiModel):
    """What the open rollout has shown so far."""

    rollout: str = Field(max_length=64)
    stable: str = Field(max_length=64)
    candidate: str = Field(max_length=64)
    weight: int
    """Weight that all replicas apply now; 0 while they differ."""
    outcomes_stable: int
    outcomes_candidate: int
    metrics: tuple[MetricEvidence, ...] = Field(default=(), max_length=12)
    """KPI first."""
    halted: str = Field(default="", max_length=64)
    """KpiOutOfBounds, SampleRatioMismatch, OutcomesMissing, or empty."""
    message: Text = ""
    projected_verdict_at: AwareDatetime | None = None
    losing_slices: tuple[str, ...] = Field(default=(), max_length=10)
    shadow: ShadowEvidence | None = None
    """While the candidate has no weight."""


class DetectorEvidence(ApiModel):
    """One drift detector."""

    severity: Literal["None", "Warn", "Severe"] = "None"
    message: Text = ""
    changed_at: AwareDatetime | None = None
    """When the change began, estimated."""
    evidence: Mapping[str, str] = Field(default_factory=dict, max_length=16)
    """The numbers behind it."""


class DriftEvidence(ApiModel):
    """The three detectors, since the stable policy's promotion."""

    covariate: DetectorEvidence = Field(default_factory=DetectorEvidence)
    calibration: DetectorEvidence = Field(default_factory=DetectorEvidence)
    kpi: DetectorEvidence = Field(default_factory=DetectorEvidence)
    miscalibrated: bool = False
    """The offset measured after promotion lies beyond the tolerance."""


class KpiEvidence(ApiModel):
    """The realised KPI over the monitoring window, per decision."""

    mean: float
    lower: float | None = None
    upper: float | None = None
    versus_holdout: float | None = None
    promised: float | None = None
    """Mean expected value of the same decisions."""
    decisions: int


MONITOR_FAILED = "MonitorFailed"
"""Reason of a trouble that nobody foresaw: the message is the error, the endpoint's log has its traceback."""


class Trouble(ApiModel):
    """What keeps a Monitor from its work."""

    reason: str = Field(max_length=64)
    """Such as StoreUnavailable."""
    message: Text


class ServingReport(ApiModel):
    """An endpoint's Monitor talks back."""

    sequence: int
    at: AwareDatetime
    replicas: int
    """Replicas that answered."""
    weight: int | None = None
    """Weight that every replica applies; absent while they differ."""
    stable: str | None = Field(default=None, max_length=64)
    """Policy that every replica holds as stable; absent while they differ."""
    loads: tuple[PolicyLoad, ...] = Field(default=(), max_length=8)
    rollout: RolloutEvidence | None = None
    drift: DriftEvidence | None = None
    kpi: KpiEvidence | None = None
    watermark: AwareDatetime | None = None
    """Decisions up to here are matured and counted."""
    matured: int = 0
    """Matured decisions in the whole log."""
    explored: int = 0
    """Matured explored decisions in the whole log."""
    explored_since_change: int = 0
    """Matured explored decisions since the newest `changed_at`."""
    data_fingerprint: str | None = Field(default=None, max_length=64)
    """`<watched sources>-<their files>`; the second part changes when files under the sources' prefixes change."""
    adjusted: Mapping[str, str] = Field(default_factory=dict, max_length=16)
    """What the Monitor lowered or nudged: exploration share and steps, multipliers; in words."""
    trouble: Trouble | None = None
    """Why nothing could be counted for a while: what is reported of the log is as it was before."""


def same_sources(one: str | None, other: str | None) -> bool:
    """Whether two data fingerprints are of the same watched sources, so that a difference means other files."""
    return one is not None and other is not None and one.rpartition("-")[0] == other.rpartition("-")[0]
