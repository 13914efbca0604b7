"""`drivetrain status`: the loop of a project as a tree. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text
from rich.tree import Tree

from drivetrain.api.meta import Condition
from drivetrain.api.v1alpha1.deployment import Deployment, IntervalStatus, Variant
from drivetrain.api.v1alpha1.project import DrivetrainProject, KpiStatus, RunSummary
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.loops import Loop
from drivetrain.cli.wording import STYLES, Standing, Tone, ago, number, signed, standing, until

RUNS_SHOWN = 5
_SPOKEN = ("Ready", "Reconciling", "Stalled", "Progressing", "Complete", "Failed", "QuotaReserved")
"""Conditions that the tree tells in other words, or that say nothing where all is well."""
_VERDICTS: Mapping[str, Tone] = {"Promoted": "good", "Rejected": "bad", "Refused": "bad", "Superseded": "quiet"}
"""What became of a run's version."""


def loop_tree(loop: Loop, now: datetime, *, namespaced: bool = False) -> Tree:
    """A project, what it decides next, its runs and what serves; `namespaced` names the namespace too."""
    name = f"{loop.namespace}/{loop.name}" if namespaced else loop.name
    project = loop.project
    if project is None:
        tree = Tree(_line("DrivetrainProject", name, "does not exist", style=STYLES["bad"]))
    else:
        stands = state_of(project)
        tree = Tree(_headed("DrivetrainProject", name, stands, project.status.stage))
        for line in _project_lines(project, stands, now):
            tree.add(line)
    summaries = {each.name: each for each in project.status.runs} if project else {}
    for run in loop.runs[:RUNS_SHOWN]:
        _add_run(tree, run, summaries.get(run.metadata.name), now)
    if len(loop.runs) > RUNS_SHOWN:
        older = len(loop.runs) - RUNS_SHOWN
        tree.add(_quiet(f"{older} older runs: drivetrain runs {loop.name}"))
    for deployment in loop.deployments:
        _add_deployment(tree, deployment, now)
    return tree


def state_of(resource: DrivetrainProject | TrainingRun | Deployment) -> Standing:
    """How one of our objects stands."""
    metadata, status = resource.metadata, resource.status
    return standing(
        status.conditions,
        deleting=metadata.deletion_timestamp is not None,
        behind=status.observed_generation < metadata.generation,
    )


def _project_lines(project: DrivetrainProject, stands: Standing, now: datetime) -> Iterator[RenderableType]:
    status = project.status
    if stands.message and stands.tone != "good":
        yield _labelled("why", stands.message)
    if status.kpi is not None:
        yield _labelled("kpi", kpi_line(project.spec.objective.kpi.name, status.kpi))
    if status.champion is not None:
        yield _labelled("champion", f"version {status.champion.version}, made by {status.champion.run}")
    if status.awaiting_approval is not None:
        waiting = status.awaiting_approval
        asked = f"version {waiting.version} of {waiting.run}: drivetrain approve {project.metadata.name}"
        yield _labelled("awaits approval", asked, style=STYLES["busy"])
    if (next_ := status.next_decision) is not None:
        when = f", not before {until(next_.not_before, now)}" if next_.not_before and next_.not_before > now else ""
        yield _labelled("next", f"{next_.what}{when}. {next_.why}".strip())
    yield from _conditions(status.conditions)
    if status.effort.gpu_hours:
        asked = f"{number(status.effort.gpu_hours)} of {project.spec.loop.gpu_hours_per_week:g} GPU-hours this week"
        yield _labelled("effort", f"{asked}, {status.effort.training_runs} runs")


def kpi_line(name: str, kpi: KpiStatus) -> str:
    """The KPI with its interval, and what it is worth against today's policy."""
    unit = f" {kpi.unit}" if kpi.unit else ""
    told = f"{name} {number(kpi.mean)}{unit} per decision"
    if kpi.lower is not None and kpi.upper is not None:
        told += f" [{number(kpi.lower)}, {number(kpi.upper)}]"
    if kpi.versus_holdout is not None:
        told += f", {signed(kpi.versus_holdout)} over today's policy"
    return f"{told}, {kpi.decisions:,} matured decisions"


def run_state(run: TrainingRun, summary: RunSummary | None = None) -> Standing:
    """A run in one word: what became of its version, or how far it is."""
    stands = state_of(run)
    if summary is not None and summary.state in _VERDICTS:
        return Standing(summary.state, _VERDICTS[summary.state], "", stands.message)
    if stands.word == "Ready":
        return Standing("Approved", "good", "", stands.message)
    return Standing(stands.reason, stands.tone, "", stands.message) if stands.reason else stands


