"""Replicas that ask for GPUs: how they share them, how their number changes, and what is said where CUDA is missing."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from drivetrain.api.documents import Document, documents, mapping, name_of, text
from drivetrain.api.kinds import DEPLOYMENT, POD, RAY_SERVICE
from drivetrain.api.v1alpha1.training import Cluster, Resources
from drivetrain.controller.manifests import pods
from tests.cluster import clusters, test_training
from tests.cluster.clusters import condition
from tests.cluster.forwarding import forwarded
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, until
from tests.cluster.test_training import ENDED, STARTED, a_project, ended, supplied

pytestmark = pytest.mark.nightly
operator = test_training.operator

UP_SECONDS, SCALED_SECONDS, ASKED_SECONDS = 300, 180, 60
NAME, KEYS, KEY = "renewals-gpu", "renewals-keys", "a-key-to-decide"
MODEL = "/v2/models/renewals/ready"
SCALE = "/apis/drivetrain.dev/v1alpha1/namespaces/{}/drivetraindeployments/{}/scale"
WORKERS = {"ray.io/node-type": "worker", "drivetrain.dev/owner-name": NAME}


@pytest.mark.timeout(1200)
def test_replicas_share_gpus_say_that_they_run_on_the_cpu_and_follow_kubectl_scale(
    namespaces: Callable[[str], Kubectl], operator: Callable[[str], None], images: Images
) -> None:
    team = namespaces("gpu-serving")
    supplied(team)
    operator("gpu-serving")
    project = a_project("renewals")
    project["spec"]["decisions"] = {"environment": {"accelerator": "GPU"}}
    team.apply(project)
    run = until(lambda: ended(team, "renewals-1"), STARTED + ENDED, "the run ends")
    version = text(run, "status", "modelVersion")
    assert version, run["status"]

    team.apply(keys(), pinned(version))
    until(lambda: answer(team, 2), UP_SECONDS, "two replicas answer")
    (first,) = team.items(POD, WORKERS)
    assert gpus(first) == "1", "two halves of one GPU are one Pod"
    told = condition(team.get(DEPLOYMENT, NAME), "Accelerated")
    assert (told["status"], told["reason"]) == ("False", "RunsOnCPU")
    with forwarded(team, f"service/{NAME}", 8000) as url:
        assert refused(url, "/v1/decide") == (404, "VersionPinned")

    team("scale", "dtd", NAME, "--replicas=3")
    until(lambda: answer(team, 3), SCALED_SECONDS, "three replicas answer")
    grown = until(lambda: found if len(found := ready(team)) == 2 else {}, SCALED_SECONDS, "two workers are ready")
    assert {gpus(each) for each in grown.values()} == {"1"}
    assert name_of(first) in grown, "the first is left alone"
    assert selected(team) == grown.keys()

    asking(team, images.ray)
    team("scale", "dtd", NAME, "--replicas=1")
    until(lambda: len(team.items(POD, WORKERS)) == 1, SCALED_SECONDS, "one worker is left")
    until(lambda: answer(team, 1), SCALED_SECONDS, "one replica answers")
    assert len(ready(team)) == 1
    before = heard(team)["answers"]
    asked = until(lambda: now if (now := heard(team))["answers"] > before + 20 else {}, ASKED_SECONDS, "it is asked on")
    assert asked["failures"] == {}, "whoever asks does not notice that workers go"
    assert len(team.items(RAY_SERVICE)) == 1, "no cluster was replaced"


def keys() -> Document:
    data = {"decide": KEY, "outcomes": "another-key"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS}, "stringData": data}


def pinned(version: str) -> Document:
    spec: Document = {
        "model": {"name": "renewals", "version": version},
        "resources": {"cpu": "100m", "memory": "1500Mi", "gpu": 0.5},
        "cluster": {"head": {"cpu": "300m", "memory": "4Gi"}},
        "auth": {"secretName": KEYS},
        "replicas": 2,
    }
    metadata = {"name": NAME}
    return {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "metadata": metadata, "spec": spec}


def answer(team: Kubectl, replicas: int) -> bool:
    """Whether so many replicas serve the version."""
    found = team.get(DEPLOYMENT, NAME)
    ready = condition(found, "Ready")
    serves = (ready.get("status"), ready.get("reason")) == ("True", "Serving")
    return serves and mapping(found or {}, "status").get("replicas") == replicas


def ready(team: Kubectl) -> dict[str, Document]:
    """The workers that hold a replica, by name."""
    return {name_of(pod): pod for pod in team.items(POD, WORKERS) if condition(pod, "Ready").get("status") == "True"}


def selected(team: Kubectl) -> set[str]:
    """The Pods that an autoscaler of Kubernetes would look at."""
    scale = json.loads(team("get", "--raw", SCALE.format(team.namespace, NAME)))
    found = json.loads(team("get", "pods", "-l", scale["status"]["selector"], "-o", "json"))
    return {name_of(pod) for pod in found["items"]}


def gpus(pod: Document) -> str:
    (container,) = documents(pod, "spec", "containers")
    return text(container, "resources", "limits", "nvidia.com/gpu")


def refused(url: str, path: str) -> tuple[int, str]:
    """Status, and the reason."""
    headers = {"Authorization": f"Bearer {KEY}"}
    found = urllib3.request("POST", url + path, json={"rows": []}, headers=headers, timeout=30.0, retries=False)
    reason: str = found.json()["error"]["reason"]
    return found.status, reason


def asking(team: Kubectl, image: str) -> None:
    """A Pod that asks the endpoint through its Service from now on."""
    key: Document = {"name": "DECIDE", "valueFrom": {"secretKeyRef": {"name": KEYS, "key": "decide"}}}
    plan = pods.PodPlan(
        container="asking",
        image=image,
        resources=Resources(cpu="10m", memory="256Mi"),
        account="default",
        labels={"app": "asking"},
        environment=(key,),
        mounts=(pods.config_map("program", clusters.PROGRAM, "program"),),
        command=("python", f"{clusters.PROGRAM}/asking.py", f"http://{clusters.address(team, NAME)}:8000{MODEL}"),
    )
    metadata: Document = {"name": "asking", "labels": {"app": "asking"}}
    team.apply(
        clusters.program("asking"),
        {"apiVersion": "v1", "kind": "Pod", **pods.template(plan, Cluster()), "metadata": metadata},
    )
    until(lambda: heard(team)["answers"], ASKED_SECONDS, "the endpoint answers through its Service")


def heard(team: Kubectl) -> dict[str, Any]:
    """What came of asking so far."""
    phase = text(team.get(POD, "asking") or {}, "status", "phase")
    lines = team.logs("asking", "--tail=1").splitlines() if phase == "Running" else []
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"answers": 0, "failures": {}}
    return found
