"""What `drivetrain why` goes by: all that the person may read about one object, from every place that keeps it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from drivetrain.api.documents import Document, labels_of, name_of, namespace_of, text, uid_of
from drivetrain.api.dossier import Dossier
from drivetrain.api.errors import DrivetrainError, StoreError
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    POD,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
    WORKLOAD,
    WORKLOAD_V1BETA1,
    Kind,
    Ref,
)
from drivetrain.api.layout import attempt as attempt_key
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.names import ATTEMPT_LABEL, OWNER_UID_LABEL, RUN_UID_LABEL, ledger_name, spec_name
from drivetrain.api.v1alpha1.dataset import Store
from drivetrain.api.v1alpha1.deployment import Deployment
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.api.v1alpha1.trainingrun import TrainingRun
from drivetrain.cli.reader import Permitted, Reader, parsed, understood
from drivetrain.controller.core import records
from drivetrain.store import ObjectStore

PODS_ASKED = 10
"""Of a large cluster, events of so many Pods: what keeps one from starting keeps the others too."""
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
OpenStore = Callable[[Store, str], ObjectStore]
"""Opens a project's store with the keys of a namespace. Raises StoreError."""

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("dtp", "drivetrainproject", "drivetrainprojects", "project"), DRIVETRAIN_PROJECT),
    **dict.fromkeys(("dtr", "trainingrun", "trainingruns", "run"), TRAINING_RUN),
    **dict.fromkeys(("dtd", "drivetraindeployment", "drivetraindeployments", "deployment"), DEPLOYMENT),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A dossier and where it lies."""

    uri: str
    dossier: Dossier


@dataclass(frozen=True, slots=True)
class Case:
    """Everything about one object."""

    subject: DrivetrainProject | TrainingRun | Deployment
    ledger: ProjectLedger | RunLedger | DeploymentLedger | None = None
    children: tuple[Document, ...] = ()
    """RayJobs or RayServices."""
    pods: tuple[Document, ...] = ()
    workloads: tuple[Document, ...] = ()
    events: tuple[Document, ...] = ()
    """About the object, its children, Workloads and Pods."""
    kept: Kept | None = None
    unread: tuple[str, ...] = ()
    """What could not be read, and why."""


def subjects(reader: Reader, name: str) -> tuple[Document, ...]:
    """The objects that a person means by NAME, or by KIND/NAME. Raises DrivetrainError when there is none."""
    written, slash, rest = name.partition("/")
    kinds: Iterable[Kind] = (DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT)
    if slash:
        kind = _KINDS.get(written.lower())
        if kind is None:
            raise DrivetrainError(f"{written} is no kind of ours.", remedy="Use dtp/NAME, dtr/NAME or dtd/NAME.")
        kinds, name = (kind,), rest
    found = [document for kind in kinds if (document := reader.get(Ref(kind, reader.namespace, name))) is not None]
    if not found:
        known = sorted({name_of(each) for kind in kinds for each in reader.list(kind)})
        raise DrivetrainError(
            f"Nothing of ours is called {name} in namespace {reader.namespace}.",
            remedy=f"There are: {', '.join(known) or 'none'}.",
        )
    return tuple(found)


def investigate(reader: Reader, subject: Document, open_store: OpenStore) -> Case:
    """Read everything about one object that this person may read."""
    with understood(f"What is kept about {text(subject, 'kind')} {name_of(subject)}"):
        return _Inquiry(Permitted(reader), namespace_of(subject), open_store).of(subject)


@dataclass(frozen=True, slots=True)
class _Inquiry:
    permitted: Permitted
    namespace: str
    open_store: OpenStore

    @property
    def unread(self) -> list[str]:
        return self.permitted.unread

    def of(self, subject: Document) -> Case:
        kind = text(subject, "kind")
        if kind == TRAINING_RUN.kind:
            return self._run(parsed(TrainingRun, subject))
        if kind == DEPLOYMENT.kind:
            return self._deployment(parsed(Deployment, subject))
        project = parsed(DrivetrainProject, subject)
        ledger = records.ledger(ProjectLedger, self._record(ledger_name(kind, project.metadata.name)))
        return Case(project, ledger, events=self._events([subject]), unread=tuple(self.unread))

    def _run(self, run: TrainingRun) -> Case:
        uid, name = run.metadata.uid, run.metadata.name
        ledger = records.ledger(RunLedger, self._record(ledger_name(TRAINING_RUN.kind, name)))
        jobs = self._list(RAY_JOB, {RUN_UID_LABEL: uid})
        pods = self._list(POD, {RUN_UID_LABEL: uid})
        newest = max((int(labels_of(pod).get(ATTEMPT_LABEL, "0")) for pod in pods), default=0)
        pods = tuple(pod for pod in pods if labels_of(pod).get(ATTEMPT_LABEL) == str(newest))
        workloads = self._workloads(jobs) if run.spec.queue else ()
        about = [{"metadata": {"uid": uid}}, *jobs, *workloads, *pods[:PODS_ASKED]]
        return Case(
            run,
            ledger,
            jobs,
            pods,
            workloads,
            self._events(about),
            self._dossier(run, ledger),
            tuple(self.unread),
        )

    def _deployment(self, deployment: Deployment) -> Case:
        uid, name = deployment.metadata.uid, deployment.metadata.name
        ledger = records.ledger(DeploymentLedger, self._record(ledger_name(DEPLOYMENT.kind, name)))
        services = self._list(RAY_SERVICE, {OWNER_UID_LABEL: uid})
        pods = self._list(POD, {OWNER_UID_LABEL: uid})
        about = [{"metadata": {"uid": uid}}, *services, *pods[:PODS_ASKED]]
        return Case(deployment, ledger, services, pods, (), self._events(about), None, tuple(self.unread))

    def _workloads(self, jobs: tuple[Document, ...]) -> tuple[Document, ...]:
        kind = WORKLOAD if self.permitted.reader.serves(WORKLOAD) else WORKLOAD_V1BETA1
        return tuple(found for job in jobs for found in self._list(kind, {JOB_UID_LABEL: uid_of(job)}))

    def _dossier(self, run: TrainingRun, ledger: RunLedger) -> Kept | None:
        """What the newest attempt left on S3; asked for only where something went wrong."""
        failed = bool(ledger.failures) or ledger.finished == "Failed"
        if not failed or not ledger.attempt:
            return None
        spec = records.run_spec(self._record(spec_name(run.metadata.name)))
        if spec is None:
            return None
        try:
            store = self.open_store(spec.data.store, self.namespace)
            return newest_dossier(store, run.metadata.uid, ledger.attempt)
        except StoreError as error:
            self.unread.append(f"the dossier: {error}")
            return None

    def _record(self, name: str) -> Document | None:
        found = self.permitted.one(Ref(CONFIG_MAP, self.namespace, name))
        return found[0] if found else None

    def _list(self, kind: Kind, labels: dict[str, str]) -> tuple[Document, ...]:
        return self.permitted.all(kind, labels, namespace=self.namespace) or ()

    def _events(self, about: Iterable[Document]) -> tuple[Document, ...]:
        return tuple(found for each in about for found in self.permitted.events(self.namespace, uid_of(each)))


def newest_dossier(store: ObjectStore, run_uid: str, attempts: int) -> Kept | None:
    """The last dossier of a run's newest attempt that has one. Raises StoreError."""
    for number in range(attempts, 0, -1):
        found = sorted(store.list(f"{attempt_key(run_uid, number)}/dossier/"), key=lambda info: info.modified)
        if found:
            return Kept(store.uri(found[-1].key), Dossier.model_validate_json(store.get(found[-1].key)))
    return None
