"""What KubeRay and Kueue really do, where the operator relies on it; docs/architecture.md tells it."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from drivetrain.api.documents import Document, integer, name_of, text, uid_of
from drivetrain.api.kinds import CONFIG_MAP, POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, WORKLOAD, Kind
from drivetrain.api.names import INCARNATION_ANNOTATION, PRIORITY_LABEL, QUEUE_LABEL
from tests.cluster import clusters
from tests.cluster.images import Images
from tests.cluster.kubectl import Kubectl, until
from tests.cluster.queues import local_queue

pytestmark = pytest.mark.nightly

CLUSTER_QUEUE = Kind("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue", namespaced=False)
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
STARTED, ENDED = 180, 180


def reporting(account: str) -> tuple[Document, ...]:
    """The report ConfigMap, and the ServiceAccount that may read and patch it."""
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["report"], "verbs": ["get", "patch"]}]
    subject = {"kind": "ServiceAccount", "name": account}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    rbac, metadata = "rbac.authorization.k8s.io/v1", {"name": account}
    return (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "report"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": rules},
        {"apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata, "subjects": [subject], "roleRef": role},
    )


def test_a_preempted_ray_job_restarts_as_the_same_object_with_another_cluster_and_the_fence_holds(
    namespaces: Callable[[str], Kubectl], images: Images, queue: Callable[[str, int], None]
) -> None:
    team = namespaces("contract-preemption")
    queue(team.namespace, 1)
    team.apply(
        *clusters.s3_server(clusters.S3_IMAGE),
        *reporting("driver"),
        clusters.program("driver"),
        local_queue("pool", team.namespace),
    )
    keys = {"AWS_ACCESS_KEY_ID": clusters.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": clusters.SECRET_KEY}
    head = clusters.template(images.ray, "ray-head", gpu=1, variables=keys, account="driver")
    submitter = clusters.template(images.ray, "ray-job-submitter", memory="512Mi", restart_policy="Never")
    labels = {QUEUE_LABEL: "pool", PRIORITY_LABEL: f"{team.namespace}-low"}
    team.apply(clusters.ray_job("low", f"python {clusters.PROGRAM}/driver.py", head, submitter, labels))

    def job() -> Document:
        found = team.get(RAY_JOB, "low")
        assert found is not None
        return found

    def cluster_other_than(known: str) -> Callable[[], Document | None]:
        def look() -> Document | None:
            found = job()
            name = text(found, "status", "rayClusterName")
            # KubeRay names a cluster for a job that is suspended from its start, and another once it may run.
            return found if name not in ("", known) and team.get(RAY_CLUSTER, name) is not None else None

        return look

    def incarnation(number: int, found: Document) -> str:
        cluster = text(found, "status", "rayClusterName")
        annotations = {INCARNATION_ANNOTATION: f"{number} {cluster}"}
        team.patch(CONFIG_MAP, "report", {"metadata": {"annotations": annotations}})
        return cluster

    def submitter_said(words: str) -> Callable[[], str | None]:
        def look() -> str | None:
            logs = [team.logs(name_of(pod)) for pod in team.items(POD, {"job-name": "low"}) if _started(pod)]
            return next((log for log in logs if words in log), None)

        return look

    first = until(cluster_other_than(""), STARTED, "the first cluster has a name")
    first_cluster = incarnation(1, first)
    until(submitter_said(f"claimed 1.1 for {first_cluster}"), STARTED, "the first incarnation has claimed")
    first = job()

    team.apply(_gpu_job("high", images.ray, f"{team.namespace}-high"))
    evicted = until(lambda: _evicted(team, uid_of(first)), 60, "the low job's Workload is evicted")
    assert evicted["reason"] == "Preempted"
    second = until(cluster_other_than(first_cluster), STARTED, "the low job has another cluster")
    until(lambda: not team.items(POD, {"ray.io/cluster": first_cluster}), 60, "no Pod of the first cluster is left")
    second_cluster = incarnation(2, second)
    log = until(submitter_said("refused: "), STARTED, "the second incarnation has claimed")
    assert f"claimed 1.2 for {second_cluster}" in log
    assert "Attempt 1, incarnation 1 is over" in log
    ended = until(lambda: _ended(job()), ENDED, "the low job ends")

    assert uid_of(ended) == uid_of(first)
    assert text(ended, "status", "jobStatus") == "SUCCEEDED"
    assert text(ended, "status", "jobId") != text(first, "status", "jobId")
    assert text(ended, "status", "startTime") > text(first, "status", "startTime")


def test_kueue_and_kuberay_fight_over_a_ray_service_with_a_queue_label_so_none_of_ours_carries_one(
    namespaces: Callable[[str], Kubectl], queue: Callable[[str, int], None]
) -> None:
    team = namespaces("contract-queued-service")
    queue(team.namespace, 0)
    team.apply(local_queue("pool", team.namespace))
    head = clusters.template("localhost/none:none", "ray-head", gpu=1)
    service = clusters.ray_service("queued", "hello:app", head, {QUEUE_LABEL: "pool"})
    kept = team.create(service, dry_run=True)
    suspended = kept["spec"]["rayClusterConfig"].get("suspend")  # type: ignore[index,call-overload,union-attr]  # our own manifest
    assert suspended is None, "this Kueue queues RayServices: the operator may put the label on them"
    team.create(service)

    def generation() -> int:
        return max((integer(found, "metadata", "generation") for found in team.items(RAY_CLUSTER)), default=0)

    until(lambda: generation() > 20, 60, "the cluster's spec is written again and again")
    team.delete(RAY_SERVICE, "queued")


def test_no_request_fails_while_our_service_moves_from_one_ray_service_to_the_next(
    namespaces: Callable[[str], Kubectl], images: Images
) -> None:
    team = namespaces("contract-cluster-change")
    team.apply(clusters.program("hello", "caller"))

    def serve(revision: str) -> None:
        variables = {"REVISION": revision, "PYTHONPATH": clusters.PROGRAM}
        labels = {"contract/revision": revision}
        head = clusters.template(images.ray, "ray-head", labels=labels, variables=variables)
        team.apply(clusters.ray_service(f"endpoint-{revision}", "hello:app", head))

    def point_to(revision: str) -> None:
        team.apply(clusters.service("endpoint", {"contract/revision": revision, "ray.io/serve": "true"}, 8000))

    def ready(revision: str) -> Callable[[], bool]:
        return lambda: (
            clusters.condition(team.get(RAY_SERVICE, f"endpoint-{revision}"), "Ready").get("status") == "True"
        )

    def said(caller: str, words: str) -> Callable[[], bool]:
        return lambda: words in team.logs(caller)

    callers = ("fresh", "kept")
    serve("one")
    until(ready("one"), STARTED, "the first RayService is ready")
    point_to("one")
    until(lambda: _ready_endpoints(team), 60, "our Service has an endpoint")
    address = clusters.address(team, "endpoint")
    for caller in callers:
        team.apply(_pod(caller, images.ray, ["python", f"{clusters.PROGRAM}/caller.py", address, caller]))
    for caller in callers:
        until(lambda caller=caller: _started(team.get(POD, caller)), 60, f"{caller} starts")  # type: ignore[misc]  # bound now
        until(said(caller, "answered by one"), 60, f"{caller} is answered")
    serve("two")
    until(ready("two"), STARTED, "the second RayService is ready")
    point_to("two")
    until(said("fresh", "answered by two"), 60, "a new connection reaches the second")
    team.delete(RAY_SERVICE, "endpoint-one")
    until(lambda: not team.items(POD, {"contract/revision": "one"}), 120, "no Pod of the first is left")
    until(said("kept", "answered by two"), 60, "the kept connection was opened anew")
    found = {}
    for caller in callers:
        team("exec", caller, "--", "touch", "/tmp/stop")
        until(lambda caller=caller: _ended_pod(team.get(POD, caller)), 30, f"{caller} ends")  # type: ignore[misc]  # bound now
        found[caller] = json.loads(team.logs(caller).splitlines()[-1])
    sys.stderr.write(f"{json.dumps(found)}\n")
    assert found["fresh"]["failures"] == []
    assert found["fresh"]["seen"]["one"] > 100
    assert found["fresh"]["seen"]["two"] > 100
    # A connection that is kept open stays with the Pod that it was opened to, and ends with it: at most a few requests,
    # which a client may send again.
    assert len(found["kept"]["failures"]) <= 3


def _gpu_job(name: str, image: str, priority: str) -> Document:
    template = clusters.template(image, "work", gpu=1, memory="256Mi", restart_policy="Never")
    template["spec"]["containers"][0]["command"] = ["python", "-c", "import time; time.sleep(5)"]
    labels = {QUEUE_LABEL: "pool", PRIORITY_LABEL: priority}
    spec: dict[str, Any] = {"template": template, "backoffLimit": 0, "suspend": True}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _pod(name: str, image: str, command: list[str]) -> Document:
    template = clusters.template(image, name, memory="256Mi", restart_policy="Never")
    template["spec"]["containers"][0]["command"] = command
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}


def _evicted(team: Kubectl, uid: str) -> dict[str, Any] | None:
    for workload in team.items(WORKLOAD, {"kueue.x-k8s.io/job-uid": uid}):
        found = clusters.condition(workload, "Evicted")
        if found.get("status") == "True":
            return found
    return None


def _ended(job: Document) -> Document | None:
    return job if text(job, "status", "jobDeploymentStatus") in ("Complete", "Failed") else None


def _started(pod: Document | None) -> bool:
    return text(pod or {}, "status", "phase") in ("Running", "Succeeded", "Failed")


def _ended_pod(pod: Document | None) -> bool:
    return text(pod or {}, "status", "phase") in ("Succeeded", "Failed")


def _ready_endpoints(team: Kubectl) -> bool:
    slices = team.items(ENDPOINT_SLICE, {"kubernetes.io/service-name": "endpoint"})
    return any(each["conditions"]["ready"] for found in slices for each in found.get("endpoints") or ())  # type: ignore[index,call-overload,union-attr]  # as the API server writes them
