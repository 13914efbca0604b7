"""`drivetrain plan`: what applying manifests would do, cost and wait for, by this person's rights."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from drivetrain.api.documents import Document, labels_of, name_of, text, uid_of
from drivetrain.api.errors import ClusterError, DrivetrainError, ForbiddenError, NotFoundError
from drivetrain.api.kinds import (
    CLUSTER_QUEUE,
    DEPLOYMENT,
    GROUP,
    LOCAL_QUEUE,
    POD,
    RAY_JOB,
    RAY_SERVICE,
    SECRET,
    TRAINING_RUN,
    WORKLOAD,
    WORKLOAD_V1BETA1,
    Kind,
    Ref,
    ref_of,
)
from drivetrain.api.names import OWNER_UID_LABEL, RUN_UID_LABEL
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli import asks, cost, nodes, quota
from drivetrain.cli.asks import Ask, Judgement
from drivetrain.cli.changes import Change, changes
from drivetrain.cli.foreign import CLUSTER_QUEUE_V1BETA1, LOCAL_QUEUE_V1BETA1, NODE
from drivetrain.cli.overlay import MODELS, Overlay, kubectl_patch, patched
from drivetrain.cli.prediction import Prediction, predict
from drivetrain.cli.reader import Permitted, Reader, parsed, understood
from drivetrain.cli.tree import state_of
from drivetrain.cli.validation import validate
from drivetrain.controller.cluster.observation import JOB_UID_LABEL
from drivetrain.controller.manifests.settings import Settings

Resource = DrivetrainProject | TrainingRun | Deployment
_UNREMARKABLE = ("Queued", "Starting", "Running", "Building", "Ending", "Restarting")
"""Reasons of what has just begun: the plan says in other words what it will wait for."""


class Session(Reader, Protocol):
    """What planning needs of a person's session."""

    def apply(self, document: Document, *, dry_run: bool = False) -> Document:
        """Server-side apply; with `dry_run` nothing is stored."""

    def amend(self, patch: Document, *, dry_run: bool = False) -> Document:
        """A JSON merge patch of the object that it names; with `dry_run` nothing is stored."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One object of the manifests."""

    ref: Ref
    exists: bool
    changes: tuple[Change, ...]
    refused: str = ""
    """Why admission refuses it."""


