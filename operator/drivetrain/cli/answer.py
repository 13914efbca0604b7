"""`drivetrain why`: what an object waits for or why it failed, joined from all places that keep a part of it. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from rich.text import Text

from drivetrain.api.documents import Document, documents, integer, mapping, name_of, text
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.inquiry import Case, Kept
from drivetrain.cli.tree import run_state, state_of
from drivetrain.cli.wording import STYLES, Standing, Tone, ago, number, until
from drivetrain.controller.core import applications

EVENTS_SHOWN = 8
LOG_LINES_SHOWN = 15

NEXT: Mapping[str, str] = {
    "InvalidSpec": "drivetrain validate FILE",
    "Queued": "drivetrain plan FILE says what fits",
    "KubeRayMissing": "drivetrain doctor",
    "ChildForbidden": "drivetrain doctor",
    "NamespaceNotEnabled": "kubectl label namespace {namespace} drivetrain.dev/enabled=true",
    "SecretMissing": "kubectl get secrets -n {namespace}",
    "Suspended": 'kubectl patch dtr {name} -n {namespace} --type merge -p \'{{"spec":{{"suspend":false}}}}\'',
    "Paused": "drivetrain resume {name} -n {namespace}",
    "AwaitingApproval": "drivetrain approve {name} -n {namespace}",
    "RejectedInARow": "drivetrain retrain {project} -n {namespace}",
    "CandidateRejected": "drivetrain retry {name} -n {namespace} rolls it out once more",
    "AttemptsExhausted": "drivetrain logs {name} -n {namespace}, then drivetrain retrain {project} -n {namespace}",
    "DeadlineExceeded": "drivetrain logs {name} -n {namespace}, then drivetrain retrain {project} -n {namespace}",
    "Failed": "drivetrain logs {name} -n {namespace}",
    "ServeApplicationFailed": "drivetrain logs {name} -n {namespace}",
    "ClusterNotReady": "drivetrain logs {name} -n {namespace}",
    "MonitorSilent": "drivetrain logs {name} -n {namespace}",
    "MonitorFailed": "drivetrain logs {name} -n {namespace}",
}
"""What to do about a reason, where the message does not say it all."""


@dataclass(frozen=True, slots=True)
class Line:
    """One fact and where it is kept."""

    source: str
    told: str
    tone: Tone | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Why an object stands as it does."""

    head: str
    tone: Tone
    why: str
    lines: tuple[Line, ...]
    next: str = ""

    def text(self) -> Text:
        """For a terminal or a file."""
        answer = Text(self.head, style=f"bold {STYLES[self.tone]}")
        if self.why:
            answer.append(Text(f"\n{self.why}", style="not bold default"))
        width = max((len(line.source) for line in self.lines), default=0)
        for line in self.lines:
            style = STYLES[line.tone] if line.tone else "default"
            rows = line.told.splitlines() or [""]
            for index, row in enumerate(rows):
                label = line.source if index == 0 else ""
                answer.append(Text(f"\n  {label:{width}}  ", style="not bold dim"))
                answer.append(Text(row, style=f"not bold {style}"))
        if self.next:
            answer.append(Text("\n  next: ", style="not bold dim"))
            answer.append(Text(self.next, style="not bold"))
        return answer


def answer(case: Case, now: datetime) -> Answer:
    """Why the object of this case waits, failed, or stands well."""
    subject = case.subject
    stands = run_state(subject) if isinstance(subject, TrainingRun) else state_of(subject)
    why = _why(case, stands)
    lines = (*_own(case, why, now), *_children(case), *_pods(case.pods), *_events(case, now), *_kept(case.kept))
    unread = tuple(Line("not read", told, "quiet") for told in case.unread)
    reason = state_of(subject).reason
    return Answer(
        head=f"{subject.kind} {subject.metadata.name}: {_word(stands)}",
        tone=stands.tone,
        why=why,
        lines=(*(line for line in lines if line.told and line.told != why), *unread),
        next=_next(subject, reason) if stands.tone != "good" else "",
    )


def _word(stands: Standing) -> str:
    waits = {"Reconciling": "is under way", "Stalled": "needs somebody", "Unseen": "was not looked at yet"}
    told = waits.get(stands.word, stands.word)
    return f"{told} ({stands.reason})" if stands.reason and stands.reason != stands.word else told


def _why(case: Case, stands: Standing) -> str:
    """The one sentence that matters most."""
    match case.subject:
        case TrainingRun() as run:
            return run.status.why or stands.message
        case Deployment() as deployment:
            return deployment.status.why or stands.message
        case DrivetrainProject() as project:
            decision = project.status.next_decision
            if stands.tone == "good" and decision is not None:
                return f"{decision.what}. {decision.why}".strip()
            return stands.message
        case _:
            assert_never(case.subject)


