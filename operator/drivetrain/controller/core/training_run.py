"""The decision about one TrainingRun: which attempt runs, what it reported, and when to give up."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from drivetrain.api.documents import Document, labels_of, name_of, namespace_of, text, texts, uid_of
from drivetrain.api.errors import InvalidSpecError
from drivetrain.api.kinds import CONFIG_MAP, RAY_JOB, TRAINING_RUN, Ref
from drivetrain.api.ledger import DeploymentLedger, RunLedger
from drivetrain.api.meta import Condition
from drivetrain.api.names import (
    CANCEL_ANNOTATION,
    CLUSTER_LABEL,
    INCARNATION_ANNOTATION,
    ledger_name,
    ray_job_name,
    report_name,
    spec_name,
)
from drivetrain.api.report import TrainingReport
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import Progress, TrainingRun, TrainingRunStatus
from drivetrain.api.validation import validate_project, validate_run
from drivetrain.controller.core import attempts, records
from drivetrain.controller.core.conditions import (
    KUBERAY_MISSING,
    Fact,
    check,
    clipped,
    condition,
    conditions,
    invalid_plan,
    is_deleting,
    is_inherited,
    parse,
    settled,
    stalled_plan,
    transition,
    unanswered,
)
from drivetrain.controller.core.observations import RunObserved
from drivetrain.controller.core.ownership import only_own
from drivetrain.controller.core.plan import LATE, RETRY, Apply, Delete, Effect, Plan
from drivetrain.controller.core.policies import champion_of
from drivetrain.controller.core.queueing import NOT_QUEUED, quota
from drivetrain.controller.core.run_progress import (
    END_WITHIN,
    ENDED,
    RunFacts,
    due,
    progress,
    result_due,
    secret_awaited,
)
from drivetrain.controller.core.support import unsupported
from drivetrain.controller.manifests import records as manifests
from drivetrain.controller.manifests.metadata import Owner
from drivetrain.controller.manifests.network import network_policy
from drivetrain.controller.manifests.ray_cluster import Runtime
from drivetrain.controller.manifests.ray_job import Part, ray_job
from drivetrain.controller.manifests.settings import Settings

JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
_GPU_MINUTE = 60
_OWN_ENDINGS = ("Cancelled", "DeadlineExceeded", "AttemptsExhausted")
"""Endings that the operator decided: the job does not know and is stopped."""


def decide(observed: RunObserved, now: datetime, settings: Settings) -> Plan:
    """Decide about a run: total, pure."""
    owner = observed.owner
    if is_deleting(owner):
        return Plan()
    refs = refs_of(owner)
    if is_inherited(owner, observed.live.get(refs.ledger)) or is_inherited(owner, observed.live.get(refs.spec)):
        return Plan(wake_after=LATE)
    before = records.ledger(RunLedger, observed.live.get(refs.ledger))
    spec = records.run_spec(observed.live.get(refs.spec))
    try:
        run = parse(TrainingRun, owner)
        project = parse(DrivetrainProject, observed.project) if observed.project else None
        if spec is None and project is not None:
            check(validate_project(project), of=f"DrivetrainProject {project.metadata.name}")
        check(validate_run(run, None if spec else project, created=spec.spec if spec else None))
    except InvalidSpecError as error:
        return invalid_plan(owner, error, now)
    if spec is None and project is not None:
        spec = run_spec(run, project, records.ledger(DeploymentLedger, observed.champion_ledger), settings)
    if spec is None:
        told = f"DrivetrainProject {run.spec.project} does not exist: create it or name another."
        return replace(stalled_plan(owner, Fact("ProjectNotFound", told), now), wake_after=RETRY)
    if not observed.kuberay and not before.finished:
        return replace(stalled_plan(owner, KUBERAY_MISSING, now), wake_after=RETRY)
    recorded = before.runtime or settings.runtime
    runtime = Runtime.of(spec.spec.cluster, recorded)
    if (fault := unsupported(runtime)) is not None and not before.finished and not attempts.is_open(before):
        return stalled_plan(owner, fault, now)
    facts = facts_of(observed, run, spec, project, before, now=now)
    after = progress(before.model_copy(update={"runtime": recorded}), facts, now)
    status = status_of(observed, facts, after, now)
    plan = Plan(
        ledger=Apply(manifests.ledger(facts.owner, after)) if after != before else None,
        effects=(*_effects(observed, facts, after, now, settings), *transition(owner, status.conditions)),
        status=status.model_dump(mode="json", by_alias=True, exclude_none=True),
        wake_after=_wake_after(facts, after, now),
    )
    return only_own(plan, observed, lambda why: stalled_plan(owner, why, now), refs.ledger, refs.spec)


def run_spec(run: TrainingRun, project: DrivetrainProject, champion: DeploymentLedger, settings: Settings) -> RunSpec:
    """The run's spec with the project facts of now: what all its attempts will read."""
    tracking = project.spec.tracking
    created = run.metadata.creation_timestamp
    return RunSpec(
        namespace=run.metadata.namespace,
        project=project.metadata.name,
        project_uid=project.metadata.uid,
        run=run.metadata.name,
        run_uid=run.metadata.uid,
        objective=project.spec.objective,
        levers=project.spec.levers,
        exploration=project.spec.exploration,
        decisions=project.spec.decisions,
        data=project.spec.data,
        tracking_uri=tracking.uri if tracking else settings.mlflow_url,
        champion=champion_of(champion),
        matures_before=created.isoformat() if created else None,
        spec=run.spec,
    )


