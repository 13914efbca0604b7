"""What a run costs in GPU-hours at most, and what earlier ones cost. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from drivetrain.api.meta import condition_of
from drivetrain.api.scalars import format_duration
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.asks import Ask
from drivetrain.cli.wording import number


@dataclass(frozen=True, slots=True)
class Cost:
    """The bound and the experience, of one run."""

    gpus: int
    deadline: timedelta
    """It is counted over all attempts and evictions, so nothing multiplies it."""
    earlier: tuple[float, ...] = ()
    """GPU-hours of the project's finished runs that asked for GPUs."""

    @property
    def at_most(self) -> float:
        """GPU-hours that the run cannot exceed."""
        return self.gpus * self.deadline / timedelta(hours=1)

    def lines(self) -> tuple[str, ...]:
        """In words."""
        if not self.gpus:
            return (f"0 GPU-hours: it asks for no GPU; its CPUs are held for at most {format_duration(self.deadline)}",)
        gpus = "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"
        bound = f"at most {number(self.at_most)} GPU-hours: {gpus} times the deadline of"
        told = [f"{bound} {format_duration(self.deadline)}, all attempts together"]
        if self.earlier:
            runs = f"{len(self.earlier)} earlier runs" if len(self.earlier) > 1 else "the one earlier run"
            told.append(f"median of {runs} with GPUs: {number(median(self.earlier))} GPU-hours, which bounds nothing")
        return tuple(told)


def of_run(ask: Ask, deadline: timedelta, earlier: Iterable[TrainingRun]) -> Cost:
    """The cost of one run beside the finished runs of its project; those without GPUs tell nothing about it."""
    finished = [run for run in earlier if run.spec.gpus and is_over(run)]
    return Cost(ask.gpus, deadline, tuple(run.status.gpu_seconds / 3600 for run in finished))


def is_over(run: TrainingRun) -> bool:
    """Whether the run has ended, well or not."""
    ends = (condition_of(run.status.conditions, type_) for type_ in ("Complete", "Failed", "Ready"))
    return any(found is not None and found.status == "True" for found in ends)
