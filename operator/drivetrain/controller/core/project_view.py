"""The status of a project: a view of its ledger, its runs and its Deployment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from drivetrain.api.documents import documents, integer, name_of, text
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger, StartedRun
from drivetrain.api.meta import Condition
from drivetrain.api.report import ServingReport
from drivetrain.api.v1alpha1.project import (
    DrivetrainProject,
    DrivetrainProjectStatus,
    Effort,
    NextDecision,
    RunSummary,
    VersionReference,
)
from drivetrain.controller.core import governor, records
from drivetrain.controller.core.conditions import Fact, clipped, condition, conditions, reason_of, settled
from drivetrain.controller.core.deployment_view import kpi_status
from drivetrain.controller.core.observations import ProjectObserved
from drivetrain.controller.core.policies import champion_of


@dataclass(frozen=True, slots=True)
class Memory:
    """What ledgers, children and reports tell of a project, whatever its spec says."""

    observed: ProjectObserved
    ledger: ProjectLedger
    run_ledgers: Mapping[str, RunLedger]
    """Of the runs that `approvals.runs_to_read` names, the newest among them wherever its end is told."""
    serving: DeploymentLedger | None
    report: ServingReport | None

    @property
    def champion(self) -> VersionReference | None:
        """The stable version, as the Deployment's ledger has it."""
        return champion_of(self.serving) if self.serving else None


@dataclass(frozen=True, slots=True)
class ProjectView:
    """Everything that the status tells of a project that means what it says."""

    memory: Memory
    project: DrivetrainProject
    trigger: governor.Trigger | None
    held: governor.Hold | None


def project_status(view: ProjectView, now: datetime) -> DrivetrainProjectStatus:
    """The status of a project that means what it says."""
    others = (*_circuit(view), *_warnings(view.memory))
    return _status(view.memory, (*_state(view.memory), *others), _next(view), now)


def stalled_status(memory: Memory, why: Fact, now: datetime) -> DrivetrainProjectStatus:
    """The status of a project whose spec means nothing now: what was reached stays, and nothing is begun."""
    stalled = (*conditions(ready=False, why=why, stalled=why), *_warnings(memory))
    waits = NextDecision(what="Correction of the spec", why=clipped(why.message))
    return _status(memory, stalled, waits, now)


def _status(
    memory: Memory, found: tuple[Condition, ...], waits: NextDecision, now: datetime
) -> DrivetrainProjectStatus:
    ledger, report, champion = memory.ledger, memory.report, memory.champion
    rolling = memory.serving is not None and memory.serving.candidate is not None
    return DrivetrainProjectStatus(
        observed_generation=integer(memory.observed.owner, "metadata", "generation"),
        conditions=settled(memory.observed.owner, found, now),
        stage="Measure" if rolling else "Learn" if champion else "Build",
        champion=champion,
        approved=ledger.approved,
        awaiting_approval=ledger.awaiting_approval,
        last_run=ledger.runs[0].name if ledger.runs else None,
        next_decision=waits,
        kpi=kpi_status(report.kpi, memory.serving) if report and report.kpi and memory.serving else None,
        effort=Effort(
            data_rows=_rows(memory),
            labels=report.matured if report else 0,
            training_runs=ledger.runs_started,
            gpu_hours=round(governor.gpu_hours(ledger.runs, now), 3),
        ),
        runs=tuple(
            RunSummary(
                name=run.name,
                cause=run.cause,
                state=clipped(run.verdict or run.finished or _under_way(memory, run.name).reason, 64),
                version=run.version,
            )
            for run in ledger.runs[:10]
        ),
    )


