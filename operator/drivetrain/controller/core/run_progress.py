"""How a run moves on: its ledger after one more look at its job, Pods, quota and report. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from drivetrain.api.documents import Document, labels_of, text, value
from drivetrain.api.layout import location_of
from drivetrain.api.ledger import RunLedger
from drivetrain.api.names import ATTEMPT_LABEL, CANCEL_ANNOTATION
from drivetrain.api.report import RunResult, TrainingReport
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.dataset import SecretReference
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.controller.core import attempts
from drivetrain.controller.core.conditions import Fact, clipped, is_deleting, moment, reason_of
from drivetrain.controller.core.queueing import Quota
from drivetrain.controller.manifests.metadata import Owner

READY_WITHIN = timedelta(minutes=15)
"""From quota to a running job, time spent waiting for a Secret aside."""
RENEWED_AFTER = timedelta(minutes=5)
"""How often that time starts again while a Secret is waited for: what is left of it then suffices to start."""
HEARTBEAT_WITHIN = timedelta(minutes=10)
"""Longest silence of a running driver."""
RESULT_WITHIN = timedelta(seconds=10)
"""How long after its end a job may have a result: its Pods, which get 5 s to end, are then gone."""
END_WITHIN = timedelta(minutes=5)
"""How long a job may take to end by itself after its result."""
ENDED = ("Complete", "Failed")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One observation, read and typed."""

    run: TrainingRun
    owner: Owner
    spec: RunSpec
    credentials: SecretReference | None
    job: Document | None
    """The RayJob of the ledger's attempt."""
    jobs: tuple[Document, ...]
    pods: tuple[Document, ...]
    report: TrainingReport | None
    quota: Quota
    queued: bool
    cancel: str
    gpus: int
    """GPUs that the open job holds while it has quota."""

    @property
    def phase(self) -> str:
        """KubeRay's name for where the job stands."""
        return text(self.job or {}, "status", "jobDeploymentStatus")

    @property
    def suspended(self) -> bool:
        """Whether Kueue holds the job back: KubeRay then names a cluster that it will never make, or takes it down."""
        return value(self.job or {}, "spec", "suspend") is True or self.phase in ("Suspending", "Suspended")

    @property
    def attempt_pods(self) -> tuple[Document, ...]:
        """Pods of the attempt that the job belongs to."""
        attempt = labels_of(self.job or {}).get(ATTEMPT_LABEL)
        return tuple(pod for pod in self.pods if labels_of(pod).get(ATTEMPT_LABEL) == attempt)


def progress(ledger: RunLedger, facts: RunFacts, now: datetime) -> RunLedger:
    """The ledger after this observation. The rules, in order:

    1. a finished run stays as it is; a cancelled one finishes;
    2. an open attempt is followed, and closed when it failed, was suspended or was taken away;
    3. otherwise the next attempt opens, or the second part of this one, once nothing of the last job is left and what
       it could not reach had time to come back, until all attempts are used up.
    """
    if ledger.finished:
        return _given_back(ledger, facts, now)
    if facts.cancel:
        answered = {**ledger.answered, CANCEL_ANNOTATION: facts.cancel}
        ledger = ledger.model_copy(update={"cancelled": True, "answered": answered})
        return attempts.finished(ledger, now, state="Failed", reason="Cancelled", message="Cancelled on request.")
    if attempts.is_open(ledger):
        return _follow(ledger, facts, now)
    if facts.run.spec.suspend:
        return ledger
    if attempts.used_up(ledger, facts.run.spec.attempts) and not attempts.is_prepared(ledger):
        return attempts.finished(
            ledger,
            now,
            state="Failed",
            reason="AttemptsExhausted",
            message=f"{ledger.failures[-1]} No attempts are left." if ledger.failures else "No attempts are left.",
        )
    if facts.jobs or attempts.blocking(facts.pods, now):
        return ledger
    if ledger.next_attempt_at is not None and now < ledger.next_attempt_at:
        return ledger
    if attempts.is_prepared(ledger):
        return attempts.continued(ledger, now, queued=facts.queued)
    return attempts.started(ledger, now, queued=facts.queued, part="p" if facts.spec.spec.gpus else "")


