"""One controller at a time over a fake cluster: the test plays everybody else and says what time it is."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import BaseModel

from drivetrain.api.canonical import canonical_json
from drivetrain.api.documents import JSON, Document, documents, mapping, name_of, text, texts, uid_of
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
    WORKLOAD,
    Kind,
    Ref,
)
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.names import (
    ATTEMPT_LABEL,
    LEDGER_KEY,
    OWNER_UID_LABEL,
    RUN_UID_LABEL,
    ledger_name,
    ray_job_name,
    report_name,
)
from drivetrain.api.report import ServingReport, TrainingReport
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.handlers.runtime import bind
from drivetrain.controller.manifests.settings import Settings
from tests.support.builders import a_project, a_run
from tests.support.fake_cluster import FakeCluster
from tests.support.operator_world import finish

M = TypeVar("M", bound=BaseModel)
SETTINGS = Settings(ray_image="example.org/ray:1", ray_version="2.60.0", mlflow_url="http://mlflow:5000")
NAMESPACE = "default"


class Bench:
    """A cluster with one project in it, and three controllers that run when told."""

    def __init__(self, *, project: Document | None = None, settings: Settings = SETTINGS) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.cluster = FakeCluster(now=lambda: self.now)
        bound = (bind(TrainingRuns(settings, WORKLOAD)), bind(Deployments(settings)), bind(Projects(settings)))
        self._bound = {each.kind: each for each in bound}
        self.cluster.put(a_project().document() if project is None else project)

    def pass_time(self, **length: float) -> None:
        """Let time pass."""
        self.now += timedelta(**length)

    def reconcile(self, kind: Kind, name: str) -> timedelta | None:
        """Reconcile one object until nothing changes; return when it wants to be looked at again."""
        for _ in range(10):
            before = self.cluster.resource_version
            done = finish(self._bound[kind].reconcile(self.cluster, Ref(kind, NAMESPACE, name), self.now, "bench"))
            if self.cluster.resource_version == before:
                return done.wake_after
        raise AssertionError(f"{kind} {name} never settles")

    def read(self, kind: Kind, name: str) -> Document:
        """An object as stored; empty if there is none."""
        return self.cluster.read(Ref(kind, NAMESPACE, name)) or {}

    def edit(self, kind: Kind, name: str, **spec: JSON) -> None:
        """Replace fields of a spec."""
        live = self.read(kind, name)
        self.cluster.put({**live, "spec": {**mapping(live, "spec"), **spec}})

    def annotate(self, kind: Kind, name: str, **values: str) -> None:
        """Set annotations of ours."""
        live = self.read(kind, name)
        metadata = mapping(live, "metadata")
        given = {f"drivetrain.dev/{key.replace('_', '-')}": value for key, value in values.items()}
        annotations: dict[str, JSON] = {**mapping(metadata, "annotations"), **given}
        self.cluster.put({**live, "metadata": {**metadata, "annotations": annotations}})

    def condition(self, kind: Kind, name: str, type_: str) -> tuple[str, str, str] | None:
        """(status, reason, message) of a condition, None if there is none of that type."""
        for each in documents(self.read(kind, name), "status", "conditions"):
            if text(each, "type") == type_:
                return text(each, "status"), text(each, "reason"), text(each, "message")
        return None

    def ledger(self, model: type[M], kind: Kind, name: str) -> M:
        """A ledger as stored."""
        found = texts(self.read(CONFIG_MAP, ledger_name(kind.kind, name)), "data").get(LEDGER_KEY, "{}")
        return model.model_validate_json(found)

    def write_ledger(self, kind: Kind, name: str, content: BaseModel) -> None:
        """Put a ledger there as if another controller had written it; it keeps its owner."""
        named = ledger_name(kind.kind, name)
        metadata = mapping(self.read(CONFIG_MAP, named), "metadata") or {"name": named, "namespace": NAMESPACE}
        self.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {LEDGER_KEY: canonical_json(content)},
            }
        )

    def write_report(self, kind: Kind, name: str, cluster: str, content: TrainingReport | ServingReport) -> None:
        """Write one key of a report."""
        live = self.read(CONFIG_MAP, report_name(kind.kind, name))
        self.cluster.put({**live, "data": {**mapping(live, "data"), cluster: canonical_json(content)}}, cluster)

    def set_status(self, kind: Kind, name: str, **status: JSON) -> None:
        """Set the status of an object of KubeRay or Kueue."""
        self.cluster.put_status({**self.read(kind, name), "status": dict(status)}, "kuberay")

    def events(self) -> list[str]:
        """Reasons of the events so far, in order."""
        found = [each for each in self.cluster.everything() if text(each, "kind") == "Event"]
        return [text(each, "reason") for each in found]


class RunBench(Bench):
    """A bench with the run `shop-1`."""

    def __init__(self, *, settings: Settings = SETTINGS, **spec: JSON) -> None:
        super().__init__(settings=settings)
        document = a_run().document()
        self.cluster.put({**document, "spec": {**document["spec"], **spec}})

    def look(self) -> timedelta | None:
        """Reconcile the run."""
        return self.reconcile(TRAINING_RUN, "shop-1")

    @property
    def record(self) -> RunLedger:
        """The run's ledger."""
        return self.ledger(RunLedger, TRAINING_RUN, "shop-1")

    def said(self, type_: str) -> tuple[str, str, str] | None:
        """A condition of the run."""
        return self.condition(TRAINING_RUN, "shop-1", type_)

    def job(self, phase: str, cluster: str = "", attempt: int = 1, part: str = "", **status: JSON) -> None:
        """Move the RayJob of an attempt."""
        named = cluster or f"shop-1-a{attempt}{part}-x"
        self.set_status(
            RAY_JOB,
            ray_job_name("shop-1", attempt, part),
            jobDeploymentStatus=phase,
            rayClusterName=named,
            **status,
        )

    def pod(self, name: str, attempt: int = 1, **parts: JSON) -> None:
        """A Pod of an attempt."""
        uid = uid_of(self.read(TRAINING_RUN, "shop-1"))
        labels: dict[str, JSON] = {RUN_UID_LABEL: uid, ATTEMPT_LABEL: str(attempt)}
        metadata: dict[str, JSON] = {"name": name, "namespace": NAMESPACE, "labels": labels}
        added = parts.pop("metadata", {})
        assert isinstance(added, dict)
        self.cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, **added}, **parts})

    def drop(self, kind: Kind, name: str) -> None:
        """Remove an object."""
        self.cluster.remove(Ref(kind, NAMESPACE, name))

    def tell(self, cluster: str = "", attempt: int = 1, incarnation: int = 1, **parts: object) -> None:
        """A driver's report."""
        report = TrainingReport.model_validate(
            {"attempt": attempt, "incarnation": incarnation, "sequence": 1, "at": self.now, **parts}
        )
        self.write_report(TRAINING_RUN, "shop-1", cluster or f"shop-1-a{attempt}-x", report)

    def running(self) -> None:
        """Start, and let the first attempt run."""
        self.look()
        self.job("Running")
        self.look()