def _next(view: ProjectView) -> NextDecision:
    """What the loop does next, and why not now."""
    memory, ledger, serving = view.memory, view.memory.ledger, view.memory.serving
    running = next((run for run in ledger.runs if not run.finished), None)
    if running is not None:
        # What a run that runs does changes with each stage and stands in the run's own status.
        does = _under_way(memory, running.name)
        told = f"It was started for {running.cause}. {'' if does.reason == 'Running' else does.message}".strip()
        return NextDecision(what=f"Gates of {running.name}", why=clipped(told))
    if serving is not None and serving.candidate is not None:
        told = memory.report.rollout.message if memory.report and memory.report.rollout else "Evidence is gathered."
        policy = serving.policies.get(serving.candidate.hash)
        version = policy.model.version if policy and policy.model else serving.candidate.hash
        return NextDecision(what=f"Verdict on version {version}", why=clipped(told))
    if ledger.awaiting_approval is not None:
        digest = ledger.awaiting_approval.digest
        told = f"loop.approval is Manual: annotate the project with drivetrain.dev/approve={digest}."
        return NextDecision(what=f"Approval of version {ledger.awaiting_approval.version}", why=told)
    if view.trigger is not None and view.held is not None:
        told = f"{view.trigger.why} {view.held.why}"
        return NextDecision(
            what=f"Retraining: {view.trigger.cause}", not_before=view.held.not_before, why=clipped(told)
        )
    due = governor.scheduled_at(view.project.spec.loop, ledger)
    return NextDecision(what="Watch", not_before=due, why="Nothing asks for a retraining.")


def _circuit(view: ProjectView) -> tuple[Condition, ...]:
    ledger = view.memory.ledger
    if not governor.circuit_open(ledger, view.project.spec.loop):
        return ()
    told = f"{ledger.rejected_in_a_row} candidates in a row were rejected; annotate drivetrain.dev/retrain to go on."
    return (condition("CircuitOpen", "True", Fact("RejectedInARow", told)),)


def _warnings(memory: Memory) -> tuple[Condition, ...]:
    """What a reader of the numbers must know about them."""
    others: list[Condition] = []
    if memory.report is not None and memory.report.drift is not None and memory.report.drift.miscalibrated:
        told = "The champion's predictions were off by more than the tolerance from its promotion on."
        others.append(condition("Miscalibrated", "True", Fact("OffsetBeyondTolerance", told)))
    effect = next((run.lever_effect for run in memory.ledger.runs if run.lever_effect is not None), None)
    if effect == "Observational":
        told = "Lever values in the training data were not drawn with a logged propensity: effects may be confounded."
        others.append(condition("LeverEffect", "Unknown", Fact("Observational", told)))
    elif effect == "Experimental":
        others.append(
            condition("LeverEffect", "True", Fact("Experimental", "Levers were varied with logged propensity."))
        )
    return tuple(others)


def _state(memory: Memory) -> tuple[Condition, ...]:
    """Ready once the loop has a version to serve; stalled where its only run cannot succeed."""
    ledger = memory.ledger
    if ledger.approved is not None:
        why = Fact("LoopRunning", f"Version {ledger.approved.version} is the newest that passed its gates.")
        return conditions(ready=True, why=why)
    last = ledger.runs[0] if ledger.runs else None
    if last is not None and last.finished in ("Failed", "Refused", "Deleted"):
        end = _end(memory, last)
        why = Fact(end.reason, f"{end.message} Correct the project, or annotate drivetrain.dev/retrain.")
        return conditions(ready=False, why=why, stalled=why)
    if ledger.awaiting_approval is not None:
        why = Fact("AwaitingApproval", f"Version {ledger.awaiting_approval.version} awaits a person's approval.")
    else:
        why = Fact("Building", "No version has passed its gates yet.")
    return conditions(ready=False, why=why, reconciling=why)


def _end(memory: Memory, run: StartedRun) -> Fact:
    """Why a run ended, from the same ledger that says that it did: its status may be older."""
    record = memory.run_ledgers.get(run.name)
    if record is None or not record.finished:
        return Fact(run.finished, f"{run.name} ended as {run.finished}.")
    return Fact(record.reason, record.message)


def _under_way(memory: Memory, run: str) -> Fact:
    """What a run that has not ended does, as its own status says."""
    document = next((each for each in memory.observed.runs if name_of(each) == run), None)
    found = (each for each in documents(document or {}, "status", "conditions") if text(each, "type") == "Ready")
    ready = next(found, {})
    return Fact(reason_of(text(ready, "reason"), "Pending"), text(ready, "message"))


def _rows(memory: Memory) -> int:
    """Rows of the champion's data version, as its run reported them."""
    champion, config_map = memory.champion, memory.observed.champion_report
    if champion is None or config_map is None:
        return 0
    return records.rows_of(config_map)
