"""The rendered NetworkPolicies against the table of flows: what must pass, and what must not."""

import pytest

from drivetrain.api.documents import Document, documents, labels_of, mapping
from drivetrain.api.kinds import TRAINING_RUN
from drivetrain.controller.manifests.metadata import Owner
from drivetrain.controller.manifests.network import network_policy
from tests.support.builders import a_project
from tests.support.network import End, Flow, passes
from tests.unit.controller.rendered import rendered

OBJECTS = rendered()
POLICIES = [OBJECTS["run_network"], OBJECTS["endpoint_network"]]
NODE = {"ray.io/is-ray-node": "yes"}


def _labels(name: str, *path: str) -> dict[str, str]:
    return labels_of(mapping(OBJECTS[name], "spec", *path))


HEAD = End("default", {**_labels("ray_job", "rayClusterSpec", "headGroupSpec", "template"), **NODE})
_WORKERS = documents(OBJECTS["ray_job"], "spec", "rayClusterSpec", "workerGroupSpecs")[0]
WORKER = End("default", {**labels_of(mapping(_WORKERS, "template")), **NODE})
SUBMITTER = End("default", _labels("ray_job", "submitterPodTemplate"))
SERVING = End("default", {**_labels("ray_service", "rayClusterConfig", "headGroupSpec", "template"), **NODE})
KUBERAY = End("kuberay-system", {"app.kubernetes.io/component": "kuberay-operator"})
NEIGHBOUR = End("default", {"app": "another"})
STRANGER = End("team-b", {"drivetrain.dev/owner-uid": "x", **NODE})
GATEWAY = End("ingress", {"app": "gateway"}, namespace_labels={"drivetrain.dev/gateway": "true"})
DNS = End("kube-system", {"k8s-app": "kube-dns"})
OPENSHIFT_DNS = End("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"})
MLFLOW = End("mlflow", {"app": "mlflow"})
S3 = End(address="203.0.113.7")
METADATA = End(address="169.254.169.254")

PASSES = {
    "KubeRay asks a run's dashboard": Flow(KUBERAY, HEAD, 8265),
    "KubeRay asks an endpoint's dashboard": Flow(KUBERAY, SERVING, 8265),
    "KubeRay asks an endpoint's proxy": Flow(KUBERAY, SERVING, 8000),
    "the submitter submits": Flow(SUBMITTER, HEAD, 8265),
    "a worker joins": Flow(WORKER, HEAD, 6379),
    "the head starts a worker's actor": Flow(HEAD, WORKER, 10002),
    "the gateway calls the endpoint": Flow(GATEWAY, SERVING, 8000),
    "names are resolved": Flow(HEAD, DNS, 53, "UDP"),
    "names are resolved over TCP": Flow(SUBMITTER, DNS, 53),
    "names are resolved by OpenShift": Flow(HEAD, OPENSHIFT_DNS, 5353, "UDP"),
    "names are resolved by OpenShift over TCP": Flow(SERVING, OPENSHIFT_DNS, 5353),
    "names are resolved on the node": Flow(HEAD, End(address="169.254.20.10"), 53, "UDP"),
    "the store is read": Flow(WORKER, S3, 443),
    "the dossier is kept": Flow(SUBMITTER, S3, 443),
    "MLflow behind another port of its Service is written": Flow(HEAD, MLFLOW, 5000),
    "MLflow behind a Service that leads out of the cluster is written": Flow(HEAD, End(address="203.0.113.8"), 80),
    "the report is written": Flow(HEAD, End(address="10.0.0.1"), 6443),
}
DENIED = {
    "a neighbour asks the dashboard": Flow(NEIGHBOUR, HEAD, 8265),
    "a neighbour speaks to the GCS": Flow(NEIGHBOUR, HEAD, 6379),
    "a neighbour calls the endpoint past the gateway": Flow(NEIGHBOUR, SERVING, 8000),
    "another team's Ray node joins": Flow(STRANGER, HEAD, 6379),
    "KubeRay speaks to the GCS": Flow(KUBERAY, HEAD, 6379),
    "the submitter speaks to the GCS": Flow(SUBMITTER, HEAD, 6379),
    "the submitter is called": Flow(HEAD, SUBMITTER, 22),
    "the gateway asks the dashboard": Flow(GATEWAY, SERVING, 8265),
    "the gateway calls a run": Flow(GATEWAY, HEAD, 8000),
    "HAProxy's own ports": Flow(GATEWAY, SERVING, 9101),
    "HAProxy's statistics": Flow(NEIGHBOUR, SERVING, 8404),
    "a replica past the proxy": Flow(GATEWAY, SERVING, 30000),
    "a run reaches an endpoint's dashboard": Flow(HEAD, SERVING, 8265),
    "the node's credentials are fetched": Flow(HEAD, METADATA, 80),
    "the node's credentials are fetched over TLS": Flow(HEAD, METADATA, 443),
    "mail is sent": Flow(HEAD, End(address="203.0.113.9"), 25),
    "data leaves by DNS of a stranger": Flow(HEAD, End(address="203.0.113.9"), 53, "UDP"),
    "data leaves by OpenShift's port for DNS": Flow(HEAD, End(address="203.0.113.9"), 5353, "UDP"),
    "another namespace is called on the port of MLflow's Pods": Flow(HEAD, End("team-b", {"app": "mlflow"}), 5000),
    "an endpoint writes to MLflow": Flow(SERVING, MLFLOW, 5000),
}


