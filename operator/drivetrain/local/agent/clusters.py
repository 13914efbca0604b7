"""RayClusters: the object of a job's or service's incarnation, its pods, and the status that KubeRay gives it. Pure."""

import hashlib
from collections.abc import Iterable

from drivetrain.api.documents import (
    JSON,
    Document,
    annotations_of,
    documents,
    integer,
    labels_of,
    mapping,
    name_of,
    namespace_of,
    text,
    uid_of,
    value,
)
from drivetrain.api.kinds import POD, RAY_CLUSTER, RAY_SERVICE, SECRET, Ref
from drivetrain.api.names import CLUSTER_LABEL, NODE_TYPE_LABEL
from drivetrain.local.agent.effects import Apply, Effect, SetStatus, owner_reference
from drivetrain.local.agent.facts import NODE, World, deleting, is_head, ready, stamp

MANAGER = "drivetrain-agent"
ORIGIN_NAME_LABEL = "ray.io/originated-from-cr-name"
ORIGIN_KIND_LABEL = "ray.io/originated-from-crd"
SUBMISSION_ANNOTATION = "drivetrain.dev/submission-id"
"""On a job's RayCluster and pods: the Ray job that runs there, known even when the RayJob is gone."""
SERVE_LABEL = "ray.io/serve"
"""On the pods of a RayService: whether Services lead there. A worker's readiness says the rest, a head's does not."""
HEAD_GROUP = "headgroup"
OWNER_NAME_LIMIT = 47
"""Characters that KubeRay grants the name of a RayJob or RayService, so that those of its clusters can be longer."""


