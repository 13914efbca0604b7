"""`drivetrain doctor`: looks at everything that must be there, with the person's own rights."""

import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from drivetrain.api.crds import crds
from drivetrain.api.documents import Document, name_of, text
from drivetrain.api.errors import StoreError, UnavailableError
from drivetrain.api.image import VERSION
from drivetrain.api.kinds import (
    CLUSTER_QUEUE,
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    EVENT,
    LEASE,
    LOCAL_QUEUE,
    NAMESPACE,
    PENDING_WORKLOADS,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    SECRET,
    TRAINING_RUN,
    WORKLOAD,
    WORKLOAD_V1BETA1,
    Kind,
    Ref,
)
from drivetrain.api.v1alpha1.project import DrivetrainProject
from drivetrain.cli import diagnosis, installation
from drivetrain.cli.diagnosis import Check
from drivetrain.cli.foreign import (
    APPS_DEPLOYMENT,
    CLUSTER_QUEUE_V1BETA1,
    LOCAL_QUEUE_V1BETA1,
    NODE,
    POLICY,
)
from drivetrain.cli.inquiry import OpenStore
from drivetrain.cli.reader import Permitted, Reader, parsed
from drivetrain.store import ObjectStore

LEASE_NAME = "drivetrain-operator"
_SECONDS = 10.0
NEEDED: tuple[tuple[str, Kind, str], ...] = (
    *((verb, kind, "") for kind in (DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT) for verb in ("get", "list", "patch")),
    ("get", CONFIG_MAP, ""),
)
"""Without these, commands fail."""
USEFUL: tuple[tuple[str, Kind, str], ...] = (
    ("list", POD, ""),
    ("get", POD, "log"),
    ("list", EVENT, ""),
    ("list", RAY_JOB, ""),
    ("list", RAY_SERVICE, ""),
    ("get", SECRET, ""),
)
"""Without these, commands leave things out and say so."""


class Session(Reader, Protocol):
    """What the doctor needs of a person's session."""

    def read(self, path: str) -> Document:
        """What lies at a path of the API server."""

    def may(self, verb: str, kind: Kind, *, namespace: str | None = None, subresource: str = "") -> bool:
        """Whether this person may do that."""

    def clock(self) -> datetime | None:
        """What time the API server says it is."""


