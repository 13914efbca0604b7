"""`drivetrain` against a real API server and a real S3 server, as an administrator and as somebody with few rights."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from drivetrain.api.documents import JSON, Document, annotations_of, name_of, text, uid_of
from drivetrain.api.dossier import Dossier
from drivetrain.api.errors import NotFoundError, UnavailableError
from drivetrain.api.kinds import (
    CLUSTER_QUEUE,
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    LOCAL_QUEUE,
    RAY_CLUSTER,
    RAY_JOB,
    RAY_SERVICE,
    TRAINING_RUN,
    WORKLOAD,
    Kind,
    Ref,
)
from drivetrain.api.layout import dossier as dossier_key
from drivetrain.api.names import RETRAIN_ANNOTATION, ray_job_name
from drivetrain.cli.inquiry import JOB_UID_LABEL
from drivetrain.cli.main import main
from drivetrain.cli.session import Session
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import connect
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.handlers.runtime import bind
from tests.adapters.test_controllers import kuberay_definitions
from tests.support.api_server import ApiServer
from tests.support.bench import SETTINGS
from tests.support.builders import Manifest, a_deployment, a_project, a_run
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server

pytestmark = pytest.mark.binaries

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVED_WITHIN = 30.0
Run = Callable[..., "Told"]


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said."""

    code: int
    out: str
    err: str