def facts_of(
    observed: RunObserved,
    run: TrainingRun,
    spec: RunSpec,
    project: DrivetrainProject | None,
    ledger: RunLedger,
    *,
    now: datetime,
) -> RunFacts:
    queue = run.spec.queue is not None and observed.kueue
    job = next((each for each in observed.ray_jobs if name_of(each) == _job_name(run.metadata.name, ledger)), None)
    report = records.training_report(observed.live.get(refs_of(observed.owner).report), ledger.cluster)
    if report is not None and (report.attempt, report.incarnation) != (ledger.attempt, ledger.incarnation):
        report = None
    if report is not None and report.at > now:  # another clock: what was said was said by now
        report = report.model_copy(update={"at": now})
    uid = uid_of(job or {})
    workload = next((each for each in observed.workloads if uid and labels_of(each).get(JOB_UID_LABEL) == uid), None)
    tracking = project.spec.tracking if project else None
    return RunFacts(
        run=run,
        owner=Owner.of(observed.owner, run.spec.project),
        spec=spec,
        credentials=tracking.credentials if tracking else None,
        job=job,
        jobs=observed.ray_jobs,
        pods=observed.pods,
        report=report,
        quota=quota(workload, observed.line) if queue and observed.line else NOT_QUEUED,
        queued=queue,
        cancel=unanswered(observed.owner, CANCEL_ANNOTATION, dict(ledger.answered)),
        gpus=0 if ledger.part == "p" else spec.spec.gpus,
    )


def _job_name(run: str, ledger: RunLedger) -> str:
    return ray_job_name(run, ledger.attempt, ledger.part)


@dataclass(frozen=True, slots=True)
class RunRefs:
    """Names of the records of a run."""

    ledger: Ref
    spec: Ref
    report: Ref


def refs_of(owner: Document) -> RunRefs:
    """The records of this run."""
    namespace, name = namespace_of(owner), name_of(owner)
    return RunRefs(
        ledger=Ref(CONFIG_MAP, namespace, ledger_name(TRAINING_RUN.kind, name)),
        spec=Ref(CONFIG_MAP, namespace, spec_name(name)),
        report=Ref(CONFIG_MAP, namespace, report_name(TRAINING_RUN.kind, name)),
    )


def _effects(
    observed: RunObserved, facts: RunFacts, ledger: RunLedger, now: datetime, settings: Settings
) -> tuple[Effect, ...]:
    """Children for an open attempt, and the end of every job that should not be."""
    effects: list[Effect] = []
    refs = refs_of(observed.owner)
    if refs.spec not in observed.live and not ledger.finished:
        effects.append(Apply(manifests.run_spec(facts.owner, facts.spec)))
    if not ledger.finished:
        rights = manifests.reporters(facts.owner, settings.pull_secrets, observed.live)
        effects += [Apply(each) for each in rights]
        policy = network_policy(facts.owner, facts.spec.data, facts.spec.tracking_uri, settings.api_ports)
        effects.append(Apply(policy))
    if not ledger.finished or refs.report in observed.live:
        effects.append(Apply(_report(observed, facts, ledger)))
    wanted = _job_name(facts.owner.name, ledger)
    if attempts.is_open(ledger):
        if all(name_of(job) != wanted for job in facts.jobs):
            effects.append(
                Apply(
                    ray_job(
                        facts.owner,
                        facts.spec,
                        Part(ledger.attempt, ledger.part),
                        Runtime.of(facts.spec.spec.cluster, ledger.runtime or settings.runtime),
                        tracking_credentials=facts.credentials,
                    )
                )
            )
        stale = tuple(job for job in facts.jobs if name_of(job) != wanted)
    elif ledger.finished:
        stale = tuple(job for job in facts.jobs if name_of(job) != wanted or _must_stop(job, ledger, now))
    elif attempts.is_prepared(ledger):
        stale = tuple(job for job in facts.jobs if _has_prepared(job, facts.report, now))
    else:
        stale = facts.jobs
    effects += [Delete(RAY_JOB, facts.owner.namespace, name_of(job), uid_of(job)) for job in stale]
    if (ttl := _ttl_due(facts, ledger)) is not None and now >= ttl:
        effects.append(Delete(TRAINING_RUN, facts.owner.namespace, facts.owner.name, facts.owner.uid))
    return tuple(effects)


