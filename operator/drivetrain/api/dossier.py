"""The dossier of one incarnation of a run's job: what its cluster would have taken with it; bounded, no secrets."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from drivetrain.api.meta import ApiModel
from drivetrain.api.scalars import Text

LOG_LIMIT = 256 * 1024
"""Characters that are kept of the end of a driver's log."""
TRIALS_LIMIT = 10

Ending = Literal["Succeeded", "Failed", "Stopped", "Lost", "Terminated", "NotSubmitted"]
"""Lost: the head answers no more, or knows the job no more. Terminated: the submitter was told to stop (suspension,
eviction, deletion). NotSubmitted: Ray never took the job."""


class JobRecord(ApiModel):
    """What Ray last said of the job; its environment is left out, because it may hold secrets."""

    status: str = Field(default="", max_length=32)
    message: str = Field(default="", max_length=8192)
    error_type: str = Field(default="", max_length=128)
    entrypoint: str = Field(default="", max_length=1024)
    driver_exit_code: int | None = None
    start_time: int = 0
    """Milliseconds since 1970; 0 where there is none."""
    end_time: int = 0
    """Likewise."""


class TriedModel(ApiModel):
    """A finished trial of the attempt."""

    candidate: str
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """On the validation rows."""
    seconds: float = 0


class Dossier(ApiModel):
    """How one submission of a run ended."""

    run: str
    attempt: int
    submission: str
    """Ray's submission id: another one for each incarnation."""
    ended: Ending
    at: datetime
    message: Text = ""
    """Why the submitter gave up, where it did."""
    job: JobRecord | None = None
    trials_done: int = 0
    trials: tuple[TriedModel, ...] = Field(default=(), max_length=TRIALS_LIMIT)
    """The newest finished trials of this attempt."""
    log: str = ""
    """The end of the driver's log."""
    log_cut: bool = False
    """Whether the log's beginning is left out."""
