"""Reading what decisions are made from: every reconcile reads its live objects, by name or by a consistent list."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Generic, TypeVar

from drivetrain.api.documents import Document, labels_of, name_of, text, uid_of
from drivetrain.api.errors import ForbiddenError, NotFoundError, RejectedError, UnavailableError
from drivetrain.api.kinds import (
    CLUSTER_QUEUE,
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    LOCAL_QUEUE,
    NETWORK_POLICY,
    PENDING_WORKLOADS,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    TRAINING_RUN,
    Kind,
    Ref,
    ref_of,
)
from drivetrain.api.ledger import DeploymentLedger, ProjectLedger, RunLedger
from drivetrain.api.names import (
    OWNER_UID_LABEL,
    QUEUE_LABEL,
    RUN_UID_LABEL,
    account_name,
    ledger_name,
    policies_name,
    report_name,
)
from drivetrain.api.v1alpha1.training import Queue
from drivetrain.controller.cluster.port import Cluster
from drivetrain.controller.core import approvals, deployment, project, records, training_run
from drivetrain.controller.core.observations import DeploymentObserved, ProjectObserved, RunObserved
from drivetrain.controller.core.plan import Observed, Plan
from drivetrain.controller.core.policies import champion_of
from drivetrain.controller.core.queueing import Line
from drivetrain.controller.core.seniority import eldest
from drivetrain.controller.manifests.metadata import Owner
from drivetrain.controller.manifests.ray_service import is_suspended, queue_probe
from drivetrain.controller.manifests.settings import Settings

JOB_UID_LABEL = training_run.JOB_UID_LABEL
O = TypeVar("O", bound=Observed)  # noqa: E741 - an observation


@dataclass(frozen=True, slots=True)
class _Controller(ABC, Generic[O]):
    """How the resources of one kind are run."""

    settings: Settings
    kind: ClassVar[Kind]

    async def observe(self, cluster: Cluster, ref: Ref) -> O | None:
        """Read the object and everything that a decision about it needs; None if it does not exist."""
        owner = await cluster.get(ref)
        return None if owner is None else await self._around(cluster, owner, ref)

    @abstractmethod
    async def _around(self, cluster: Cluster, owner: Document, ref: Ref) -> O:
        """Read the surroundings of an object."""

    @abstractmethod
    def decide(self, observed: O, now: datetime) -> Plan:
        """Return what to do: synchronous, total, pure."""


@dataclass(frozen=True, slots=True)
class TrainingRuns(_Controller[RunObserved]):
    """How TrainingRuns are run."""

    workload: Kind | None
    """Kueue's Workload in the version that the API server serves; None without Kueue."""
    kind = TRAINING_RUN

    @property
    def watched(self) -> tuple[Kind, ...]:
        """The kinds whose changes may matter for a decision."""
        return (TRAINING_RUN, CONFIG_MAP, RAY_JOB, POD, *((self.workload,) if self.workload else ()))

    async def _around(self, cluster: Cluster, owner: Document, ref: Ref) -> RunObserved:
        """Jobs are read before Pods before the report, so that what an ended job wrote is never missed.

        A run that is over is only looked back at: it needs neither quota nor rights nor its project, and its Pods only
        where keys of former clusters are to be emptied once they are gone.
        """
        uid, namespace, refs = uid_of(owner), ref.namespace, training_run.refs_of(owner)
        live = await _read(cluster, (refs.ledger, refs.spec))
        ledger, fresh = records.ledger(RunLedger, live.get(refs.ledger)), refs.spec not in live
        over = bool(ledger.finished)
        jobs, kuberay = await _of_kuberay(cluster, RAY_JOB, namespace, {RUN_UID_LABEL: uid})
        pods: tuple[Document, ...] = ()
        if not over or ledger.former_clusters:
            pods = (await cluster.list(POD, namespace, {RUN_UID_LABEL: uid})).items
        workloads: tuple[Document, ...] = ()
        queue, settled = text(owner, "spec", "queue", "name"), over and ledger.active_since is None
        if self.workload is not None and queue and not settled:
            for job in jobs:
                workloads += (await cluster.list(self.workload, namespace, {JOB_UID_LABEL: uid_of(job)})).items
        live |= await _read(cluster, (refs.report, *(() if over else _rights(ref))))
        parent = text(owner, "spec", "project")
        asked = bool(parent) and (fresh or not over)
        return RunObserved(
            owner=owner,
            live={**live, **_by_ref(jobs), ref: owner},
            project=await cluster.get(Ref(DRIVETRAIN_PROJECT, namespace, parent)) if asked else None,
            champion_ledger=await _champion_ledger(cluster, namespace, parent) if parent and fresh else None,
            ray_jobs=jobs,
            kuberay=kuberay,
            pods=pods,
            workloads=workloads,
            kueue=self.workload is not None,
            line=await _line(cluster, namespace, queue, waits=any(map(_waits, workloads))) if queue else None,
        )

    def decide(self, observed: RunObserved, now: datetime) -> Plan:
        """Return what to do: synchronous, total, pure."""
        return training_run.decide(observed, now, self.settings)