def _report(observed: RunObserved, facts: RunFacts, ledger: RunLedger) -> Document:
    """The report's metadata: who may claim the attempt now; keys of clusters that are gone are emptied."""
    alive = {labels_of(pod).get(CLUSTER_LABEL) for pod in facts.pods}
    written = texts(observed.live.get(refs_of(observed.owner).report) or {}, "data")
    gone = tuple(
        key for key, content in written.items() if content and key in ledger.former_clusters and key not in alive
    )
    named = {INCARNATION_ANNOTATION: f"{ledger.incarnation} {ledger.cluster}"} if ledger.cluster else {}
    return manifests.report(facts.owner, annotations=named, emptied=gone)


def _has_prepared(job: Document, report: TrainingReport | None, now: datetime) -> bool:
    """Whether the job that prepared may go: it gets time to end by itself, so that its dossier tells a good end."""
    ended = text(job, "status", "jobDeploymentStatus") in ENDED
    return ended or report is None or now >= report.at + END_WITHIN


def _must_stop(job: Document, ledger: RunLedger, now: datetime) -> bool:
    """Whether the last job must be stopped although the run is over: one with a result gets time to end by itself.

    One that was preempted meanwhile would start again, with nothing left to do.
    """
    if text(job, "status", "jobDeploymentStatus") in ENDED:
        return False
    if ledger.cluster and text(job, "status", "rayClusterName") != ledger.cluster:
        return True
    overdue = ledger.finished_at is not None and now >= ledger.finished_at + END_WITHIN
    return ledger.reason in _OWN_ENDINGS or overdue


def _ttl_due(facts: RunFacts, ledger: RunLedger) -> datetime | None:
    ttl = facts.run.spec.ttl_after_finished
    return ledger.finished_at + ttl if ttl is not None and ledger.finished_at is not None else None


def _wake_after(facts: RunFacts, ledger: RunLedger, now: datetime) -> timedelta | None:
    """The next deadline that no event announces."""
    times: list[datetime] = []
    if ledger.finished_at is not None:
        if facts.job is not None and facts.phase not in ENDED:
            times.append(ledger.finished_at + END_WITHIN)
        if (ttl := _ttl_due(facts, ledger)) is not None:
            times.append(ttl)
        times = [time for time in times if time > now]
    elif attempts.is_open(ledger):
        if (life := due(ledger, facts, now)) is not None:
            times.append(life[0])
        if ledger.active_since is not None:
            times.append(ledger.active_since + facts.run.spec.deadline - timedelta(seconds=ledger.active_seconds))
        if facts.phase in ENDED:
            times.append(result_due(ledger, facts, now))
        if secret_awaited(facts, now):
            times.append(now + RETRY)
        times += [due for due in map(attempts.mount_due, facts.attempt_pods) if due is not None and due > now]
    elif not facts.run.spec.suspend:
        times.append(now + RETRY)
        if ledger.next_attempt_at is not None and ledger.next_attempt_at > now:
            times.append(ledger.next_attempt_at)
    return max(min(times) - now, timedelta(seconds=1)) if times else None