def _follow(ledger: RunLedger, facts: RunFacts, now: datetime) -> RunLedger:
    """Follow an open attempt."""
    job = facts.job
    ledger = _held(ledger, facts, now)
    cluster = "" if facts.suspended else text(job or {}, "status", "rayClusterName")
    if cluster and cluster != ledger.cluster and cluster not in ledger.former_clusters:
        return attempts.incarnated(ledger, cluster, now, facts.gpus)
    report = facts.report
    if report is not None and report.data_version and report.data_version != ledger.data_version:
        ledger = ledger.model_copy(update={"data_version": report.data_version})
    if not ledger.killed and (killed := attempts.killed(facts.attempt_pods)):
        ledger = ledger.model_copy(update={"killed": clipped(killed)})
    if report is not None and report.result is not None:
        return _settle(ledger, facts, report.result, now)
    if facts.run.spec.suspend:
        return attempts.closed(ledger, now, facts.gpus, failure=None)
    if job is None:
        if ledger.cluster is None:
            return ledger  # written before the job itself: the plan applies it
        return attempts.closed(ledger, now, facts.gpus, failure="its RayJob is gone.")
    if is_deleting(job):
        return attempts.closed(ledger, now, facts.gpus, failure="its RayJob was deleted.")
    if attempts.active_now(ledger, now) >= RENEWED_AFTER.total_seconds() and secret_awaited(facts, now):
        ledger = attempts.renewed(ledger, now, facts.gpus)
    return _judge(ledger, facts, now)


def _held(ledger: RunLedger, facts: RunFacts, now: datetime) -> RunLedger:
    """What the job held until now, by the times of Kueue or KubeRay: nobody may have looked when they happened."""
    if facts.job is None or is_deleting(facts.job):
        return ledger
    ended = _ended(facts)
    if not facts.quota.reserved:
        return attempts.waiting(ledger, ended or now, facts.gpus)
    if ended is not None:
        return attempts.charged(ledger, ended, facts.gpus)
    since = facts.quota.since
    if since is not None and ledger.active_since is not None and since > ledger.active_since:
        # Evicted and admitted again unseen. The last sign of life is the latest that it surely held quota.
        seen = facts.report.at if facts.report else since
        ledger = attempts.waiting(ledger, min(seen, since), facts.gpus)
    return attempts.admitted(ledger, since or now)


def _ended(facts: RunFacts) -> datetime | None:
    """When the job gave its resources back, where Kueue, or KubeRay without a queue, says so."""
    return facts.quota.ended if facts.queued else moment(text(facts.job or {}, "status", "endTime"))


def _given_back(ledger: RunLedger, facts: RunFacts, now: datetime) -> RunLedger:
    """Charge a finished run for what its last job held until Kueue, or KubeRay without a queue, says that it ended."""
    if ledger.active_since is None:
        return ledger
    if facts.job is None or is_deleting(facts.job):
        return attempts.charged(ledger, now, facts.gpus)
    ended = _ended(facts)
    if ended is None and facts.phase in ENDED and not (facts.queued and facts.quota.reserved):
        ended = now  # with quota, Kueue has yet to say when it ended
    return attempts.charged(ledger, ended, facts.gpus) if ended is not None else ledger


def _judge(ledger: RunLedger, facts: RunFacts, now: datetime) -> RunLedger:
    """Close or finish an attempt whose job went wrong or whose time is up."""
    if facts.phase == "ValidationFailed":
        message = text(facts.job or {}, "status", "message") or "KubeRay refuses the RayJob."
        return attempts.finished(ledger, now, state="Failed", reason="RayJobInvalid", message=message)
    if facts.phase in ENDED:
        if now < result_due(ledger, facts, now):
            return ledger
        told = text(facts.job or {}, "status", "message") or text(facts.job or {}, "status", "reason") or facts.phase
        return attempts.closed(ledger, now, facts.gpus, failure=f"the job ended without a result ({told}).")
    if attempts.active_total(ledger, now) >= facts.run.spec.deadline.total_seconds():
        return attempts.finished(
            ledger,
            now,
            state="Failed",
            reason="DeadlineExceeded",
            message=f"The run used up its deadline. {_not_running(facts)}"
            "Raise spec.deadline in another run, or make it smaller.",
        )
    life = due(ledger, facts, now)
    if life is None or now < life[0]:
        return ledger
    return attempts.closed(ledger, now, facts.gpus, failure=life[1])