@dataclass(frozen=True, slots=True)
class Priced:
    """What one run or endpoint asks for, whether that is there, and what it costs."""

    ask: Ask
    judged: tuple[Judgement, ...]
    cost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What applying the manifests would do."""

    planned: tuple[Planned, ...]
    prediction: Prediction
    priced: tuple[Priced, ...]
    waits: tuple[str, ...]
    unread: tuple[str, ...]
    """Facts that this person may not read."""
    other: int = 0
    """Documents of other groups, which are not judged."""

    @property
    def possible(self) -> bool:
        """Whether nothing stands against it for good."""
        refused = any(each.refused for each in self.planned)
        return not refused and all(judged.level != "never" for each in self.priced for judged in each.judged)


def planned_documents(files: Sequence[Path], namespace: str) -> tuple[tuple[Document, ...], int]:
    """Our objects of the files with their namespace, and how many others there are.

    Raises DrivetrainError with every fault of the manifests, a line each.
    """
    verdict = validate(files)
    if verdict.problems:
        faults = "\n".join(map(str, (*verdict.unreadable, *verdict.findings)))
        raise DrivetrainError(f"the manifests are not valid.\n{faults}")
    # Through JSON: YAML has dates and keys that are no text, which no API server would ever see.
    read_ = (json.loads(json.dumps(each.content, default=str)) for each in verdict.manifests)
    found = [
        {**each, "metadata": {"namespace": namespace, **each["metadata"]}}
        for each in read_
        if str(each.get("apiVersion", "")).partition("/")[0] == GROUP
    ]
    if not found:
        raise DrivetrainError("there is nothing of ours in these files.", remedy="Name manifests of our kinds.")
    return tuple(found), verdict.other


def forecast(
    session: Session,
    documents: Sequence[Document],
    settings: Settings,
    now: datetime,
    *,
    other: int = 0,
    unread: Sequence[str] = (),
    has_nodes: bool = True,
) -> Forecast:
    """Read what there is, try the manifests by dry run, and let the operator's decisions say what follows.

    `has_nodes` is false where requests are bookkeeping (the environment on this machine).
    """
    overlay = Overlay(session, now)
    planned = tuple(_planned(session, overlay, each) for each in documents)
    with understood("What the operator keeps"):
        prediction = predict(overlay, [each.ref for each in planned], settings)
    permitted = Permitted(session, [*unread, *overlay.unread])
    replaced = {labels_of(each).get(OWNER_UID_LABEL) for each in prediction.created if ref_of(each).kind == RAY_SERVICE}
    survey = _Survey(session, permitted, has_nodes, replaced)
    priced = tuple(survey.priced(each) for each in _working(prediction, {each.ref for each in planned}))
    waits = (*_waits(prediction), *survey.missing_secrets(documents))
    return Forecast(planned, prediction, priced, waits, tuple(permitted.unread), other)


def _planned(session: Session, overlay: Overlay, document: Document) -> Planned:
    ref = ref_of(document)
    model, live = MODELS[ref.kind], overlay.live(ref)
    patch = kubectl_patch(live or {}, document)
    stored: Document = {**(live or {}), **document}
    refused = ""
    try:
        stored = session.apply(document, dry_run=True) if live is None else session.amend(patch, dry_run=True)
    except ForbiddenError as error:
        stored, refused = patched(live or {}, patch), str(error)
    except NotFoundError as error:
        refused = f"{error.message}. {error.remedy}".strip()
    except ClusterError as error:
        if error.status < 400:
            raise
        refused = str(error)
    after = _spec(parsed(model, overlay.put(stored)))
    made = changes(_spec(parsed(model, live)), after) if live is not None else ()
    return Planned(ref, live is not None, made, refused)


def _spec(resource: Resource) -> Document:
    dumped: Document = resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def _working(prediction: Prediction, named: Collection[Ref]) -> Iterator[TrainingRun | Deployment]:
    """Runs that the plan starts or that go on, and endpoints that it names, makes or changes."""
    touched = {*named, *map(ref_of, (*prediction.created, *prediction.changed))}
    for document in prediction.stands:
        ref = ref_of(document)
        if ref in touched and ref.kind == TRAINING_RUN:
            run = parsed(TrainingRun, document)
            if not (run.spec.suspend or cost.is_over(run)):
                yield run
        elif ref in touched and ref.kind == DEPLOYMENT:
            yield parsed(Deployment, document)


def _waits(prediction: Prediction) -> Iterator[str]:
    """What stands in the way by the operator's own words."""
    for document in prediction.stands:
        resource = parsed(MODELS[ref_of(document).kind], document)
        stands = state_of(resource)
        name = f"{resource.kind} {resource.metadata.name}"
        if stands.tone != "good" and stands.message and stands.reason not in _UNREMARKABLE:
            yield f"{name}: {stands.reason}: {stands.message}"
        decision = resource.status.next_decision if isinstance(resource, DrivetrainProject) else None
        if decision is not None and decision.what.startswith(("Retraining", "Approval")):
            yield f"{name}: {decision.what}: {decision.why}"