def status_of(observed: RunObserved, facts: RunFacts, ledger: RunLedger, now: datetime) -> TrainingRunStatus:
    """The view of ledger and children."""
    found, why = _conditions(facts, ledger, now)
    report = facts.report
    charged = ledger.gpu_seconds + attempts.active_now(ledger, now) * facts.gpus // _GPU_MINUTE * _GPU_MINUTE
    worst = report.slices if report else ()
    return TrainingRunStatus(
        observed_generation=facts.run.metadata.generation,
        conditions=settled(observed.owner, found, now),
        attempt=ledger.attempt,
        incarnation=ledger.incarnation,
        ray_job=_job_name(facts.owner.name, ledger) if ledger.attempt else None,
        data_version=ledger.data_version,
        stage=report.stage or None if report else None,
        progress=_progress(report, ledger),
        metrics=report.metrics if report else {},
        slices=worst,
        model_version=ledger.version.version if ledger.version else None,
        mlflow_run=report.mlflow_run if report else None,
        gates=report.gates if report else (),
        gpu_seconds=round(charged, 3),
        waiting_seconds=_in_steps(attempts.waited_total(ledger, now), running=ledger.waiting_since is not None),
        why=clipped(why),
    )


def _in_steps(seconds: float, *, running: bool) -> float:
    """A time that goes on in whole minutes, so that it alone is not a write every second."""
    return seconds // _GPU_MINUTE * _GPU_MINUTE if running else round(seconds, 3)


def _progress(report: TrainingReport | None, ledger: RunLedger) -> Progress:
    if ledger.finished in ("Approved", "Refused"):
        return Progress(percent=100, trials_done=report.progress.trials_done if report else 0)
    return report.progress if report else Progress()


def _conditions(facts: RunFacts, ledger: RunLedger, now: datetime) -> tuple[tuple[Condition, ...], str]:
    """The conditions, and in a sentence why the run waits or failed."""
    if ledger.finished == "Approved":
        why = Fact("Succeeded", ledger.message)
        return (*conditions(ready=True, why=why), condition("Complete", "True", why)), ""
    if ledger.finished:
        why = Fact(ledger.reason, ledger.message)
        ended = "Complete" if ledger.finished == "Refused" else "Failed"
        return (*conditions(ready=False, why=why, stalled=why), condition(ended, "True", why)), ledger.message
    if facts.run.spec.suspend and not attempts.is_open(ledger):
        why = Fact("Suspended", "spec.suspend is true: set it to false to go on.")
        return conditions(ready=False, why=why), why.message
    if not attempts.is_open(ledger):
        why = _between(facts, ledger, now)
        return conditions(ready=False, why=why, reconciling=why), why.message
    reserved = condition(
        "QuotaReserved", "True" if facts.quota.reserved else "False", Fact(facts.quota.reason, facts.quota.message)
    )
    if (awaited := secret_awaited(facts, now)) is not None:
        return (*conditions(ready=False, why=awaited, stalled=awaited), reserved), awaited.message
    why = _under_way(facts)
    return (
        *conditions(ready=False, why=why, reconciling=why),
        reserved,
    ), "" if why.reason == "Running" else why.message


def _between(facts: RunFacts, ledger: RunLedger, now: datetime) -> Fact:
    """Why the next attempt has not opened yet."""
    last = ledger.failures[-1] if ledger.failures else ""
    lost = [pod for pod in facts.pods if attempts.is_lost(pod, now)]
    if lost:
        node = text(lost[0], "spec", "nodeName")
        return Fact(
            "PodLost", f"Pod {name_of(lost[0])} was lost with node {node}; the next attempt does not wait for it."
        )
    left = (*facts.jobs, *attempts.blocking(facts.pods, now))
    waits = f"Waiting for {len(left)} objects of the last attempt to go, {name_of(left[0])} first. " if left else ""
    if attempts.is_prepared(ledger):
        return Fact("Prepared", f"{waits}The data is ready; the job that asks for GPUs is next.")
    if not left and (at := ledger.next_attempt_at) is not None:
        waits = f"The next attempt begins at {at:%H:%M:%S} UTC. "
    return Fact("Restarting" if ledger.attempt else "Starting", f"{waits}{last}")


def _under_way(facts: RunFacts) -> Fact:
    """What the open attempt is doing."""
    if not facts.quota.reserved:
        return Fact("Queued", facts.quota.message)
    if facts.phase == "Running":
        stage = f" {facts.report.stage}" if facts.report and facts.report.stage else ""
        return Fact("Running", f"The job runs{stage}.")
    if facts.phase in ENDED:
        return Fact("Ending", "The job has ended; its result is awaited.")
    reason, told = attempts.trouble(facts.attempt_pods)
    told = told or attempts.unschedulable(facts.attempt_pods)
    return Fact("Starting", f"The Ray cluster is starting. {reason} {told}".strip())
