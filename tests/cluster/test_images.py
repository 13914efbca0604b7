"""Both images as they run in Pods: user 1000, read-only root, emptyDirs to write to, and no wget, git or procps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drivetrain.api.documents import Document, name_of, text
from drivetrain.api.kinds import POD
from drivetrain.api.v1alpha1.training import Cluster, Resources
from drivetrain.controller.manifests import pods
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, until

POD_SECONDS = 180
INSIDE = Path(__file__).with_name("inside.py").read_text()


def a_pod(image: str, kind: str, cpu: str, memory: str) -> Document:
    """A Pod from the template that our Ray Pods are made from, which looks around inside its image."""
    plan = pods.PodPlan(
        container="inside",
        image=image,
        resources=Resources(cpu=cpu, memory=memory),
        account="default",
        labels={},
        environment=(),
        restart_policy="Never",
    )
    template = json.loads(json.dumps(pods.template(plan, Cluster())))
    # Under a shell, as KubeRay starts Ray: below process 1 a raylet takes its parent for dead and ends.
    template["spec"]["containers"][0]["command"] = ["sh", "-c", 'python -c "$0" "$1"; exit $?', INSIDE, kind]
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": kind}}


def said(kubectl: Kubectl, pod: Document) -> Any:
    """What a Pod printed last, once it has succeeded."""
    kubectl.apply(pod)

    def phase() -> str:
        found = text(kubectl.get(POD, name_of(pod)) or {}, "status", "phase")
        return found if found in ("Succeeded", "Failed") else ""

    ended = until(phase, POD_SECONDS, f"{name_of(pod)} ends")
    log = kubectl.logs(name_of(pod))
    assert ended == "Succeeded", log[-3000:]
    return json.loads(log.splitlines()[-1])


def test_the_operator_image_holds_the_operator_and_needs_nothing_else(
    namespaces: Callable[[str], Kubectl], images: Images
) -> None:
    found = said(namespaces("images-operator"), a_pod(images.operator, "operator", "500m", "512Mi"))
    assert (found["programs"], found["present"], found["user"]) == ([], [], [1000, 1000])
    assert found["writable"] == ["/tmp", "/dev/shm", "/tmp"]
    assert found["help"] == 0


def test_the_ray_image_trains_and_keeps_records_without_wget_git_procps_or_a_writable_root(
    namespaces: Callable[[str], Kubectl], images: Images
) -> None:
    found = said(namespaces("images-ray"), a_pod(images.ray, "ray", "1", "2Gi"))
    assert (found["programs"], found["present"], found["user"]) == ([], [], [1000, 1000])
    assert found["writable"] == ["/tmp", "/dev/shm", "/var/lib/drivetrain"]
    assert found["versions"]["DRIVETRAIN_EXPECTED_RAY"] == "2.60.0"
    assert found["mlflow_run"]
    assert 350 < found["fitted"] < 400
