"""The live view: the loop, the weights, the KPI with its interval, and why the loop does what it does."""

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from drivetrain.api.meta import condition_of
from drivetrain.api.v1alpha1.deployment import Deployment, IntervalStatus
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun

_KEPT_LINES = 12
_UNBOUNDED = 1e6


@dataclass(frozen=True, slots=True)
class Scene:
    """What the API server said at one moment."""

    at: float
    decisions: int
    project: DrivetrainProject | None
    deployment: Deployment | None
    runs: tuple[TrainingRun, ...]

    def lines(self) -> tuple[str, ...]:
        """The loop in a few lines: stage, serving, KPI, the newest run, what comes next."""
        told = []
        if self.project:
            told.append(f"stage      {self.project.status.stage}")
        if self.deployment:
            told += _serving(self.deployment)
        running = [run for run in self.runs if condition_of(run.status.conditions, "Reconciling")]
        for run in running:
            stage = f"{run.status.stage} {run.status.progress.percent} %" if run.status.stage else "its driver starts"
            why = f"; {run.status.why}" if run.status.why else ""
            told.append(f"training   {run.metadata.name} ({run.spec.trigger.cause}): {stage}{why}")
        if self.project and self.project.status.next_decision:
            following = self.project.status.next_decision
            told.append(f"next       {following.what}" + (f": {following.why}" if following.why else ""))
        return tuple(told)


def _serving(deployment: Deployment) -> list[str]:
    status = deployment.status
    version = status.stable.version if status.stable else None
    stable = f"version {version}" if version else "today's prices" if status.stable else "nothing"
    told = [f"serves     {stable}"]
    if status.candidate:
        place = "loading" if status.step is None else f"at {status.weight} % (step {status.step + 1})"
        told.append(f"candidate  version {status.candidate.version} {place}")
    if status.kpi:
        bounds = f" [{status.kpi.lower:.3f}, {status.kpi.upper:.3f}]" if status.kpi.lower is not None else ""
        versus = f", {status.kpi.versus_holdout:+.3f} over holdout" if status.kpi.versus_holdout is not None else ""
        told.append(f"KPI        {status.kpi.mean:.3f}{bounds} {status.kpi.unit}{versus}")
    if status.analysis and min(status.analysis.outcomes_stable, status.analysis.outcomes_candidate):
        told += [f"evidence   {interval_of(each)} {each.verdict}" for each in status.analysis.intervals]
    if status.drift and status.drift.severity != "None":
        told.append(f"drift      {status.drift.severity}: {status.drift.calibration or status.drift.covariate}")
    if status.why:
        told.append(f"why        {status.why}")
    return told


def interval_of(each: IntervalStatus) -> str:
    """Metric, estimate and interval; an end that evidence has not bounded yet is infinite."""
    lower, upper = (
        f"{end:+.3f}" if abs(end) < _UNBOUNDED else f"{end:+.0e}"[0] + "inf" for end in (each.lower, each.upper)
    )
    bound = "" if each.bound is None else f" {each.bound:g}:"
    return f"{each.metric}{bound} {each.estimate:+.3f} [{lower}, {upper}]"


class View:
    """A panel that is redrawn on a terminal; plain lines, each only when it changes, elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._said: list[str] = []
        self._last: tuple[str, ...] = ()
        self._began = time.monotonic()

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """Tells something that stays."""
        stamped = f"{time.monotonic() - self._began:6.1f} s  {line}"
        self._said.append(stamped)
        if self._live is None:
            self._console.print(stamped, markup=False, soft_wrap=True)

    def progress(self, component: str, message: str) -> None:
        """Tells what happens to a component while the environment starts."""
        self.say(f"{component}: {message}")

    def show(self, scene: Scene) -> None:
        """Shows how the loop stands now."""
        lines = scene.lines()
        if self._live:
            self._live.update(self._panel(scene, lines))
            return
        for line in lines:
            if line not in self._last:
                self._console.print(f"{time.monotonic() - self._began:6.1f} s    {line}", markup=False, soft_wrap=True)
        self._last = lines

    def _panel(self, scene: Scene, lines: tuple[str, ...]) -> Panel:
        now = Table.grid(padding=(0, 2))
        for line in lines:
            name, _, told = line.partition(" ")
            now.add_row(Text(name, style="bold"), Text(told.strip()))
        said = Text("\n".join(self._said[-_KEPT_LINES:]), style="dim")
        return Panel(Group(now, Text(""), said), title=f"orange juice: {scene.decisions:,} decisions", expand=True)