@pytest.fixture
def drivetrain(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `drivetrain` in this process, as the entry point does."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)

    def run(*arguments: str, kubeconfig: Path = api_server.kubeconfig) -> Told:
        monkeypatch.setattr(sys, "argv", ["drivetrain", *arguments, "--kubeconfig", str(kubeconfig)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Told(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def session(api_server: ApiServer) -> Session:
    """The administrator's session, with our definitions and KubeRay's in place."""
    session = Session.open(kubeconfig=api_server.kubeconfig)
    for file in (*(ROOT / "crds").glob("*.yaml"), *kuberay_definitions()):
        session.apply(yaml.safe_load(file.read_text()))
    until_served(session, DRIVETRAIN_PROJECT, TRAINING_RUN, DEPLOYMENT, RAY_JOB, RAY_SERVICE, RAY_CLUSTER)
    return session


@pytest.fixture(scope="module")
def kueue(session: Session) -> Iterator[Session]:
    """Stand-ins for the definitions of Kueue: names and scopes are Kueue's, any field is taken."""
    definitions = [_definition(WORKLOAD), _definition(LOCAL_QUEUE), _definition(CLUSTER_QUEUE)]
    for each in definitions:
        session.apply(each)
    until_served(session, WORKLOAD, LOCAL_QUEUE, CLUSTER_QUEUE)
    yield session
    for each in definitions:
        session.delete(Ref(CRD, "", name_of(each)))


CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)


def _definition(kind: Kind) -> Document:
    schema: Document = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: Document = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            # The API server wants to see that somebody approved names of its own domain.
            "annotations": {"api-approved.kubernetes.io": "unapproved, stand-in for tests"},
        },
        "spec": {
            "group": kind.group,
            "names": {"kind": kind.kind, "plural": kind.plural},
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def until_served(session: Session, *kinds: Kind) -> None:
    deadline = time.monotonic() + SERVED_WITHIN
    while not all(lists(session, kind) for kind in kinds):
        assert time.monotonic() < deadline, "the definitions are not served"
        time.sleep(0.1)


def lists(session: Session, kind: Kind) -> bool:
    """Whether the kind is served and its storage ready, which the API server is not as soon as it tells of it."""
    try:
        session.list(kind)
    except (NotFoundError, UnavailableError):
        return False
    return True


def a_namespace(session: Session, name: str) -> str:
    session.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


def operate(server: ApiServer, namespace: str, *, kueue: bool = False) -> None:
    """Lets the operator's controllers look at the namespace until nothing changes."""

    async def rounds() -> None:
        workload = WORKLOAD if kueue else None
        bound = [bind(Projects(SETTINGS)), bind(TrainingRuns(SETTINGS, workload)), bind(Deployments(SETTINGS))]
        async with connect(from_kubeconfig(server.kubeconfig), lambda *_: None) as cluster:
            for _ in range(4):
                for each in bound:
                    for found in (await cluster.list(each.kind, namespace)).items:
                        await each.reconcile(cluster, Ref(each.kind, namespace, name_of(found)), NOW, "test")

    asyncio.run(rounds())


def written(folder: Path, *manifests: Manifest) -> str:
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    return str(file)


def test_a_loop_is_shown_explained_and_asked(api_server: ApiServer, session: Session, drivetrain: Run) -> None:
    namespace = a_namespace(session, "cli-loop")
    session.apply(a_project(namespace=namespace).document())
    operate(api_server, namespace)

    told = drivetrain("status", "-n", namespace)
    assert told.code == 0
    assert "DrivetrainProject shop" in told.out
    assert "TrainingRun shop-1" in told.out
    assert f"DrivetrainProject {namespace}/shop" in drivetrain("status", "-A").out
    assert drivetrain("runs", "-n", namespace, "-o", "name").out == "trainingruns.drivetrain.dev/shop-1\n"
    listed = json.loads(drivetrain("status", "shop", "-n", namespace, "-o", "json").out)
    assert [each["kind"] for each in listed["items"]] == ["DrivetrainProject", "TrainingRun", "Deployment"]

    why = drivetrain("why", "dtr/shop-1", "-n", namespace).out
    assert why.startswith("TrainingRun shop-1: Starting")
    assert "attempt 1, 1 of 3 attempts used" in why, "the ledger is joined"
    assert "Reconciling" in why, "status is joined"

    assert drivetrain("retrain", "shop", "-n", namespace).code == 0
    live = session.get(Ref(DRIVETRAIN_PROJECT, namespace, "shop"))
    assert RETRAIN_ANNOTATION in annotations_of(live or {})
    gone = drivetrain("retrain", "shpo", "-n", namespace)
    assert (gone.code, "There are: shop." in gone.err) == (1, True)


def test_events_about_the_object_are_told(api_server: ApiServer, session: Session, drivetrain: Run) -> None:
    namespace = a_namespace(session, "cli-events")
    session.apply(a_run(namespace=namespace, project="gone").document())
    operate(api_server, namespace)
    told = drivetrain("why", "shop-1", "-n", namespace).out
    assert "ProjectNotFound" in told
    assert "event" in told, "the operator's event was found by the object's uid"


def test_planning_a_new_project_names_what_it_makes_and_makes_nothing(
    session: Session, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(session, "cli-plan")
    told = drivetrain("plan", written(tmp_path, a_project(namespace=namespace).document()), "-n", namespace)
    assert told.code == 0, told
    assert "DrivetrainProject shop in namespace cli-plan: new" in told.out
    for expected in ("TrainingRun shop-1 (Initial)", "RayJob shop-1-a1", "Deployment shop", "RayService shop-"):
        assert expected in told.out, told.out
    assert "Secret s3 is not in namespace cli-plan" in told.out
    assert all(not session.list(kind, namespace=namespace) for kind in (DRIVETRAIN_PROJECT, TRAINING_RUN, RAY_JOB))


def test_planning_a_change_shows_the_difference_and_what_admission_refuses(
    api_server: ApiServer, session: Session, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(session, "cli-change")
    session.apply(a_project(namespace=namespace).document())
    operate(api_server, namespace)
    same = drivetrain("plan", written(tmp_path, a_project(namespace=namespace).document()))
    assert "DrivetrainProject shop in namespace cli-change: unchanged" in same.out
    narrower = a_project(namespace=namespace).with_lever("price", maximum="1.99").document()
    assert '~ spec.levers[price].maximum: "2.09" -> "1.99"' in drivetrain("plan", written(tmp_path, narrower)).out
    other = a_run(namespace=namespace).with_field("spec.attempts", 7).document()
    refused = drivetrain("plan", written(tmp_path, other))
    assert refused.code == 1
    assert "a run's spec is immutable" in refused.out


def test_planning_what_kubectl_applied_forgets_what_the_manifest_states_no_more(
    api_server: ApiServer, session: Session, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(session, "cli-kubectl")
    project = a_project(namespace=namespace).without_serving()
    endpoint = a_deployment(namespace=namespace)
    for kind, manifest in ((DRIVETRAIN_PROJECT, project.document()), (DEPLOYMENT, endpoint.document())):
        created = Ref(kind, namespace, "")
        session._call("POST", created, body=manifest, query={"fieldManager": "kubectl-client-side-apply"})
    operate(api_server, namespace)
    same = drivetrain("plan", written(tmp_path, endpoint.document()))
    assert "Deployment shop in namespace cli-kubectl: unchanged" in same.out
    assert not {"RayService", "ConfigMap"} & set(same.out.split()), same.out
    action = {"action": {"price": "1.99", "discount": "0.2"}}
    other = drivetrain("plan", written(tmp_path, project.with_field("spec.objective.baseline", action).document()))
    assert (other.code, "- spec.objective.baseline.expression: " in other.out) == (0, True), other.out


def a_gpu_run(namespace: str, gpus: int) -> Manifest:
    run = a_run("big", namespace).with_field("spec.queue", {"name": "gpu-pool"})
    return run.with_field("spec.scaling", {"workers": gpus, "resourcesPerWorker": {"gpu": 1}}).document()


def test_a_queue_is_planned_for_and_its_verdict_is_joined(
    api_server: ApiServer, kueue: Session, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(kueue, "cli-queue")
    nominal: dict[str, JSON] = {"cpu": "100", "memory": "500Gi", "nvidia.com/gpu": 4}
    resources: list[JSON] = [{"name": name, "nominalQuota": amount} for name, amount in nominal.items()]
    pool: Document = {
        "apiVersion": CLUSTER_QUEUE.api_version,
        "kind": CLUSTER_QUEUE.kind,
        "metadata": {"name": "pool"},
        "spec": {
            "resourceGroups": [
                {"coveredResources": list(nominal), "flavors": [{"name": "default", "resources": resources}]}
            ]
        },
    }
    put(kueue, CLUSTER_QUEUE, pool)
    put(
        kueue,
        LOCAL_QUEUE,
        {
            "apiVersion": LOCAL_QUEUE.api_version,
            "kind": LOCAL_QUEUE.kind,
            "metadata": {"name": "gpu-pool", "namespace": namespace},
            "spec": {"clusterQueue": "pool"},
        },
    )
    kueue.apply(a_project(namespace=namespace).without_serving().document())
    fits = drivetrain("plan", written(tmp_path, a_gpu_run(namespace, 2)))
    assert (fits.code, "fits    queue gpu-pool: 2 nvidia.com/gpu asked, 0 of 4 in use" in fits.out) == (0, True), fits
    never = drivetrain("plan", written(tmp_path, a_gpu_run(namespace, 5)))
    assert (never.code, "it can never give more than 4" in never.out) == (1, True)

    kueue.apply(a_gpu_run(namespace, 2))
    operate(api_server, namespace, kueue=True)
    (job,) = [each for each in kueue.list(RAY_JOB, namespace=namespace) if name_of(each).startswith("big")]
    workload: Document = {
        "apiVersion": WORKLOAD.api_version,
        "kind": WORKLOAD.kind,
        "metadata": {"name": "w", "namespace": namespace, "labels": {JOB_UID_LABEL: uid_of(job)}},
    }
    lacks = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "2 more needed"}
    put(kueue, WORKLOAD, workload, status={"conditions": [lacks]})
    operate(api_server, namespace, kueue=True)
    told = drivetrain("why", "big", "-n", namespace).out
    assert told.startswith("TrainingRun big: Queued")
    assert "QuotaReserved=False Pending: 2 more needed" in told


def put(session: Session, kind: Kind, document: Document, *, status: Document | None = None) -> None:
    """Stores an object of a kind that Drivetrain does not write, and its status."""
    ref = Ref(kind, text(document, "metadata", "namespace"), name_of(document))
    session._call("PATCH", ref, body=document, query=APPLY, content_type=APPLY_TYPE)
    if status is not None:
        path = f"{kind.path}/namespaces/{ref.namespace}/{kind.plural}/{ref.name}/status?fieldManager=kueue&force=true"
        session._send("PATCH", path, ref, body={**document, "status": status}, content_type=APPLY_TYPE)


APPLY = {"fieldManager": "kueue", "force": "true"}
APPLY_TYPE = "application/apply-patch+yaml"


@pytest.fixture
def visitor(session: Session, api_server: ApiServer, tmp_path: Path) -> Path:
    """The kubeconfig of somebody who may read and patch our kinds in one namespace, and nothing else."""
    namespace = a_namespace(session, "cli-visitor")
    account: Document = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named("visitor", namespace)}
    session.apply(account)
    api = "rbac.authorization.k8s.io"
    session.apply(
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": _named("visitor", namespace),
            "rules": [{"apiGroups": ["drivetrain.dev"], "resources": ["*"], "verbs": ["get", "list", "patch"]}],
        }
    )
    session.apply(
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": _named("visitor", namespace),
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "visitor"},
            "subjects": [{"kind": "ServiceAccount", "name": "visitor", "namespace": namespace}],
        }
    )
    request: Document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/visitor/token"
    granted = session._send("POST", path, Ref(CONFIG_MAP, namespace, "visitor"), body=request)
    config = json.loads(api_server.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = text(granted, "status", "token")
    config["contexts"][0]["context"]["namespace"] = namespace
    file = tmp_path / "visitor"
    file.write_text(json.dumps(config))
    return file


def _named(name: str, namespace: str) -> Document:
    return {"name": name, "namespace": namespace}


def test_somebody_with_few_rights_is_told_what_was_left_out(
    api_server: ApiServer, session: Session, visitor: Path, drivetrain: Run, tmp_path: Path
) -> None:
    session.apply(a_project(namespace="cli-visitor").document())
    operate(api_server, "cli-visitor")
    assert "TrainingRun shop-1" in drivetrain("status", kubeconfig=visitor).out
    why = drivetrain("why", "dtr/shop-1", kubeconfig=visitor)
    assert why.code == 0
    assert "you may not get configmaps in namespace cli-visitor" in why.out
    planned = drivetrain("plan", written(tmp_path, a_project(namespace="cli-visitor").document()), kubeconfig=visitor)
    assert "what nodes there are: you may not list nodes" in planned.out
    assert "whether Secret s3 is there: you may not get secrets" in planned.out
    everywhere = drivetrain("status", "-A", kubeconfig=visitor)
    assert (everywhere.code, "drivetrain doctor" in everywhere.err) == (1, True)
    doctor = drivetrain("doctor", kubeconfig=visitor)
    assert "fail  your rights" in doctor.out
    assert "get configmaps" in doctor.out


def test_the_doctor_tries_s3_and_names_what_is_missing(
    session: Session, s3_server: S3Server, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(session, "cli-doctor")
    s3_server.make_bucket("cli-doctor")
    project = a_project(namespace=namespace).with_field(
        "spec.data.store", s3_server.place("s3://cli-doctor/shop").model_dump(by_alias=True, exclude_none=True)
    )
    file = written(tmp_path, project.document())
    without = drivetrain("doctor", file, "-n", namespace)
    assert (without.code, "The Secret s3 is not in namespace cli-doctor" in without.out) == (1, True)
    store_keys(session, namespace)
    told = drivetrain("doctor", file, "-n", namespace).out
    lines = {line[6:].split("  ")[0].strip(): line[:4].strip() for line in told.splitlines() if line[:4].strip()}
    assert {name: lines[name] for name in ("Kubernetes", "clock", "CRD trainingruns", "your rights", "S3 shop")} == {
        "Kubernetes": "ok",
        "clock": "ok",
        "CRD trainingruns": "ok",
        "your rights": "ok",
        "S3 shop": "ok",
    }
    assert lines["operator"] == "fail", "no operator runs here"
    assert list(s3_server.open("s3://cli-doctor/shop").list("")) == [], "the probe was removed"


def store_keys(session: Session, namespace: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    session.apply({"apiVersion": "v1", "kind": "Secret", "metadata": _named("s3", namespace), "stringData": keys})


def test_a_dossier_on_s3_is_read_with_the_persons_keys_and_a_deleted_project_is_purged(
    api_server: ApiServer, session: Session, s3_server: S3Server, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(session, "cli-purge")
    s3_server.make_bucket("cli-purge")
    place = s3_server.place("s3://cli-purge/shop").model_dump(by_alias=True, exclude_none=True)
    project = a_project(namespace=namespace).with_field("spec.data.store", place).without_serving()
    project = project.with_field("spec.training.attempts", 1)
    store_keys(session, namespace)
    session.apply(project.document())
    operate(api_server, namespace)
    run = session.get(Ref(TRAINING_RUN, namespace, "shop-1"))
    store = s3_server.open("s3://cli-purge/shop")
    dossier = Dossier(run="shop-1", attempt=1, submission="s", ended="Failed", at=NOW, log="MemoryError: no room\n")
    store.put(dossier_key(uid_of(run or {}), 1, "s"), dossier.model_dump_json(by_alias=True).encode())
    session.delete(Ref(RAY_JOB, namespace, ray_job_name("shop-1", 1)))

    logs = drivetrain("logs", "shop-1", "-n", namespace)
    assert "MemoryError: no room" in logs.out

    file = written(tmp_path, project.document())
    early = drivetrain("purge", file, "-n", namespace, "--confirm", "shop")
    assert (early.code, "still exists" in early.err) == (1, True)
    session.delete(Ref(DRIVETRAIN_PROJECT, namespace, "shop"))
    outlived = drivetrain("purge", file, "-n", namespace, "--confirm", "shop")
    assert (outlived.code, "trainingruns/shop-1" in outlived.err) == (1, True)
    session.delete(Ref(TRAINING_RUN, namespace, "shop-1"))
    wrong = drivetrain("purge", file, "-n", namespace, "--confirm", "other")
    assert (wrong.code, len(list(store.list("")))) == (1, 1)
    assert drivetrain("purge", file, "-n", namespace, "--confirm", "shop").code == 0
    assert list(store.list("")) == []


def test_live_validation_reads_the_sources_with_the_persons_keys(
    session: Session, s3_server: S3Server, drivetrain: Run, tmp_path: Path
) -> None:
    namespace = a_namespace(session, "cli-live")
    s3_server.make_bucket("cli-live")
    store_keys(session, namespace)
    place = s3_server.place("s3://cli-live/shop").model_dump(by_alias=True, exclude_none=True)
    source = {"name": "visits", "uri": "s3://cli-live/visits/a.csv", "format": "CSV"}
    project = (
        a_project(namespace=namespace).with_field("spec.data.store", place).with_field("spec.data.sources", [source])
    )
    file = written(tmp_path, project.document())
    missing = drivetrain("validate", file, "--live", "-n", namespace)
    assert (missing.code, "source visits: " in missing.out) == (1, True)

    columns = "visit_id,week,store,shelf_price,shelf_discount,rival_price,price,discount,propensity,purchase"
    rows = "a,1,s1,1.8,0,2.0,1.8,0.1,1,1\nb,1,s2,1.8,0,2.0,1.9,0.1,1,0\n"
    s3_server.open("s3://cli-live/visits").put("a.csv", f"{columns}\n{rows}".encode())
    told = drivetrain("validate", file, "--live", "-n", namespace)
    assert told.code == 0, told
    assert "contract: 2 rows fit the declared columns" in told.out

    s3_server.open("s3://cli-live/visits").put("a.csv", f"{columns.replace('rival_price', 'rival')}\n{rows}".encode())
    broken = drivetrain("validate", file, "--live", "-n", namespace)
    assert (broken.code, "rival_price" in broken.out) == (1, True)
