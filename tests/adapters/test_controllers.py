"""Decisions on a real API server with KubeRay's own definitions: what is rendered is accepted, and stated only once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from drivetrain.api.documents import Document, documents, name_of, namespace_of, resource_version_of, text
from drivetrain.api.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DRIVETRAIN_PROJECT,
    NETWORK_POLICY,
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
from drivetrain.api.ledger import RunLedger
from drivetrain.api.names import LEDGER_KEY, ledger_name, report_name
from drivetrain.api.report import ServingReport, TrainingReport
from drivetrain.controller.cluster.access import from_kubeconfig
from drivetrain.controller.cluster.kubernetes import KubernetesCluster, connect
from drivetrain.controller.cluster.observation import Deployments, Projects, TrainingRuns
from drivetrain.controller.handlers.runtime import bind
from drivetrain.local import binaries
from tests.support.api_server import ApiServer
from tests.support.bench import SETTINGS
from tests.support.builders import a_project
from tests.unit.controller.rendered import rendered

pytestmark = pytest.mark.binaries

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUND = {
    each.kind: each
    for each in (bind(Projects(SETTINGS)), bind(TrainingRuns(SETTINGS, None)), bind(Deployments(SETTINGS)))
}
CHILDREN = (CONFIG_MAP, SERVICE, SERVICE_ACCOUNT, ROLE, ROLE_BINDING, NETWORK_POLICY, RAY_JOB, RAY_SERVICE)


def kuberay_definitions() -> list[Path]:
    """KubeRay's CRDs, where the embedded mode has fetched them."""
    found = sorted(binaries.cache_folder().glob("kuberay-crds-*/ray.io_*.yaml"))
    if not found:
        pytest.fail("KubeRay's CRDs were not fetched yet: make setup", pytrace=False)
    return found


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[KubernetesCluster]:
    """The API server with our definitions and KubeRay's."""
    async with connect(from_kubeconfig(api_server.kubeconfig), lambda *_: None) as cluster:
        for file in (*(ROOT / "crds").glob("*.yaml"), *kuberay_definitions()):
            await cluster.apply(yaml.safe_load(file.read_text()))
        async with asyncio.timeout(30):
            for kind in (*BOUND, RAY_JOB, RAY_SERVICE, RAY_CLUSTER):
                while not await cluster.serves(kind):  # noqa: ASYNC110 - the API server tells nobody when it serves
                    await asyncio.sleep(0.1)
        yield cluster


async def settle(cluster: KubernetesCluster, namespace: str) -> int:
    """Reconcile every object of ours until nothing changes; return how many rounds that took."""
    for count in range(12):
        before = await everything(cluster, namespace)
        for kind, bound in BOUND.items():
            for each in (await cluster.list(kind, namespace)).items:
                await bound.reconcile(cluster, Ref(kind, namespace, name_of(each)), NOW, "test")
        if await everything(cluster, namespace) == before:
            return count
    raise AssertionError("the operator never stops writing")


async def everything(cluster: KubernetesCluster, namespace: str) -> dict[tuple[Kind, str], str]:
    """Versions of all objects that the operator may write."""
    found = {}
    for kind in (*BOUND, *CHILDREN):
        for each in (await cluster.list(kind, namespace)).items:
            found[kind, name_of(each)] = resource_version_of(each)
    return found


async def report(cluster: KubernetesCluster, ref: Ref, writer: str, content: TrainingReport | ServingReport) -> None:
    """Write one key of a report as its writer does."""
    document: Document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": ref.name, "namespace": ref.namespace},
        "data": {writer: content.model_dump_json(by_alias=True)},
    }
    await cluster.apply(document, field_manager=writer)


async def set_status(cluster: KubernetesCluster, document: Document, status: Document) -> None:
    """Set a status as KubeRay does."""
    head = {key: document[key] for key in ("apiVersion", "kind")}
    metadata = {"name": name_of(document), "namespace": namespace_of(document)}
    await cluster.apply_status({**head, "metadata": metadata, "status": status}, field_manager="kuberay")