class Deployments(_Controller[DeploymentObserved]):
    """How Deployments are run."""

    kind = DEPLOYMENT
    watched = (DEPLOYMENT, DRIVETRAIN_PROJECT, CONFIG_MAP, RAY_SERVICE, POD)

    async def _around(self, cluster: Cluster, owner: Document, ref: Ref) -> DeploymentObserved:
        """Its children, and the project whose policies it serves."""
        uid, namespace, refs = uid_of(owner), ref.namespace, deployment.refs_of(owner)
        named, pinned = text(owner, "spec", "project"), text(owner, "spec", "model", "name")
        parent = named or pinned
        services, kuberay = await _of_kuberay(cluster, RAY_SERVICE, namespace, {OWNER_UID_LABEL: uid})
        pods = (await cluster.list(POD, namespace, {OWNER_UID_LABEL: uid})).items
        policies, service = Ref(CONFIG_MAP, namespace, policies_name(ref.name)), Ref(SERVICE, namespace, ref.name)
        live = await _read(cluster, (refs.ledger, refs.report, policies, *_rights(ref), service))
        rays = (Ref(RAY_CLUSTER, namespace, name) for each in services for name in records.clusters_of(each))
        live |= await _read(cluster, rays)
        rivals = await _naming(cluster, DEPLOYMENT, namespace, named) if named else (owner,)
        ledgers: Mapping[str, Document] = {}
        if pinned:
            runs = await _naming(cluster, TRAINING_RUN, namespace, pinned)
            ledgers = await _run_ledgers(cluster, namespace, (name_of(run) for run in runs))
        return DeploymentObserved(
            owner=owner,
            live={**live, **_by_ref(services), ref: owner},
            project=await cluster.get(Ref(DRIVETRAIN_PROJECT, namespace, parent)) if parent else None,
            project_ledger=await cluster.get(Ref(CONFIG_MAP, namespace, ledger_name(DRIVETRAIN_PROJECT.kind, parent)))
            if named
            else None,
            run_ledgers=tuple(ledgers.values()),
            rivals=rivals,
            ray_services=services,
            kuberay=kuberay,
            pods=pods,
            queued=await _queued(cluster, owner, parent, services),
        )

    def decide(self, observed: DeploymentObserved, now: datetime) -> Plan:
        """Return what to do: synchronous, total, pure."""
        return deployment.decide(observed, now, self.settings)


class Projects(_Controller[ProjectObserved]):
    """How DrivetrainProjects are run."""

    kind = DRIVETRAIN_PROJECT
    watched = (DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT, CONFIG_MAP)

    async def _around(self, cluster: Cluster, owner: Document, ref: Ref) -> ProjectObserved:
        """Its runs with their ledgers, and the Deployment that serves it."""
        namespace = ref.namespace
        every = (await cluster.list(TRAINING_RUN, namespace)).items
        runs = _of_project(every, ref.name)
        deployments = await _naming(cluster, DEPLOYMENT, namespace, ref.name)
        own = Ref(DEPLOYMENT, namespace, ref.name)
        live = await _read(cluster, (project.ledger_ref(owner), own))
        record = records.ledger(ProjectLedger, live.get(project.ledger_ref(owner)))
        ledgers = await _run_ledgers(cluster, namespace, approvals.runs_to_read(record, runs))
        serving = eldest(deployments)
        serving_ledger = serving_report = None
        services: tuple[Document, ...] = ()
        if serving is not None:
            name = name_of(serving)
            serving_ledger = await cluster.get(Ref(CONFIG_MAP, namespace, ledger_name(DEPLOYMENT.kind, name)))
            services, _ = await _of_kuberay(cluster, RAY_SERVICE, namespace, {OWNER_UID_LABEL: uid_of(serving)})
            serving_report = await cluster.get(Ref(CONFIG_MAP, namespace, report_name(DEPLOYMENT.kind, name)))
        champion = _champion_run(serving_ledger)
        return ProjectObserved(
            owner=owner,
            live={**live, **_by_ref(runs), ref: owner},
            runs=runs,
            taken=frozenset(name_of(each) for each in every),
            run_ledgers=ledgers,
            deployments=deployments,
            deployment_ledger=serving_ledger,
            deployment_report=serving_report,
            ray_services=services,
            champion_report=await cluster.get(Ref(CONFIG_MAP, namespace, report_name(TRAINING_RUN.kind, champion)))
            if champion
            else None,
        )

    def decide(self, observed: ProjectObserved, now: datetime) -> Plan:
        """Return what to do: synchronous, total, pure."""
        return project.decide(observed, now, self.settings)


