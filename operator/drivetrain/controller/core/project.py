"""The decision about one DrivetrainProject: which runs there are, what may be rolled out, and when to train again."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from drivetrain.api.documents import Document, documents, integer, name_of, namespace_of, text
from drivetrain.api.errors import InvalidSpecError
from drivetrain.api.kinds import CONFIG_MAP, DEPLOYMENT, DRIVETRAIN_PROJECT, TRAINING_RUN, Ref
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger, StartedRun
from drivetrain.api.names import (
    APPROVE_ANNOTATION,
    DATA_CHANGED_ANNOTATION,
    RETRAIN_ANNOTATION,
    ledger_name,
    run_name,
)
from drivetrain.api.policy import policy_hash
from drivetrain.api.report import same_sources
from drivetrain.api.runspec import training_hash
from drivetrain.api.v1alpha1.deployment import DeploymentSpec
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import EVIDENCE_LENGTH, EVIDENCE_LIMIT, TrainingRun, TrainingRunSpec, Trigger
from drivetrain.api.validation import validate_project
from drivetrain.controller.core import approvals, governor, milestones, records, silence
from drivetrain.controller.core.conditions import (
    Fact,
    check,
    clipped,
    is_deleting,
    is_inherited,
    is_owned,
    parse,
    transition,
    unanswered,
)
from drivetrain.controller.core.observations import ProjectObserved
from drivetrain.controller.core.ownership import only_own
from drivetrain.controller.core.plan import LATE, Apply, Effect, Plan
from drivetrain.controller.core.policies import policy_of
from drivetrain.controller.core.project_view import Memory, ProjectView, project_status, stalled_status
from drivetrain.controller.manifests import records as manifests
from drivetrain.controller.manifests.metadata import Owner, child
from drivetrain.controller.manifests.settings import Settings

RETRY = timedelta(minutes=10)
"""How soon to look again where only a sliding window decides."""


def decide(observed: ProjectObserved, now: datetime, settings: Settings) -> Plan:
    """Decide about a project: total, pure."""
    del settings  # one signature for all kinds
    if is_deleting(observed.owner):
        return Plan()
    record = observed.live.get(ledger_ref(observed.owner))
    if is_inherited(observed.owner, record):
        return Plan(wake_after=LATE)
    before, owned = records.ledger(ProjectLedger, record), is_owned(observed.owner, record)
    if owned and integer(observed.owner, "metadata", "generation") < before.generation:
        return Plan(wake_after=LATE)
    memory = _memory(observed, before, now)
    try:
        project = parse(DrivetrainProject, observed.owner)
        check(validate_project(project))
    except InvalidSpecError as error:
        return _stalled(memory, Fact(InvalidSpecError.reason, error.message), now)
    owner = Owner.of(observed.owner, project.metadata.name)
    serving, report = memory.serving, memory.report
    if report is not None and silence.is_silent(report, now):
        report = report.model_copy(update={"drift": None})  # as it was when the Monitor fell silent

    ledger = _renamed(memory.ledger, observed).model_copy(update={"generation": project.metadata.generation})
    wanted = policy_hash(policy_of(project, ledger.approved)) if ledger.approved else None
    ledger = approvals.judged(ledger, serving, wanted)
    asked = _asked(observed, ledger, APPROVE_ANNOTATION)
    ledger = approvals.approved(ledger, memory.run_ledgers, project.spec.loop, asked)
    seen = report.data_fingerprint if report is not None else None
    if seen and not same_sources(seen, ledger.data_fingerprint):  # other sources are a changed spec, not new files
        ledger = ledger.model_copy(update={"data_fingerprint": seen})
    situation = governor.Situation(
        loop=project.spec.loop,
        ledger=ledger,
        serving=serving,
        report=report,
        training_hash=training_hash(project.spec),
        matures_after=project.spec.objective.kpi.matures_after,
        retrain_asked=_asked(observed, ledger, RETRAIN_ANNOTATION),
        data_changed=_asked(observed, ledger, DATA_CHANGED_ANNOTATION),
        gpu_hours=governor.gpu_hours(ledger.runs, now),
    )
    trigger = governor.next_trigger(situation, now)
    held = governor.hold(situation, trigger, now) if trigger else None
    if trigger is not None and held is None:
        ledger = _started(ledger, trigger, situation, observed, now)

    effects: list[Effect] = [
        Apply(training_run(owner, project, run))
        for run in ledger.runs
        if not run.finished and run.name not in {name_of(each) for each in observed.runs}
    ]
    if (deployment := _deployment(observed, owner, project)) is not None:
        effects.append(Apply(deployment))
    status = project_status(ProjectView(replace(memory, ledger=ledger), project, trigger, held), now)
    events = (
        *milestones.of_project(observed.owner, status),
        *transition(observed.owner, status.conditions, "Ready", "CircuitOpen", "LeverEffect"),
    )
    plan = Plan(
        ledger=Apply(manifests.ledger(owner, ledger)) if ledger != before or not owned else None,
        effects=(*effects, *events),
        status=status.model_dump(mode="json", by_alias=True, exclude_none=True),
        wake_after=_wake_after(project, ledger, held, now),
    )
    return only_own(plan, observed, lambda why: _stalled(memory, why, now), ledger_ref(observed.owner))


def _stalled(memory: Memory, why: Fact, now: datetime) -> Plan:
    """Say what is wrong and touch nothing."""
    status = stalled_status(memory, why, now)
    return Plan(
        effects=transition(memory.observed.owner, status.conditions),
        status=status.model_dump(mode="json", by_alias=True, exclude_none=True),
    )


def _memory(observed: ProjectObserved, ledger: ProjectLedger, now: datetime) -> Memory:
    """What is remembered and reported, the runs' own ledgers taken over."""
    run_ledgers = {name: records.ledger(RunLedger, each) for name, each in observed.run_ledgers.items()}
    serving = report = None
    if observed.deployment_ledger is not None:
        serving = records.ledger(DeploymentLedger, observed.deployment_ledger)
        report = records.current_serving_report(serving, observed.deployment_report, observed.ray_services)
    charged = {name_of(each): approvals.gpu_seconds(each) or 0.0 for each in observed.runs}
    followed = approvals.followed(ledger, _typed(observed.runs), run_ledgers, charged, now)
    return Memory(observed, followed, run_ledgers, serving, report)