def due(ledger: RunLedger, facts: RunFacts, now: datetime) -> tuple[datetime, str] | None:
    """Until when the attempt must show life, and what is said of it if it does not."""
    if ledger.active_since is None or secret_awaited(facts, now):
        return None
    if facts.phase == "Running":
        last = max(ledger.active_since, facts.report.at) if facts.report else ledger.active_since
        return last + HEARTBEAT_WITHIN, f"its driver was silent for {HEARTBEAT_WITHIN}."
    until = ledger.active_since + READY_WITHIN
    why = _why_pods_wait(facts) or "no Pod says why."
    return until, f"the job did not run {READY_WITHIN} after it got its resources: {why}"


def result_due(ledger: RunLedger, facts: RunFacts, now: datetime) -> datetime:
    """Until when a job that ended may have a result."""
    ended = moment(text(facts.job or {}, "status", "endTime")) or ledger.attempt_started_at or now
    return ended + RESULT_WITHIN


def _why_pods_wait(facts: RunFacts) -> str:
    return attempts.trouble(facts.attempt_pods)[1] or attempts.unschedulable(facts.attempt_pods)


def _not_running(facts: RunFacts) -> str:
    """What keeps the job from running, as a sentence of a longer message; empty where it runs."""
    why = "" if facts.phase == "Running" else _why_pods_wait(facts)
    return f"Its job did not run: {why.rstrip('.')}. " if why else ""


def _settle(ledger: RunLedger, facts: RunFacts, result: RunResult, now: datetime) -> RunLedger:
    """Take the driver's word where it fits the project: the report is untrusted."""
    reason = reason_of(result.reason)
    if result.state == "Prepared" and ledger.part == "p":
        return attempts.prepared(ledger, now, facts.gpus)
    if result.state == "Failed":
        if not result.permanent:
            ledger = attempts.closed(ledger, now, facts.gpus, failure=f"{reason}: {result.message}")
            return attempts.paused(ledger, now) if reason in attempts.OUTAGES else ledger
        return attempts.finished(ledger, now, state="Failed", reason=reason, message=result.message)
    version = None
    if result.version and result.digest:
        version = VersionReference(version=result.version, digest=result.digest, run=facts.owner.name)
    if result.state == "Refused":
        failed = [gate for gate in facts.report.gates if gate.verdict == "Failed"] if facts.report else []
        message = "; ".join(f"{gate.name}: {gate.message or gate.value}" for gate in failed) or result.message
        return attempts.finished(
            ledger,
            now,
            state="Refused",
            reason="GateFailed",
            message=message,
            version=version,
            lever_effect=result.lever_effect,
        )
    if fault := _misfit(facts.spec, result):
        return attempts.finished(ledger, now, state="Failed", reason="ReportInvalid", message=fault)
    return attempts.finished(
        ledger,
        now,
        state="Approved",
        reason="Succeeded",
        message=f"Version {result.version} passed all gates.",
        version=version,
        lever_effect=result.lever_effect,
    )


def _misfit(spec: RunSpec, result: RunResult) -> str:
    """Why an approved version must not count, empty if it may."""
    if result.state == "Prepared":
        return "The driver reported that it prepared the data, and was told to train."
    if not result.version or not result.digest or not result.uri:
        return "The driver reported an approved version without its version, digest or uri."
    if result.project_uid != spec.project_uid:
        return f"The reported version belongs to another project ({result.project_uid})."
    if not location_of(spec.data.store.uri).holds(result.uri):
        return f"The reported model lies outside the project's store: {result.uri}."
    return ""


def secret_awaited(facts: RunFacts, now: datetime) -> Fact | None:
    """What a Pod waits for where it waits for a Secret: a person's to create, so no attempt is used up meanwhile."""
    reason, message = attempts.trouble(facts.attempt_pods)
    if reason == "CreateContainerConfigError" and "secret" in message.lower():
        return Fact(
            "SecretMissing", f"{message}. Create the Secret with the keys that the project names; the run goes on."
        )
    unmounted = attempts.unmounted(facts.attempt_pods, now)
    return Fact("VolumesMissing", unmounted) if unmounted else None