def _rights(owner: Ref) -> tuple[Ref, ...]:
    """What lets an owner's cluster write its report, and talk to what it needs."""
    name = account_name(owner.kind.kind, owner.name)
    return tuple(Ref(kind, owner.namespace, name) for kind in (SERVICE_ACCOUNT, ROLE, ROLE_BINDING, NETWORK_POLICY))


async def _queued(cluster: Cluster, owner: Document, parent: str, services: tuple[Document, ...]) -> bool:
    """Whether this Deployment's RayServices are queued: as those that exist, else as a dry run tells."""
    queue = text(owner, "spec", "queue", "name")
    if not queue or services:
        return bool(queue) and any(QUEUE_LABEL in labels_of(each) for each in services)
    asked = Queue(name=queue, priority_class=text(owner, "spec", "queue", "priorityClass") or None)
    try:
        return is_suspended(await cluster.dry_run(queue_probe(Owner.of(owner, parent), asked)))
    except (ForbiddenError, NotFoundError, RejectedError):
        return False  # the endpoint itself will tell what is wrong


async def _of_kuberay(
    cluster: Cluster, kind: Kind, namespace: str, labels: Mapping[str, str]
) -> tuple[tuple[Document, ...], bool]:
    """The objects of a kind of KubeRay's, and whether the API server serves the kind."""
    try:
        return (await cluster.list(kind, namespace, labels)).items, True
    except NotFoundError:
        return (), False


def _waits(workload: Document) -> bool:
    return not (records.is_true(workload, "QuotaReserved") or records.is_true(workload, "Finished"))


async def _line(cluster: Cluster, namespace: str, queue: str, *, waits: bool) -> Line:
    """What Kueue tells about the line, asked for only while something waits; what may not be read is left out."""
    if not waits:
        return Line(queue)
    pending = await _permitted(cluster, Ref(PENDING_WORKLOADS, namespace, f"{queue}/pendingworkloads"))
    local = await _permitted(cluster, Ref(LOCAL_QUEUE, namespace, queue))
    named = text(local or {}, "spec", "clusterQueue")
    return Line(queue, pending, await _permitted(cluster, Ref(CLUSTER_QUEUE, "", named)) if named else None)


async def _permitted(cluster: Cluster, ref: Ref) -> Document | None:
    """An object that helps to explain and is needed for nothing: None where it cannot be read."""
    try:
        return await cluster.get(ref)
    except (ForbiddenError, NotFoundError, UnavailableError):
        return None


async def _naming(cluster: Cluster, kind: Kind, namespace: str, project_name: str) -> tuple[Document, ...]:
    """All objects of a kind whose spec names the project, whoever created them."""
    return _of_project((await cluster.list(kind, namespace)).items, project_name)


def _of_project(found: Iterable[Document], project_name: str) -> tuple[Document, ...]:
    return tuple(each for each in found if text(each, "spec", "project") == project_name)


async def _run_ledgers(cluster: Cluster, namespace: str, runs: Iterable[str]) -> Mapping[str, Document]:
    names = {ledger_name(TRAINING_RUN.kind, run): run for run in runs}
    read = await _read(cluster, (Ref(CONFIG_MAP, namespace, name) for name in names))
    return {names[ref.name]: document for ref, document in read.items()}


async def _champion_ledger(cluster: Cluster, namespace: str, project_name: str) -> Document | None:
    serving = eldest(await _naming(cluster, DEPLOYMENT, namespace, project_name))
    if serving is None:
        return None
    return await cluster.get(Ref(CONFIG_MAP, namespace, ledger_name(DEPLOYMENT.kind, name_of(serving))))


def _champion_run(config_map: Document | None) -> str | None:
    """The run that made the stable version."""
    champion = champion_of(records.ledger(DeploymentLedger, config_map))
    return champion.run if champion else None


async def _read(cluster: Cluster, refs: Iterable[Ref]) -> dict[Ref, Document]:
    """Those of the named objects that exist."""
    found = [(ref, await cluster.get(ref)) for ref in refs]
    return {ref: document for ref, document in found if document is not None}


def _by_ref(found: Iterable[Document]) -> dict[Ref, Document]:
    return {ref_of(each): each for each in found}