def ledger_ref(owner: Document) -> Ref:
    """The project's ledger."""
    return Ref(CONFIG_MAP, namespace_of(owner), ledger_name(DRIVETRAIN_PROJECT.kind, name_of(owner)))


def training_run(owner: Owner, project: DrivetrainProject, run: StartedRun) -> Document:
    """The TrainingRun that the loop starts: applied once, never again, because its spec is immutable."""
    template = project.spec.training.model_dump()
    spec = TrainingRunSpec(
        **template,
        project=project.metadata.name,
        trigger=Trigger.model_validate({"cause": run.cause, "evidence": _evidence(run.evidence)}),
        window=run.window,
    )
    body: Document = {"spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return child(TRAINING_RUN, run.name, owner, body)


def _deployment(observed: ProjectObserved, owner: Owner, project: DrivetrainProject) -> Document | None:
    """The Deployment of the project's name, unless another one names the project or the name is taken."""
    if project.spec.serving is None:
        return None
    live = observed.live.get(Ref(DEPLOYMENT, owner.namespace, owner.name))
    if live is None and observed.deployments:
        return None
    owners = documents(live or {}, "metadata", "ownerReferences")
    if live is not None and all(text(each, "uid") != owner.uid for each in owners):
        return None  # a person's or Git's: its spec is not ours to write
    spec = DeploymentSpec(**project.spec.serving.model_dump(), project=project.metadata.name)
    body = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    if spec.replicas == DeploymentSpec.model_fields["replicas"].default:
        del body["replicas"]  # nobody asked for a number: it belongs to whoever scales the Deployment
    return child(DEPLOYMENT, owner.name, owner, {"spec": body})


def _started(
    ledger: ProjectLedger,
    trigger: governor.Trigger,
    situation: governor.Situation,
    observed: ProjectObserved,
    now: datetime,
) -> ProjectLedger:
    """Number the next run and remember what it answers; the run itself follows from the ledger."""
    number = _free_number(ledger, observed)
    answered = dict(ledger.answered)
    for annotation, value in (
        (RETRAIN_ANNOTATION, situation.retrain_asked if trigger.cause == "Manual" else ""),
        (DATA_CHANGED_ANNOTATION, situation.data_changed),
    ):
        if value:
            answered[annotation] = value
    run = StartedRun(
        name=run_name(name_of(observed.owner), number),
        cause=trigger.cause,
        at=now,
        evidence=_evidence(trigger.evidence),
        window=trigger.window,
    )
    governed = trigger.cause in governor.GOVERNED
    report = situation.report
    return ledger.model_copy(
        update={
            "runs_started": number,
            "runs": (run, *ledger.runs)[: approvals.RUNS_LIMIT],
            "answered": answered,
            "training_hash": situation.training_hash,
            "data_fingerprint": (report.data_fingerprint if report else None) or ledger.data_fingerprint,
            "last_loop_run_at": now if governed else ledger.last_loop_run_at,
            "rejected_in_a_row": 0 if trigger.cause == "Manual" else ledger.rejected_in_a_row,
            "answered_change": trigger.changed_at or ledger.answered_change,
        }
    )


def _renamed(ledger: ProjectLedger, observed: ProjectObserved) -> ProjectLedger:
    """Give runs that could not be created, because another project's has their name, the next free one."""
    others = observed.taken - {name_of(each) for each in observed.runs}
    for run in ledger.runs:
        if run.name in others and not run.seen and not run.finished:
            number = _free_number(ledger, observed)
            named = run.model_copy(update={"name": run_name(name_of(observed.owner), number)})
            runs = tuple(named if each is run else each for each in ledger.runs)
            ledger = ledger.model_copy(update={"runs": runs, "runs_started": number})
    return ledger


def _free_number(ledger: ProjectLedger, observed: ProjectObserved) -> int:
    """The number of the next run: the first after the last one whose name nobody took."""
    taken = observed.taken | {run.name for run in ledger.runs}
    number = ledger.runs_started + 1
    while run_name(name_of(observed.owner), number) in taken:
        number += 1
    return number


def _evidence(told: Mapping[str, str]) -> dict[str, str]:
    """As much of it as a trigger may carry; ledgers of earlier operators hold more."""
    return {key: clipped(each, EVIDENCE_LENGTH) for key, each in sorted(told.items())[:EVIDENCE_LIMIT]}


def _typed(runs: tuple[Document, ...]) -> tuple[TrainingRun, ...]:
    """The runs that can be read; one that cannot says so in its own status."""
    found = []
    for each in runs:
        try:
            found.append(parse(TrainingRun, each))
        except InvalidSpecError:
            continue
    return tuple(found)


def _asked(observed: ProjectObserved, ledger: ProjectLedger, annotation: str) -> str:
    return unanswered(observed.owner, annotation, dict(ledger.answered))


def _wake_after(
    project: DrivetrainProject, ledger: ProjectLedger, held: governor.Hold | None, now: datetime
) -> timedelta | None:
    """The next time that no event announces."""
    times = [governor.scheduled_at(project.spec.loop, ledger)]
    if held is not None:
        times.append(held.not_before or now + RETRY)
    due = [time for time in times if time is not None and time > now]
    return max(min(due) - now, timedelta(seconds=1)) if due else None