def ray_cluster(owner: Document, name: str, spec: Document, *, submission: str = "") -> Apply:
    """Create the RayCluster of one incarnation; its spec is the copy that pods are made from."""
    labels = {**labels_of(owner), ORIGIN_NAME_LABEL: name_of(owner), ORIGIN_KIND_LABEL: text(owner, "kind")}
    document: Document = {
        "apiVersion": RAY_CLUSTER.api_version,
        "kind": RAY_CLUSTER.kind,
        "metadata": {
            "name": name,
            "namespace": namespace_of(owner),
            "labels": labels,
            "annotations": {SUBMISSION_ANNOTATION: submission} if submission else {},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }
    return Apply(document, MANAGER, create_only=True)


def misnamed(owner: Document) -> str:
    """Why KubeRay refuses the name of a RayJob or RayService, in its words; "" where it does not."""
    if len(name_of(owner)) <= OWNER_NAME_LIMIT:
        return ""
    kind = text(owner, "kind")
    return f"The {kind} metadata is invalid: {kind} name should be no more than {OWNER_NAME_LIMIT} characters"


def is_of(cluster: Document, owner: Document) -> bool:
    """Whether a RayCluster was made for this RayJob or RayService."""
    return any(text(each, "uid") == uid_of(owner) for each in documents(cluster, "metadata", "ownerReferences"))


def decide(cluster: Document, world: World, token: str) -> tuple[Effect, ...]:
    """Return what a RayCluster lacks: its token Secret, its pods, a true status."""
    if deleting(cluster):
        return ()
    namespace, name = namespace_of(cluster), name_of(cluster)
    effects: list[Effect] = []
    if text(cluster, "spec", "authOptions", "mode") == "token" and world.get(SECRET, namespace, name) is None:
        effects.append(Apply(_token_secret(cluster, token), MANAGER, create_only=True))
    wanted = tuple(pods(cluster))
    existing = {name_of(pod): pod for pod in world.pods(namespace, name)}
    effects += [Apply(pod, MANAGER, create_only=True) for pod in wanted if name_of(pod) not in existing]
    live = [existing[name_of(pod)] for pod in wanted if name_of(pod) in existing]
    status = cluster_status(cluster, wanted, live, world)
    if status != mapping(cluster, "status"):
        effects.append(SetStatus(cluster, status))
    return tuple(effects)


def pods(cluster: Document) -> Iterable[Document]:
    """Return the head pod and the workers that a RayCluster asks for; names are derived, so none is made twice."""
    head = mapping(cluster, "spec", "headGroupSpec")
    yield _pod(cluster, mapping(head, "template"), "head", HEAD_GROUP, 0)
    for group in documents(cluster, "spec", "workerGroupSpecs"):
        replicas = value(group, "replicas")
        count = replicas if isinstance(replicas, int) else integer(group, "minReplicas")
        for index in range(count * max(1, integer(group, "numOfHosts"))):
            yield _pod(cluster, mapping(group, "template"), "worker", text(group, "groupName"), index)


def cluster_status(cluster: Document, wanted: tuple[Document, ...], live: list[Document], world: World) -> Document:
    """Return a RayCluster's whole status; times stay as they were while nothing changes."""
    before = mapping(cluster, "status")
    head = next((pod for pod in live if is_head(pod)), None)
    head_ready = head is not None and ready(head)
    workers = [pod for pod in live if not is_head(pod) and ready(pod)]
    provisioned = len(live) == len(wanted) and all(ready(pod) for pod in live)
    now = stamp(world.now)
    provisioned_before = any(
        text(entry, "type") == "RayClusterProvisioned" and text(entry, "status") == "True"
        for entry in documents(before, "conditions")
    )
    conditions = [
        condition(
            before, "HeadPodReady", head_ready, "HeadPodRunningAndReady" if head_ready else "HeadPodNotFound", now
        )
        if head is None or head_ready
        else condition(before, "HeadPodReady", False, "ContainersNotReady", now, message=_why_not(head)),
        condition(
            before,
            "RayClusterProvisioned",
            provisioned or provisioned_before,
            "AllPodRunningAndReadyFirstTime" if provisioned or provisioned_before else "RayClusterPodsProvisioning",
            now,
            message="All Ray Pods are ready for the first time"
            if provisioned or provisioned_before
            else "RayCluster Pods are being provisioned",
        ),
    ]
    status: dict[str, JSON] = {
        "conditions": conditions,
        "observedGeneration": integer(cluster, "metadata", "generation"),
        "desiredWorkerReplicas": len(wanted) - 1,
        "readyWorkerReplicas": len(workers),
        "availableWorkerReplicas": len(workers),
        "endpoints": {"dashboard": world.place.dashboard.rsplit(":", 1)[1], "serve": str(world.place.serve_port)},
    }
    if provisioned or provisioned_before:
        status["state"] = "ready"
    if head is not None:
        status["head"] = {"podIP": "127.0.0.1", "podName": name_of(head), "serviceIP": "127.0.0.1"}
    if {key: entry for key, entry in before.items() if key != "lastUpdateTime"} == status:
        return before
    return {**status, "lastUpdateTime": now}


def condition(
    before: Document, type_: str, holds: bool, reason: str, now: str, *, message: str = "", generation: int = 0
) -> Document:
    """Return one condition, with the time at which its status last changed."""
    status = "True" if holds else "False"
    old = next((entry for entry in documents(before, "conditions") if text(entry, "type") == type_), {})
    since = text(old, "lastTransitionTime") if text(old, "status") == status else now
    found: dict[str, JSON] = {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }
    return {**found, "observedGeneration": generation} if generation else found


def _why_not(pod: Document) -> str:
    for entry in documents(pod, "status", "containerStatuses"):
        waiting = mapping(entry, "state", "waiting")
        if waiting:
            return f"{text(waiting, 'reason')}: {text(waiting, 'message')}"
    return "containers with unready status"


def _pod(cluster: Document, template: Document, node_type: str, group: str, index: int) -> Document:
    name = name_of(cluster)
    identity = f"{uid_of(cluster)}/{group}/{index}"
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:5]
    middle = "head" if node_type == "head" else f"{group}-worker"
    labels = {
        **labels_of(template),
        ORIGIN_NAME_LABEL: labels_of(cluster).get(ORIGIN_NAME_LABEL, name),
        ORIGIN_KIND_LABEL: labels_of(cluster).get(ORIGIN_KIND_LABEL, RAY_CLUSTER.kind),
        CLUSTER_LABEL: name,
        NODE_TYPE_LABEL: node_type,
        "ray.io/group": group,
        "ray.io/identifier": f"{name}-{node_type}",
        "ray.io/is-ray-node": "yes",
    }
    if labels[ORIGIN_KIND_LABEL] == RAY_SERVICE.kind:
        labels[SERVE_LABEL] = str(node_type == "worker").lower()
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": {
            "name": f"{name}-{middle}-{suffix}"[-63:].lstrip("-."),
            "namespace": namespace_of(cluster),
            "labels": labels,
            "annotations": {**annotations_of(template), **_submission(cluster)},
            "ownerReferences": [owner_reference(cluster)],
        },
        # scheduled by name: there is no scheduler, and the API server keeps a scheduled pod until its process is gone
        "spec": {**mapping(template, "spec"), "nodeName": NODE},
    }


def _submission(cluster: Document) -> dict[str, str]:
    return {key: entry for key, entry in annotations_of(cluster).items() if key == SUBMISSION_ANNOTATION}


def _token_secret(cluster: Document, token: str) -> Document:
    """KubeRay gives every cluster with token authentication a Secret of its name; people read the token from there."""
    ref = Ref(SECRET, namespace_of(cluster), name_of(cluster))
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": ref.name, "namespace": ref.namespace, "ownerReferences": [owner_reference(cluster)]},
        "stringData": {"auth_token": token},
    }