def _add_run(tree: Tree, run: TrainingRun, summary: RunSummary | None, now: datetime) -> None:
    status, stands = run.status, run_state(run, summary)
    parts: list[str] = [run.spec.trigger.cause]
    if stands.tone == "busy" and status.stage:
        parts.append(f"{status.stage} {status.progress.percent} %")
        if status.progress.eta_seconds:
            parts.append(f"about {status.progress.eta_seconds} s left")
    if status.model_version:
        parts.append(f"version {status.model_version}")
    if status.attempt > 1 and stands.tone != "good":
        parts.append(f"attempt {status.attempt} of {run.spec.attempts}")
    parts.append(f"{ago(run.metadata.creation_timestamp, now)} old")
    node = tree.add(_headed("TrainingRun", run.metadata.name, stands, ", ".join(parts)))
    if (why := status.why or (stands.message if stands.tone == "bad" else "")) and stands.tone != "good":
        node.add(_labelled("why", why))
    for gate in status.gates:
        if gate.verdict == "Failed" and stands.tone == "bad":
            node.add(_labelled("gate", f"{gate.name}: {gate.message or gate.value}", style=STYLES["bad"]))


def _add_deployment(tree: Tree, deployment: Deployment, now: datetime) -> None:
    status, stands = deployment.status, state_of(deployment)
    replicas = f"{status.replicas} replicas" if status.replicas != 1 else "1 replica"
    node = tree.add(_headed("Deployment", deployment.metadata.name, stands, replicas))
    if stands.message and stands.tone != "good":
        node.add(_labelled("why", status.why or stands.message))
    if status.url:
        node.add(_labelled("url", status.url))
    if status.stable is not None:
        node.add(_labelled("stable", _variant(status.stable, now)))
    if status.candidate is not None:
        step = f", step {status.step + 1} of {len(deployment.spec.rollout.steps)}" if status.step is not None else ""
        told = f"{_variant(status.candidate, now)}, {status.weight} %{step}"
        candidate = node.add(_labelled("candidate", told, style=STYLES["busy"]))
        for line in _analysis(deployment, now):
            candidate.add(line)
    if status.drift is not None and status.drift.severity != "None":
        drift = node.add(_labelled("drift", status.drift.severity, style=STYLES["bad"]))
        for name in ("covariate", "calibration", "kpi"):
            if told := getattr(status.drift, name):
                drift.add(_labelled(name, told))
    for line in _conditions(status.conditions):
        node.add(line)
    if status.rejected:
        last = status.rejected[0]
        told = f"{_named(last.version, last.hash)}, {last.reason}, {ago(last.at, now)} ago: {last.message}"
        node.add(_labelled("rejected", told))


def _analysis(deployment: Deployment, now: datetime) -> Iterator[RenderableType]:
    analysis = deployment.status.analysis
    if analysis is None:
        return
    for interval in analysis.intervals:
        yield _interval(interval)
    counts = f"{analysis.outcomes_stable:,} stable and {analysis.outcomes_candidate:,} candidate"
    told = f"{counts} of {deployment.spec.rollout.analysis.min_outcomes:,} outcomes"
    if analysis.projected_verdict_at is not None:
        told += f", verdict expected {until(analysis.projected_verdict_at, now)}"
    yield _labelled("evidence", told)
    if analysis.message:
        yield _quiet(analysis.message)


def _interval(interval: IntervalStatus) -> Text:
    style = {"Harm": STYLES["bad"], "Better": STYLES["good"]}.get(interval.verdict, "")
    bounds = f"[{signed(interval.lower)}, {signed(interval.upper)}]"
    if interval.bound is not None:
        bounds += f" against {interval.bound:g}"
    return _labelled(interval.metric, f"{signed(interval.estimate)} {bounds} {interval.verdict}", style=style)


def _variant(variant: Variant, now: datetime) -> str:
    since = f" for {ago(variant.since, now)}" if variant.since else ""
    return f"{_named(variant.version, variant.hash)}{since}"


def _named(version: str | None, hash_: str) -> str:
    return f"version {version}" if version else f"today's policy ({hash_[:8]})"


def _conditions(conditions: tuple[Condition, ...]) -> Iterator[RenderableType]:
    """Conditions that speak of trouble or of a limit, in the operator's words."""
    for each in conditions:
        told = each.type not in _SPOKEN and (each.status != "False" and each.reason != "Experimental")
        if told and each.message:
            yield _labelled(each.type, each.message, style=STYLES["busy"])


def _headed(kind: str, name: str, stands: Standing, more: str) -> Text:
    line = _line(kind, name)
    line.append(f"  {stands}", style=STYLES[stands.tone])
    if more:
        line.append(f"  {more}")
    return line


def _line(kind: str, name: str, more: str = "", *, style: str = "") -> Text:
    line = Text(f"{kind} ")
    line.append(name, style="bold")
    if more:
        line.append(f"  {more}", style=style)
    return line


def _labelled(label: str, told: str, *, style: str = "") -> Text:
    line = Text(f"{label}: ", style=STYLES["quiet"])
    line.append(Text(told, style=style or "not dim"))
    return line


def _quiet(told: str) -> Text:
    return Text(told, style=STYLES["quiet"])