@dataclass(frozen=True, slots=True)
class Examination:
    """One look at a cluster and at the stores and tracking servers of the namespace's projects."""

    session: Session
    open_store: OpenStore
    now: datetime
    projects: Sequence[DrivetrainProject] = ()
    """From files, instead of those of the namespace."""
    mlflow: str | None = None
    """Where it is known; otherwise the operator's Deployment says it."""
    local: bool = False
    """The environment on this machine."""

    def checks(self) -> Iterator[Check]:
        """One after the other, so that they can be shown as they come. Raises UnavailableError."""
        yield diagnosis.kubernetes(self.session.read("/version"))
        there = self.session.clock()
        yield diagnosis.clock(self.now, there)
        yield from self._definitions()
        found = self._operators()
        yield from diagnosis.operators(found, VERSION, self.session.namespace, local=self.local)
        yield from self._leaders(found or (), there or self.now)
        yield self._kuberay()
        yield from self._kueue()
        if not self.local:
            yield self._namespace()
        yield from self._rights()
        projects = self.projects or self._own_projects()
        yield from self._stores(projects)
        yield from self._tracking(projects, found or ())

    @property
    def _permitted(self) -> Permitted:
        return Permitted(self.session)

    def _definitions(self) -> Iterator[Check]:
        kinds = {kind.plural: kind for kind in (DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT)}
        for wanted in crds().values():
            kind = kinds[text(wanted, "spec", "names", "plural")]
            found = self._permitted.one(Ref(CUSTOM_RESOURCE_DEFINITION, "", name_of(wanted)))
            live = found[0] if found else None
            yield diagnosis.definition(wanted, live, readable=found is not None, served=self.session.serves(kind))

    def _operators(self) -> tuple[installation.Installation, ...] | None:
        found = self._permitted.all(APPS_DEPLOYMENT, installation.LABELS, namespace="")
        return None if found is None else tuple(map(installation.installation, found))

    def _leaders(self, found: Sequence[installation.Installation], now: datetime) -> Iterator[Check]:
        for each in found:
            place = f"{each.namespace}/{LEASE_NAME}"
            lease = self._permitted.one(Ref(LEASE, each.namespace, LEASE_NAME))
            if lease is not None:
                yield diagnosis.leads(lease[0] if lease else None, now, place)

    def _kuberay(self) -> Check:
        served = {kind.plural: self.session.serves(kind) for kind in (RAY_JOB, RAY_SERVICE, RAY_CLUSTER)}
        name = f"{RAY_JOB.plural}.{RAY_JOB.group}"
        definition = self._permitted.one(Ref(CUSTOM_RESOURCE_DEFINITION, "", name)) or (None,)
        operator = self._deployment({"app.kubernetes.io/name": "kuberay-operator"}, "kuberay-operator")
        return diagnosis.kuberay(served, definition[0], operator, local=self.local)

    def _deployment(self, labels: Mapping[str, str], name: str) -> Document | None:
        """A Deployment by the labels that its chart gives it, else by its usual name."""
        found = self._permitted.all(APPS_DEPLOYMENT, labels, namespace="")
        if not found:
            everywhere = self._permitted.all(APPS_DEPLOYMENT, namespace="") or ()
            found = tuple(each for each in everywhere if name_of(each) == name)
        return found[0] if found else None

    def _kueue(self) -> Iterator[Check]:
        newest = self.session.serves(WORKLOAD)
        served = newest or self.session.serves(WORKLOAD_V1BETA1)
        runs = self._permitted.all(TRAINING_RUN, namespace=self.session.namespace) or ()
        named = sorted({text(run, "spec", "queue", "name") for run in runs} - {""})
        visible = served and self._visible()
        manager = self._deployment({"app.kubernetes.io/name": "kueue"}, "kueue-controller-manager") if served else None
        yield diagnosis.kueue(served, visible, manager, named)
        if not served:
            return
        local, pool = (LOCAL_QUEUE, CLUSTER_QUEUE) if newest else (LOCAL_QUEUE_V1BETA1, CLUSTER_QUEUE_V1BETA1)
        permitted = self._permitted
        queues = permitted.all(local, namespace=self.session.namespace)
        if queues is None:
            yield Check("queues", "warn", permitted.unread[0])
            return
        for missing in (name for name in named if name not in map(name_of, queues)):
            remedy = "Create the LocalQueue, or name another one."
            yield Check(f"queue {missing}", "fail", "runs name it, and it does not exist", remedy)
        for each in queues:
            found = permitted.one(Ref(pool, "", text(each, "spec", "clusterQueue")))
            yield diagnosis.queue(each, found[0] if found else None, readable=found is not None)

    def _visible(self) -> bool:
        try:
            return self.session.serves(PENDING_WORKLOADS)
        except UnavailableError:  # the API server knows of it, and Kueue's own is down
            return False

    def _namespace(self) -> Check:
        found = self._permitted.one(Ref(NAMESPACE, "", self.session.namespace))
        if found == ():
            remedy = f"kubectl create namespace {self.session.namespace}, or name another with -n."
            return Check("namespace", "fail", f"{self.session.namespace} does not exist", remedy)
        return diagnosis.namespace(found[0] if found else None, self._permitted.all(POLICY, namespace=""))

    def _rights(self) -> tuple[Check, ...]:
        missing, optional = (
            [_right(verb, kind, sub) for verb, kind, sub in rights if not self.session.may(verb, kind, subresource=sub)]
            for rights in (NEEDED, USEFUL)
        )
        if self.session.serves(WORKLOAD) and not self.session.may("list", WORKLOAD):
            optional.append(_right("list", WORKLOAD, ""))
        if not self.local and not self.session.may("list", NODE):
            optional.append("list nodes")
        return diagnosis.rights(missing, optional)

    def _own_projects(self) -> tuple[DrivetrainProject, ...]:
        if not self.session.serves(DRIVETRAIN_PROJECT):
            return ()
        found = self._permitted.all(DRIVETRAIN_PROJECT, namespace=self.session.namespace) or ()
        return tuple(parsed(DrivetrainProject, each) for each in found)

    def _stores(self, projects: Sequence[DrivetrainProject]) -> Iterator[Check]:
        if not projects:
            remedy = "Name a project's manifest: drivetrain doctor FILE."
            yield Check("S3", "warn", "no project says where its store is, so none was tried", remedy)
        for project in projects:
            store = project.spec.data.store
            subject = f"S3 {project.metadata.name}"
            try:
                opened = self.open_store(store, project.metadata.namespace or self.session.namespace)
                yield conditional_writes(subject, opened, secrets.token_hex(4))
            except StoreError as error:
                # Keys that this person may not read are no fault of the store, nor is an address inside the cluster.
                inside = error.reason in ("CredentialsForbidden", "StoreUnavailable")
                told = f"{store.uri} was not tried: {error.message}" if inside else error.message
                yield Check(subject, "warn" if inside else "fail", told, error.remedy)

    def _tracking(
        self, projects: Sequence[DrivetrainProject], found: Sequence[installation.Installation]
    ) -> Iterator[Check]:
        default = self.mlflow or next((each.settings.mlflow_url for each in found if each.settings.mlflow_url), None)
        servers = {project.spec.tracking.uri if project.spec.tracking else default for project in projects} or {default}
        for server in sorted(each for each in servers if each):
            yield tracking(server)
        if None in servers:
            told = "no server is known; runs without spec.tracking use the operator's, or keep a record of their own"
            yield Check(
                "MLflow", "ok" if not projects else "warn", told, "Set spec.tracking, or mlflow.url of the chart."
            )