def _next(subject: DrivetrainProject | TrainingRun | Deployment, reason: str) -> str:
    known = NEXT.get(reason, "")
    project = subject.spec.project if isinstance(subject, TrainingRun | Deployment) else subject.metadata.name
    return known.format(name=subject.metadata.name, namespace=subject.metadata.namespace, project=project)


def _own(case: Case, why: str, now: datetime) -> Iterator[Line]:
    """What status and ledger say beyond the sentence."""
    for condition in case.subject.status.conditions:
        if condition.type not in ("Ready", "Complete", "Failed"):
            since = f" for {ago(condition.last_transition_time, now)}" if condition.last_transition_time else ""
            more = f": {condition.message}" if condition.message and condition.message != why else ""
            yield Line("status", f"{condition.type}={condition.status} {condition.reason}{since}{more}")
    match case.ledger:
        case RunLedger() as ledger:
            yield from _of_run(ledger, case.subject, why, now)
        case ProjectLedger() as ledger:
            yield from _of_project(ledger, case.subject, now)
        case DeploymentLedger() as ledger:
            yield from _of_deployment(ledger, case.subject, now)
        case None:
            return


def _of_run(ledger: RunLedger, run: object, why: str, now: datetime) -> Iterator[Line]:
    assert isinstance(run, TrainingRun)
    if ledger.attempt:
        used = f"{ledger.attempt - ledger.uncounted} of {run.spec.attempts} attempts used"
        told = f"attempt {ledger.attempt}, {used}"
        if ledger.incarnation > 1:
            told += f"; its cluster was made {ledger.incarnation} times"
        if ledger.gpu_seconds:
            told += f"; {number(ledger.gpu_seconds / 3600)} GPU-hours"
        yield Line("ledger", told)
    for failure in ledger.failures:
        yield Line("ledger", failure, "bad")
    if ledger.finished_at is not None:
        more = "" if ledger.message == why else f" {ledger.message}"
        yield Line("ledger", f"{ledger.finished} {ago(ledger.finished_at, now)} ago: {ledger.reason}{more}")
    for gate in run.status.gates:
        if gate.verdict != "Passed":
            tone: Tone | None = "bad" if gate.verdict == "Failed" else None
            yield Line("gate", f"{gate.name} {gate.verdict}: {gate.message or gate.value}", tone)


def _of_project(ledger: ProjectLedger, project: object, now: datetime) -> Iterator[Line]:
    assert isinstance(project, DrivetrainProject)
    if (decision := project.status.next_decision) is not None:
        when = f", not before {until(decision.not_before, now)}" if decision.not_before else ""
        yield Line("next", f"{decision.what}{when}: {decision.why}")
    if ledger.approved is not None:
        yield Line("ledger", f"version {ledger.approved.version} of {ledger.approved.run} may be rolled out")
    if ledger.rejected_in_a_row:
        allowed = project.spec.loop.stop_after_rejected
        yield Line("ledger", f"{ledger.rejected_in_a_row} of {allowed} candidates in a row rejected", "bad")
    for run in ledger.runs[:3]:
        became = run.verdict or run.finished or "under way"
        yield Line("ledger", f"{run.name}, {ago(run.at, now)} ago for {run.cause}: {became}")


def _of_deployment(ledger: DeploymentLedger, deployment: object, now: datetime) -> Iterator[Line]:
    assert isinstance(deployment, Deployment)
    if ledger.candidate is not None:
        entered = ledger.candidate.step_entered_at
        told = f"rollout {ledger.candidate.rollout} since {ago(ledger.candidate.since, now)}, {ledger.candidate.phase}"
        yield Line("ledger", f"{told}, at this step for {ago(entered, now)}" if entered else told)
    if (analysis := deployment.status.analysis) is not None:
        for each in analysis.intervals:
            bounds = f"{number(each.estimate)} in [{number(each.lower)}, {number(each.upper)}]"
            compared = "candidate minus stable" if each.bound is None else f"{each.bound:g}, candidate"
            yield Line("evidence", f"{each.metric}: {compared} {bounds}, {each.verdict}")
        yield Line("evidence", analysis.message)
    for rejected in ledger.rejected[:3]:
        told = f"rejected {rejected.version or rejected.hash[:8]}, {ago(rejected.at, now)} ago: {rejected.reason}."
        yield Line("ledger", f"{told} {rejected.message}", "bad")
    if ledger.pending_revision is not None:
        yield Line("ledger", f"another cluster is coming up, for {ago(ledger.pending_since, now)}")


