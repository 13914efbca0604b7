"""Ledgers: decisions that cannot be observed again. One writer each; wiping status loses nothing that is here."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from drivetrain.api.meta import ApiModel
from drivetrain.api.policy import Policy
from drivetrain.api.scalars import Text
from drivetrain.api.v1alpha1.dataset import TrainingWindow
from drivetrain.api.v1alpha1.deployment import RejectedVariant
from drivetrain.api.v1alpha1.project import VersionReference


class StartedRun(ApiModel):
    """A run that the loop started, and what became of its version."""

    name: str
    cause: str
    at: datetime
    gpu_seconds: float = 0
    """As its status tells them while it is there: a run that is deleted was charged already."""
    finished: str = ""
    """Reason of its end; empty while it runs."""
    ended_at: datetime | None = None
    verdict: Literal["", "Promoted", "Rejected", "Refused", "Superseded"] = ""
    seen: bool = False
    """Whether the run was ever observed: one that was and is gone was deleted, and is not created again."""
    lever_effect: Literal["Experimental", "Observational"] | None = None
    version: str | None = None
    """Model version that it registered."""
    digest: str | None = None
    """Of that version's graph; absent in ledgers of earlier operators."""
    evidence: Mapping[str, str] = Field(default_factory=dict, max_length=16)
    """What its trigger carries; forgotten once the run was seen."""
    window: TrainingWindow | None = None


class ProjectLedger(ApiModel):
    """The governor's memory."""

    generation: int = 0
    """Newest generation of the project that was acted on: a late read of an older one is not."""
    runs_started: int = 0
    """Numbers the runs; never falls."""
    runs: tuple[StartedRun, ...] = Field(default=(), max_length=50)
    """Newest first."""
    approved: VersionReference | None = None
    """What the Deployment rolls out."""
    awaiting_approval: VersionReference | None = None
    """Passed its gates; a person has yet to approve it."""
    training_hash: str | None = None
    """Hash of the spec that the last Initial or SpecChanged run trained on."""
    data_fingerprint: str | None = None
    """Of the sources, at the last run."""
    rejected_in_a_row: int = 0
    last_loop_run_at: datetime | None = None
    """Start of the last retraining that the loop began: the cooldown counts from it."""
    answered: Mapping[str, str] = Field(default_factory=dict, max_length=16)
    """Annotation to the value that was last acted on."""
    counted_rejections: tuple[str, ...] = Field(default=(), max_length=20)
    """Policy hashes whose rejection the breaker has counted."""
    answered_change: datetime | None = None
    """`changed_at` of the drift that the last drift run answered."""


class RecordedRuntime(ApiModel):
    """The operator's default image and what is in it, as recorded when first rendered.

    Another operator goes on rendering it, so that an upgrade of the operator restarts nothing.
    """

    image: str
    ray_version: str
    python_version: str = ""
    """As far as it matters: 3.11; empty: whatever it is."""
    version: str = ""
    """Drivetrain's own, as far as it matters: 0.1."""


class RunLedger(ApiModel):
    """A run's attempts."""

    attempt: int = 0
    uncounted: int = 0
    """Attempts that suspension or a person caused: they do not use up `attempts`."""
    incarnation: int = 0
    """Of the current attempt."""
    cluster: str | None = None
    """RAY_CLUSTER_NAME of the current incarnation."""
    former_clusters: tuple[str, ...] = Field(default=(), max_length=20)
    """Clusters of earlier incarnations, newest first: a late read must not bring one back."""
    part: Literal["", "p", "t"] = ""
    """Of an attempt that asks for GPUs: p prepares the data without them, t trains; t without a start: p is done."""
    attempt_started_at: datetime | None = None
    next_attempt_at: datetime | None = None
    """Not before then: what the last attempt could not reach gets time to come back."""
    active_seconds: float = 0
    """Time that earlier incarnations held quota; the deadline counts it."""
    active_since: datetime | None = None
    """Since when the current incarnation holds quota."""
    waited_seconds: float = 0
    """Time in which the run was ready to go and Kueue gave it no quota."""
    waiting_since: datetime | None = None
    gpu_seconds: float = 0
    data_version: str | None = None
    cancelled: bool = False
    answered: Mapping[str, str] = Field(default_factory=dict, max_length=16)
    failures: tuple[Text, ...] = Field(default=(), max_length=10)
    """Why earlier attempts failed."""
    killed: Text = ""
    """What the first Pod of the last attempt that was killed died of: it may be gone when the attempt fails of it."""
    runtime: RecordedRuntime | None = None
    """What all attempts run in where the spec names no image."""
    finished_at: datetime | None = None
    finished: Literal["", "Approved", "Refused", "Failed"] = ""
    reason: str = ""
    message: Text = ""
    version: VersionReference | None = None
    """What it registered, checked against the store and the project."""
    lever_effect: Literal["Experimental", "Observational"] | None = None


class StableVariant(ApiModel):
    """What serves."""

    hash: str
    since: datetime | None = None
    proved_superior: bool = True
    loss_accepted: float = 0
    """KPI per decision accepted by non-inferiority since the last version proved superior."""


class CandidateVariant(ApiModel):
    """What is rolled out."""

    hash: str
    rollout: str
    """Names the rollout."""
    since: datetime
    phase: Literal["Loading", "Shadow", "Weighted"] = "Loading"
    step: int = 0
    step_entered_at: datetime | None = None
    manual: bool = False
    """Trained by hand: its rejection starts no retraining."""


class PinnedVersion(ApiModel):
    """What `spec.model` names."""

    project: str
    version: VersionReference


class DeploymentLedger(ApiModel):
    """The rollout's memory."""

    stable: StableVariant | None = None
    candidate: CandidateVariant | None = None
    baseline: str | None = None
    """Hash of today's policy."""
    pinned: PinnedVersion | None = None
    """What `spec.model` was found to name: that it stays, also once its run is gone or the number is used again."""
    policies: Mapping[str, Policy] = Field(default_factory=dict, max_length=8)
    """Policies that are stable, candidate or baseline, whole: the project's spec may have moved on."""
    rejected: tuple[RejectedVariant, ...] = Field(default=(), max_length=50)
    """Newest first."""
    rollouts_started: int = 0
    answered: Mapping[str, str] = Field(default_factory=dict, max_length=16)
    """Annotation to the value that was last acted on."""
    revision: str | None = None
    """Cluster revision that the Service selects."""
    pending_revision: str | None = None
    pending_since: datetime | None = None
    failed_revision: str | None = None
    """Cluster revision that did not become ready in time; it is not tried again before the spec changes."""
    switched_at: datetime | None = None
    """When the Service was last moved to another revision: the old cluster goes a little later."""
    runtime: RecordedRuntime | None = None
    """What the endpoint runs in where the spec names no image; another one with another spec, or on request."""
    rendered_generation: int = 0
    """Newest generation that was acted on: a late read of an older one is not."""
    rendered_spec: str | None = None
    """Hash of the spec of that generation, without how many replicas it asks for; absent in older ledgers."""