def conditional_writes(subject: str, store: ObjectStore, token: str) -> Check:
    """Tries both conditional writes on an object of its own, which it removes. Raises StoreError."""
    key = f"doctor/{token}"
    remedy = "They fence attempts: use AWS S3, versitygw 1.8 or another server that honours If-None-Match and If-Match."
    try:
        first, second = store.put_if_absent(key, b"1"), store.put_if_absent(key, b"2")
        if not first or second:
            return Check(subject, "fail", f"{store.uri()} ignores If-None-Match: a second writer was let in", remedy)
        info = store.head(key)
        if info is None:
            return Check(subject, "fail", f"{store.uri()} does not show what was just written", remedy)
        changed, stale = store.put_if_match(key, b"3", info.etag), store.put_if_match(key, b"4", info.etag)
        if not changed or stale:
            return Check(subject, "fail", f"{store.uri()} ignores If-Match: a stale writer was let in", remedy)
        if store.get(key) != b"3":
            return Check(subject, "fail", f"{store.uri()} returns another object than was written", remedy)
        return Check(subject, "ok", f"{store.uri()} can be written, and honours conditional writes")
    finally:
        store.delete(key)


def tracking(server: str) -> Check:
    """Whether an MLflow server answers from here."""
    try:
        with urllib.request.urlopen(f"{server.rstrip('/')}/version", timeout=_SECONDS) as answer:  # noqa: S310 - http(s) by its schema
            version = answer.read(64).decode(errors="replace").strip().strip('"')
        return Check("MLflow", "ok", f"{server} answers, version {version}")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Check("MLflow", "ok", f"{server} answers and asks for a password")
        return Check("MLflow", "fail", f"{server} answers with HTTP {error.code}", "Is that an MLflow server?")
    except OSError as error:
        inside = ".svc" in server or "." not in server.partition("//")[2].partition(":")[0]
        told = f"{server} does not answer here ({getattr(error, 'reason', error)})"
        if inside:
            return Check("MLflow", "warn", f"{told}; its address is one of the cluster", "Pods may reach it still.")
        return Check("MLflow", "fail", told, "Start it, or correct spec.tracking.uri.")


def failed(checks: Sequence[Check]) -> bool:
    """Whether any check failed."""
    return any(check.level == "fail" for check in checks)


def _right(verb: str, kind: Kind, subresource: str) -> str:
    return f"{verb} {kind.plural}{f'/{subresource}' if subresource else ''}"


def projects_of(manifests: Sequence[Mapping[str, object]]) -> tuple[DrivetrainProject, ...]:
    """The projects among manifests."""
    return tuple(DrivetrainProject.parse(each) for each in manifests if each.get("kind") == DRIVETRAIN_PROJECT.kind)