def _children(case: Case) -> Iterator[Line]:
    for workload in case.workloads:
        yield Line("Kueue", f"{name_of(workload)}: {_verdict(workload)}")
    for child in case.children:
        kind, name = text(child, "kind"), name_of(child)
        if kind == "RayService":
            told = applications.progress(child)
            yield Line("KubeRay", f"{name}: {told}" if told else "", "busy")
            continue
        phase = text(child, "status", "jobDeploymentStatus") or "not seen by KubeRay yet"
        message = text(child, "status", "message") or text(child, "status", "reason")
        job = text(child, "status", "jobStatus")
        yield Line("KubeRay", f"{name}: {' '.join(part for part in (phase, job, message) if part)}")


def _verdict(workload: Document) -> str:
    """Kueue's own words: why it was evicted, else whether it has quota."""
    found = {text(each, "type"): each for each in documents(workload, "status", "conditions")}
    for type_ in ("Finished", "Evicted", "Admitted", "QuotaReserved"):
        each = found.get(type_, {})
        if text(each, "status") == "True" or (each and type_ == "QuotaReserved"):
            return f"{type_}={text(each, 'status')} {text(each, 'reason')}: {text(each, 'message')}"
    return "not looked at yet"


def _pods(pods: tuple[Document, ...]) -> Iterator[Line]:
    for pod in sorted(pods, key=name_of):
        if (told := pod_trouble(pod)) and not text(pod, "metadata", "deletionTimestamp"):
            yield Line("Pod", f"{name_of(pod)}: {told}", "bad")


def pod_trouble(pod: Document) -> str:
    """What keeps a Pod from working, or what ended it; empty where nothing does."""
    told: list[str] = []
    for each in documents(pod, "status", "conditions"):
        if (text(each, "type"), text(each, "status")) == ("PodScheduled", "False"):
            told.append(f"{text(each, 'reason')}: {text(each, 'message')}")
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in documents(pod, "status", key):
            told += _container(status)
    if text(pod, "status", "reason"):  # Evicted, NodeLost
        told.append(f"{text(pod, 'status', 'reason')}: {text(pod, 'status', 'message')}")
    return "; ".join(told)


def _container(status: Document) -> Iterator[str]:
    name = text(status, "name")
    if (reason := text(status, "state", "waiting", "reason")) and reason not in (
        "ContainerCreating",
        "PodInitializing",
    ):
        yield f"{name} waits: {reason} {text(status, 'state', 'waiting', 'message')}".rstrip()
    for when in ("state", "lastState"):
        ended = mapping(status, when, "terminated")
        code = integer(ended, "exitCode")
        if code:
            restarts = f", restarted {integer(status, 'restartCount')} times" if when == "lastState" else ""
            yield f"{name} ended with exit code {code} ({text(ended, 'reason') or 'Error'}){restarts}"


def _events(case: Case, now: datetime) -> Iterator[Line]:
    """The newest warnings, and of what is normal only what is about the object itself."""
    uid = case.subject.metadata.uid
    told = [each for each in case.events if text(each, "type") == "Warning" or text(each, "regarding", "uid") == uid]
    newest = sorted(told, key=_when, reverse=True)[:EVENTS_SHOWN]
    for event in reversed(newest):
        when = _moment(_when(event))
        count = integer(event, "series", "count") or integer(event, "deprecatedCount")
        times = f" (x{count})" if count > 1 else ""
        about = f"{text(event, 'regarding', 'kind')} {text(event, 'regarding', 'name')}"
        since = f"{ago(when, now)} ago" if when else ""
        own = text(event, "regarding", "uid") == uid
        yield Line(
            "event",
            f"{since}{times} {'' if own else f'{about}: '}{text(event, 'reason')}: {text(event, 'note')}".strip(),
            "bad" if text(event, "type") == "Warning" else None,
        )


def _when(event: Document) -> str:
    last = text(event, "series", "lastObservedTime") or text(event, "deprecatedLastTimestamp")
    return last or text(event, "eventTime") or text(event, "metadata", "creationTimestamp")


def _moment(written: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _kept(kept: Kept | None) -> Iterator[Line]:
    if kept is None:
        return
    dossier = kept.dossier
    yield Line("dossier", f"{kept.uri}: {dossier.ended} {dossier.message}".rstrip())
    if dossier.job is not None and (dossier.job.error_type or dossier.job.driver_exit_code):
        code = f", exit code {dossier.job.driver_exit_code}" if dossier.job.driver_exit_code is not None else ""
        yield Line("dossier", f"Ray: {dossier.job.status} {dossier.job.error_type}{code}", "bad")
    if dossier.trials_done:
        yield Line("dossier", f"{dossier.trials_done} trials were done")
    lines = [line for line in dossier.log.splitlines() if line.strip()][-LOG_LINES_SHOWN:]
    if lines:
        yield Line("driver log", "\n".join(lines))