@pytest.mark.parametrize("flow", PASSES.values(), ids=PASSES)
def test_what_the_work_needs_passes(flow: Flow) -> None:
    assert passes(flow, POLICIES)


@pytest.mark.parametrize("flow", DENIED.values(), ids=DENIED)
def test_everything_else_is_denied(flow: Flow) -> None:
    assert not passes(flow, POLICIES)


def test_without_policies_everything_passes() -> None:
    assert all(passes(flow, []) for flow in DENIED.values())


def policy(
    *, store: str | None = "https://s3.example.org", tracking: str | None = None, api: tuple[int, ...] = (443,)
) -> Document:
    data = a_project().with_field("spec.data.store.endpoint", store).build().spec.data
    return network_policy(Owner(TRAINING_RUN, "default", "shop-1", "r-uid", "shop"), data, tracking, api)


@pytest.mark.parametrize(
    ("host", "namespace"),
    [
        ("minio.storage.svc", "storage"),
        ("minio.storage.svc.cluster.local", "storage"),
        ("minio.storage.svc.cluster.local.", "storage"),
        ("minio.storage.svc.corp.example", "storage"),
        ("minio-0.minio-headless.storage.svc", "storage"),
        ("minio.storage", "storage"),
        ("minio", "default"),
        ("MinIO.Storage.svc", "storage"),
    ],
)
def test_a_service_is_reached_on_whatever_port_its_pods_answer(host: str, namespace: str) -> None:
    for rendered_policy in (policy(store=f"http://{host}:80"), policy(tracking=f"http://{host}")):
        assert passes(Flow(WORKER, End(namespace), 9000), [rendered_policy])
        assert not passes(Flow(WORKER, End("team-b"), 9000), [rendered_policy])


@pytest.mark.parametrize("host", ["s3.example.org", "svc.example.org", "10.0.0.7", "[fd00::7]"])
def test_a_host_that_is_no_service_opens_no_namespace(host: str) -> None:
    rendered_policy = policy(store=f"https://{host}")
    assert not any(passes(Flow(WORKER, End(each), 9000), [rendered_policy]) for each in ("example", "org", "default"))


def test_a_bucket_is_no_service() -> None:
    assert not passes(Flow(WORKER, NEIGHBOUR, 9000), [policy(store=None)])


def test_the_api_server_is_reached_where_the_installation_says() -> None:
    there = Flow(HEAD, End(address="10.0.0.1"), 16443)
    assert passes(there, [policy(api=(443, 16443))])
    assert not passes(there, [policy(api=(443, 6443))])
