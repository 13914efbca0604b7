"""When the loop trains again, and what holds it back."""

from datetime import timedelta
from typing import Literal

from pydantic import Field

from drivetrain.api.meta import ApiModel
from drivetrain.api.scalars import Duration

Severity = Literal["Never", "Warn", "Severe"]


class Retrain(ApiModel):
    """What starts a retraining by itself."""

    drift: Severity = "Severe"
    """Covariate drift of at least this severity."""
    calibration: Severity = "Severe"
    """Calibration drift of at least this severity."""
    kpi: Severity = "Severe"
    """A KPI drop against the holdout of at least this severity."""
    rejected: bool = True
    """A rejected candidate that the loop itself had trained."""
    schedule: Duration | None = None
    """Longest age of the champion's training; none when absent."""
    new_data: bool = False
    """New files under the sources' prefixes."""
    stale_weight: float = Field(default=0, ge=0, le=1)
    """After drift: weight of rows from before the change, against 1 for rows since."""


class Loop(ApiModel):
    """The governor of retraining."""

    retrain: Retrain = Field(default_factory=Retrain)
    """What starts one."""
    cooldown: Duration = timedelta(hours=6)
    """Least time between two retrainings that the loop starts."""
    gpu_hours_per_week: float = Field(default=40, ge=0)
    """Budget of the project's runs: each counts whole until seven days after its end."""
    stop_after_rejected: int = Field(default=3, ge=1, le=100)
    """Rejected candidates in a row after which the loop waits for a person."""
    min_explored_outcomes: int = Field(default=500, ge=0)
    """Matured explored outcomes that a retraining needs; after drift, since the change began."""
    approval: Literal["Automatic", "Manual"] = "Automatic"
    """Whether a version that passed its gates enters a rollout by itself."""