async def test_every_rendered_field_is_known_to_the_api_server_and_kuberay(
    cluster: KubernetesCluster,
) -> None:
    """Server-side apply refuses fields that no schema knows."""
    for name, document in rendered().items():
        stored = await cluster.apply(document)
        assert stored["kind"] == document["kind"], name
        await cluster.delete(ref_of(stored))


async def test_a_loop_goes_round_on_a_real_api_server_and_then_nothing_is_written(cluster: KubernetesCluster) -> None:
    namespace = "controllers"
    await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await cluster.apply(a_project(namespace=namespace).document(), field_manager="kubectl")
    await settle(cluster, namespace)

    (job,) = (await cluster.list(RAY_JOB, namespace)).items
    await set_status(cluster, job, {"rayClusterName": "c1", "jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})
    await settle(cluster, namespace)
    project = await cluster.get(Ref(DRIVETRAIN_PROJECT, namespace, "shop"))
    assert project is not None
    result = {
        "state": "Approved",
        "version": "1",
        "digest": "a" * 64,
        "uri": "s3://shop/data/models/a",
        "project_uid": text(project, "metadata", "uid"),
        "lever_effect": "Observational",
    }
    told = TrainingReport.model_validate(
        {"attempt": 1, "sequence": 1, "at": NOW, "metrics": {"logLoss": 0.5}, "result": result}
    )
    await report(cluster, Ref(CONFIG_MAP, namespace, report_name("TrainingRun", "shop-1")), "c1", told)
    await settle(cluster, namespace)
    record = await cluster.get(Ref(CONFIG_MAP, namespace, ledger_name("TrainingRun", "shop-1")))
    assert RunLedger.model_validate_json(text(record or {}, "data", LEDGER_KEY)).finished == "Approved"

    (service,) = (await cluster.list(RAY_SERVICE, namespace)).items
    ready = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    await set_status(cluster, service, {"activeServiceStatus": {"rayClusterName": "c2"}, "conditions": [ready]})
    serving = Ref(CONFIG_MAP, namespace, report_name("Deployment", "shop"))
    await report(cluster, serving, "c2", ServingReport(sequence=1, at=NOW, replicas=1))
    await settle(cluster, namespace)
    deployment = await cluster.get(Ref(DEPLOYMENT, namespace, "shop"))
    assert text(deployment or {}, "status", "candidate", "version") == "1"
    said = {text(each, "type"): text(each, "status") for each in documents(deployment or {}, "status", "conditions")}
    assert said == {"Ready": "True", "Reconciling": "True", "Progressing": "True"}
    assert await settle(cluster, namespace) == 0, "a settled world is looked at without a write"
    run = await cluster.get(Ref(TRAINING_RUN, namespace, "shop-1"))
    assert text(run or {}, "status", "modelVersion") == "1"


async def test_a_service_of_somebody_else_under_the_endpoints_name_is_left_alone_and_told(
    cluster: KubernetesCluster,
) -> None:
    namespace = "taken"
    await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    port: Document = {"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    foreign = await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "shop", "namespace": namespace},
            "spec": {"selector": {"app": "shop-web"}, "ports": [port]},
        },
        field_manager="kubectl",
    )
    await cluster.apply(a_project(namespace=namespace).document(), field_manager="kubectl")
    await settle(cluster, namespace)
    assert await cluster.get(ref_of(foreign)) == foreign
    deployment = await cluster.get(Ref(DEPLOYMENT, namespace, "shop"))
    said = {text(each, "type"): text(each, "reason") for each in documents(deployment or {}, "status", "conditions")}
    assert said == {"Ready": "NameTaken", "Stalled": "NameTaken"}
    assert (await cluster.list(RAY_SERVICE, namespace)).items == ()
    await cluster.delete(ref_of(foreign))
    await settle(cluster, namespace)
    assert len((await cluster.list(RAY_SERVICE, namespace)).items) == 1