@dataclass(slots=True)
class _Survey:
    """Reads queues, nodes and Secrets, as far as they may be read."""

    session: Session
    permitted: Permitted
    has_nodes: bool
    replaced: Collection[str | None]
    """Uids of the endpoints that get another cluster, beside which the old one goes on until it serves."""
    _nodes: tuple[tuple[Document, ...] | None, tuple[Document, ...] | None] | None = None

    def priced(self, resource: TrainingRun | Deployment) -> Priced:
        """What it asks for, whether that is there, and what it costs."""
        subject = f"{resource.kind} {resource.metadata.name}"
        if isinstance(resource, Deployment):
            ask = asks.of_serving(subject, resource.spec)
            held = f"{24 * ask.gpus} GPU-hours a day: {ask.gpus} GPUs for as long as it serves"
            return Priced(ask, self._placed(ask, resource), (held if ask.gpus else "0 GPU-hours: it asks for no GPU",))
        ask = asks.of_run(subject, resource.spec)
        judged = (*self._queued(ask, resource), *self._placed(ask, resource))
        return Priced(ask, judged, cost.of_run(ask, resource.spec.deadline, self._earlier(resource)).lines())

    def missing_secrets(self, documents: Sequence[Document]) -> Iterator[str]:
        """The Secrets that the manifests name and that are not there."""
        resources = [MODELS[ref_of(each).kind].parse(each) for each in documents]
        wanted = {(each.metadata.namespace, name): None for each in resources for name in _secrets(each)}
        for namespace, name in wanted:
            if self.permitted.one(Ref(SECRET, namespace, name), f"whether Secret {name} is there") == ():
                yield f"Secret {name} is not in namespace {namespace}: Pods wait until it is"

    def _earlier(self, run: TrainingRun) -> tuple[TrainingRun, ...]:
        own = run.metadata
        found = self.permitted.all(TRAINING_RUN, namespace=own.namespace, what="what earlier runs cost") or ()
        others = [each for each in found if text(each, "spec", "project") == run.spec.project]
        return tuple(parsed(TrainingRun, each) for each in others if name_of(each) != own.name)

    def _queued(self, ask: Ask, run: TrainingRun) -> tuple[Judgement, ...]:
        if ask.queue is None:
            return ()
        name, namespace = ask.queue.name, run.metadata.namespace
        newest = self.session.serves(LOCAL_QUEUE)
        if not newest and not self.session.serves(LOCAL_QUEUE_V1BETA1):
            return (Judgement("unknown", f"queue {name}: Kueue is not installed, so the run starts without it"),)
        local, pool = (LOCAL_QUEUE, CLUSTER_QUEUE) if newest else (LOCAL_QUEUE_V1BETA1, CLUSTER_QUEUE_V1BETA1)
        queues = self.permitted.one(Ref(local, namespace, name))
        if queues is None:
            return (Judgement("unknown", f"queue {name}: you may not read it"),)
        if not queues:
            return (Judgement("never", f"queue {name}: there is no such LocalQueue in namespace {namespace}"),)
        named = text(queues[0], "spec", "clusterQueue")
        pools = self.permitted.one(Ref(pool, "", named))
        if not pools:
            why = "you may not read it" if pools is None else "it does not exist"
            return (Judgement("unknown" if pools is None else "never", f"queue {name}: ClusterQueue {named}: {why}"),)
        cohort = quota.cohort_of(pools[0])
        others = self.permitted.all(pool, namespace="", what=f"cohort {cohort}") if cohort else ()
        sharing = [each for each in others or () if quota.cohort_of(each) == cohort]
        own = self._workloads(run, WORKLOAD if newest else WORKLOAD_V1BETA1)
        return quota.quota(ask, queues[0], pools[0], sharing, own)

    def _workloads(self, run: TrainingRun, kind: Kind) -> tuple[Document, ...]:
        """What Kueue keeps of the run."""
        place, what = run.metadata.namespace, f"what quota {run.metadata.name} holds itself"
        labels = {RUN_UID_LABEL: run.metadata.uid}
        jobs = self.permitted.all(RAY_JOB, labels, namespace=place, what=what) or ()
        found = (self.permitted.all(kind, {JOB_UID_LABEL: uid_of(job)}, namespace=place, what=what) for job in jobs)
        return tuple(each for workloads in found for each in workloads or ())

    def _placed(self, ask: Ask, resource: TrainingRun | Deployment) -> tuple[Judgement, ...]:
        if not self.has_nodes:
            return ()
        if self._nodes is None:
            found = self.permitted.all(NODE, namespace="", what="what nodes there are")
            pods = (
                self.permitted.all(POD, namespace="", what="what is free on the nodes") if found is not None else None
            )
            self._nodes = found, pods
        there, running = self._nodes
        uid = resource.metadata.uid
        if running is not None and uid not in self.replaced:
            running = tuple(each for each in running if labels_of(each).get(OWNER_UID_LABEL) != uid)
        return nodes.nodes(ask, there, running) if there is not None else ()


def _secrets(resource: Resource) -> Iterator[str]:
    """Names of the Secrets without which Pods do not start."""
    if isinstance(resource, DrivetrainProject):
        spec = resource.spec
        yield spec.data.store.credentials.secret_name
        yield from (each.credentials.secret_name for each in spec.data.sources if each.credentials is not None)
        if spec.tracking is not None and spec.tracking.credentials is not None:
            yield spec.tracking.credentials.secret_name
        if spec.serving is not None:
            yield spec.serving.auth.secret_name
    if isinstance(resource, Deployment):
        yield resource.spec.auth.secret_name