class ServingBench(Bench):
    """A bench with the Deployment `shop`, whose cluster is up."""

    def __init__(
        self,
        document: Document,
        *,
        project: Document | None = None,
        admission: Callable[[Document], Document] = lambda document: document,
    ) -> None:
        super().__init__(project=project)
        self.cluster.admission = admission
        self.cluster.put(document)
        self.look()

    def look(self) -> timedelta | None:
        """Reconcile the Deployment."""
        return self.reconcile(DEPLOYMENT, "shop")

    @property
    def record(self) -> DeploymentLedger:
        """The Deployment's ledger."""
        return self.ledger(DeploymentLedger, DEPLOYMENT, "shop")

    def said(self, type_: str) -> tuple[str, str, str] | None:
        """A condition of the Deployment."""
        return self.condition(DEPLOYMENT, "shop", type_)

    def services(self) -> tuple[Document, ...]:
        """Its RayServices."""
        uid = uid_of(self.read(DEPLOYMENT, "shop"))
        return self.cluster.find(RAY_SERVICE, NAMESPACE, {OWNER_UID_LABEL: uid})

    def up(self) -> None:
        """Let every RayService become ready."""
        for each in self.services():
            self.set_status(
                RAY_SERVICE,
                name_of(each),
                activeServiceStatus={"rayClusterName": f"{name_of(each)}-c"},
                conditions=[{"type": "Ready", "status": "True"}],
            )
        self.look()

    def tell(self, service: Document | None = None, **parts: object) -> None:
        """The Monitor's report, from the given RayService or the only one."""
        named = name_of(service or self.services()[0])
        report = ServingReport.model_validate({"sequence": 1, "at": self.now, "replicas": 1, **parts})
        self.write_report(DEPLOYMENT, "shop", f"{named}-c", report)
        self.look()

    def approve(self, ledger: ProjectLedger) -> None:
        """Let the project's ledger say what may be rolled out."""
        self.write_ledger(DRIVETRAIN_PROJECT, "shop", ledger)
        self.look()
