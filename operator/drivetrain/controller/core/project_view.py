"""The status of a project: a view of its ledger, its runs and its Deployment."""

from dataclasses import dataclass
from datetime import datetime

from drivetrain.api.documents import documents, name_of, text
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger
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


@dataclass(frozen=True, slots=True)
class ProjectView:
    """Everything that the status tells."""

    observed: ProjectObserved
    project: DrivetrainProject
    ledger: ProjectLedger
    serving: DeploymentLedger | None
    report: ServingReport | None
    trigger: governor.Trigger | None
    held: governor.Hold | None
    gpu_hours: float

    @property
    def champion(self) -> VersionReference | None:
        """The stable version, as the Deployment's ledger has it."""
        if self.serving is None or self.serving.stable is None:
            return None
        policy = self.serving.policies.get(self.serving.stable.hash)
        return policy.model if policy else None


def project_status(view: ProjectView, now: datetime) -> DrivetrainProjectStatus:
    """The status of a project that means what it says."""
    ledger, report, champion = view.ledger, view.report, view.champion
    rolling = view.serving is not None and view.serving.candidate is not None
    return DrivetrainProjectStatus(
        observed_generation=view.project.metadata.generation,
        conditions=settled(view.observed.owner, _conditions(view), now),
        stage="Measure" if rolling else "Learn" if champion else "Build",
        champion=champion,
        approved=ledger.approved,
        awaiting_approval=ledger.awaiting_approval,
        last_run=ledger.runs[0].name if ledger.runs else None,
        next_decision=_next(view),
        kpi=kpi_status(report.kpi, view.project) if report and report.kpi else None,
        effort=Effort(
            data_rows=_rows(view),
            labels=report.matured if report else 0,
            training_runs=ledger.runs_started,
            gpu_hours=round(view.gpu_hours, 3),
        ),
        runs=tuple(
            RunSummary(
                name=run.name,
                cause=run.cause,
                state=run.verdict or run.finished or _reason(view, run.name),
                version=run.version,
            )
            for run in ledger.runs[:10]
        ),
    )


def _next(view: ProjectView) -> NextDecision:
    """What the loop does next, and why not now."""
    ledger, serving = view.ledger, view.serving
    running = next((run for run in ledger.runs if not run.finished), None)
    if running is not None:
        # What a run that runs does changes with each stage and stands in the run's own status.
        waits = "" if _reason(view, running.name) == "Running" else _message(view, running.name)
        told = f"It was started for {running.cause}. {waits}".strip()
        return NextDecision(what=f"Gates of {running.name}", why=clipped(told))
    if serving is not None and serving.candidate is not None:
        told = view.report.rollout.message if view.report and view.report.rollout else "Evidence is gathered."
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


def _conditions(view: ProjectView) -> tuple[Condition, ...]:
    ledger, loop = view.ledger, view.project.spec.loop
    others: list[Condition] = []
    if governor.circuit_open(ledger, loop):
        told = (
            f"{ledger.rejected_in_a_row} candidates in a row were rejected; annotate drivetrain.dev/retrain to go on."
        )
        others.append(condition("CircuitOpen", "True", Fact("RejectedInARow", told)))
    if view.report is not None and view.report.drift is not None and view.report.drift.miscalibrated:
        told = "The champion's predictions were off by more than the tolerance from its promotion on."
        others.append(condition("Miscalibrated", "True", Fact("OffsetBeyondTolerance", told)))
    effect = next((run.lever_effect for run in ledger.runs if run.lever_effect is not None), None)
    if effect == "Observational":
        told = "Lever values in the training data were not drawn with a logged propensity: effects may be confounded."
        others.append(condition("LeverEffect", "Unknown", Fact("Observational", told)))
    elif effect == "Experimental":
        others.append(
            condition("LeverEffect", "True", Fact("Experimental", "Levers were varied with logged propensity."))
        )
    return (*_state(view), *others)


def _state(view: ProjectView) -> tuple[Condition, ...]:
    """Ready once the loop has a version to serve; stalled where its only run cannot succeed."""
    ledger = view.ledger
    if ledger.approved is not None:
        why = Fact("LoopRunning", f"Version {ledger.approved.version} is the newest that passed its gates.")
        return conditions(ready=True, why=why)
    last = ledger.runs[0] if ledger.runs else None
    if last is not None and last.finished in ("Failed", "Refused", "Deleted"):
        told = _message(view, last.name) or f"{last.name} ended as {last.finished}."
        why = Fact(_reason(view, last.name), f"{told} Correct the project, or annotate drivetrain.dev/retrain.")
        return conditions(ready=False, why=why, stalled=why)
    if ledger.awaiting_approval is not None:
        why = Fact("AwaitingApproval", f"Version {ledger.awaiting_approval.version} awaits a person's approval.")
    else:
        why = Fact("Building", "No version has passed its gates yet.")
    return conditions(ready=False, why=why, reconciling=why)


def _reason(view: ProjectView, run: str) -> str:
    return reason_of(_ready(view, run, "reason"), "Pending")


def _message(view: ProjectView, run: str) -> str:
    return _ready(view, run, "message")


def _ready(view: ProjectView, run: str, part: str) -> str:
    """A part of the run's Ready condition."""
    document = next((each for each in view.observed.runs if name_of(each) == run), None)
    found = (each for each in documents(document or {}, "status", "conditions") if text(each, "type") == "Ready")
    return next((text(each, part) for each in found), "")


def _rows(view: ProjectView) -> int:
    """Rows of the champion's data version, as its run reported them."""
    champion, config_map = view.champion, view.observed.champion_report
    if champion is None or config_map is None:
        return 0
    return records.rows_of(config_map)
